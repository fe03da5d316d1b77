package object5

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/fragment"
	"github.com/oscorelay/oscorelay/fragment/fetch"
	"github.com/oscorelay/oscorelay/fragment/internal/flash"
	"github.com/oscorelay/oscorelay/internal/mirror"
	"github.com/oscorelay/oscorelay/internal/proof"
)

type memory = flash.Memory

// device records what it is asked to do.
type device struct {
	did     []string
	policy  fragment.Policy
	flash   memory
	journal memory
	record  Record
	saveErr error
	openErr error
}

func (d *device) Download(uri string, p fragment.Policy) {
	d.did, d.policy = append(d.did, "download"), p
}
func (d *device) Abort()                   { d.did = append(d.did, "abort") }
func (d *device) Install(*fragment.Signed) { d.did = append(d.did, "install") }
func (d *device) Now() uint64              { return 1000 + uint64(len(d.did)) }
func (d *device) Open(*fragment.Signed) (fragment.Store, fragment.Store, error) {
	return &d.flash, &d.journal, d.openErr
}

func (d *device) Save(r Record) error {
	if d.saveErr == nil {
		d.record = r
	}
	return d.saveErr
}

func (d *device) took() string {
	s := strings.Join(d.did, " ")
	d.did = nil
	return s
}

var layout = fragment.Layout{Unit: 8, Page: 8}

// release is a signed image of sequence 5.
type release struct {
	image, file []byte
	signed      *fragment.Signed
	key         fragment.PublicKey
}

func newRelease(t testing.TB) *release {
	t.Helper()
	r := &release{image: bytes.Repeat([]byte("firmware"), 800)}
	s, err := fragment.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.key = s.Public()
	m, err := fragment.Describe(bytes.NewReader(r.image), uint32(len(r.image)), 6, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Sequence, m.PkgName, m.PkgVersion = 5, "pump", "1.4"
	b, err := fragment.Sign(nil, m, s)
	if err != nil {
		t.Fatal(err)
	}
	if r.signed, err = fragment.Open(b, r.key); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := fragment.Cut(&file, bytes.NewReader(r.image), r.signed.Envelope(), fragment.CutConfig{Layout: layout}); err != nil {
		t.Fatal(err)
	}
	r.file = file.Bytes()
	return r
}

func (r *release) uri() string { return "coap://cdn.example/fw/" + r.signed.Name(layout).String() }

func (r *release) machine(t testing.TB, rec Record) (*Machine, *device) {
	t.Helper()
	d := &device{record: rec}
	m, err := New(Config{Keys: []fragment.PublicKey{r.key}, Device: d}, rec)
	if err != nil {
		t.Fatal(err)
	}
	return m, d
}

func expect(t testing.TB, m *Machine, s State, r Result) {
	t.Helper()
	if gs, gr := m.State(); gs != s || gr != r {
		t.Fatalf("state %v, result %d; want %v, %d", gs, gr, s, r)
	}
}

func code(t testing.TB, got, want Code) {
	t.Helper()
	if got != want {
		t.Fatalf("code %v, want %v", got, want)
	}
}

func TestPull(t *testing.T) {
	r := newRelease(t)
	m, d := r.machine(t, Record{Sequence: 4})
	code(t, m.Update(), MethodNotAllowed)
	code(t, m.WriteURI(r.uri()), Changed)
	if d.took() != "download" || d.policy.Installed != 4 {
		t.Fatalf("the device was told of policy %+v", d.policy)
	}
	// The state rises only when the manifest has been verified.
	expect(t, m, Idle, Initial)
	code(t, m.WriteURI(r.uri()), MethodNotAllowed)
	if err := m.Accepted(r.signed); err != nil {
		t.Fatal(err)
	}
	expect(t, m, Downloading, Initial)
	code(t, m.Update(), MethodNotAllowed)
	if err := m.Fetched(nil); err != nil {
		t.Fatal(err)
	}
	expect(t, m, Downloaded, Initial)
	for id, want := range map[int]any{
		StateID: int64(2), UpdateResult: int64(0), PkgName: "pump", PkgVersion: "1.4", PackageURI: r.uri(),
		DeliveryMethod: int64(2), AutoUpgrade: false, Protocols: []int64{0},
	} {
		if got, ok := m.Read(id); !ok || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("resource %d reads %v, want %v", id, got, want)
		}
	}
	if _, ok := m.Read(Update); ok {
		t.Error("an executable resource can be read")
	}
	code(t, m.Update(), Changed)
	expect(t, m, Updating, Initial)
	if d.took() != "install" {
		t.Fatal("the device was not told to install")
	}
	for _, c := range []Code{m.Cancel(), m.WriteURI(""), m.WriteURI(r.uri()), m.Update(), m.WritePackage(Block{Data: []byte{0}})} {
		code(t, c, MethodNotAllowed)
	}
	if m.Record().Sequence != 4 {
		t.Fatal("the sequence rose before the update had succeeded")
	}
	if err := m.Installed(nil); err != nil {
		t.Fatal(err)
	}
	expect(t, m, Idle, Success)
	if d.record.Sequence != 5 {
		t.Fatalf("sequence %d is stored", d.record.Sequence)
	}
	// The same image again is a rollback now.
	code(t, m.WriteURI(r.uri()), Changed)
	if err := m.Accepted(r.signed); !errors.Is(err, fragment.ErrRollback) {
		t.Fatal(err)
	}
	if err := m.Fetched(fragment.ErrRollback); err != nil {
		t.Fatal(err)
	}
	expect(t, m, Idle, IntegrityFailure)
}

// A failed installation leaves the stored sequence, so the image can come again.
func TestInstallFails(t *testing.T) {
	r := newRelease(t)
	m, d := r.machine(t, Record{State: Updating, Sign1: r.signed.Bytes(), Sequence: 4})
	if err := m.Installed(errors.New("boot loop")); err != nil {
		t.Fatal(err)
	}
	expect(t, m, Idle, UpdateFailed)
	if d.record.Sequence != 4 {
		t.Fatal("the sequence rose")
	}
	if err := m.Installed(nil); err == nil {
		t.Fatal("an update ended twice")
	}
}

func TestResults(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Result
	}{
		{nil, Initial},
		{fragment.ErrSignature, IntegrityFailure},
		{fragment.ErrKey, IntegrityFailure},
		{fragment.ErrVendor, IntegrityFailure},
		{fragment.ErrClass, IntegrityFailure},
		{fragment.ErrDevice, IntegrityFailure},
		{fragment.ErrRollback, IntegrityFailure},
		{fragment.ErrDigest, IntegrityFailure},
		{fragment.ErrForged, IntegrityFailure},
		{fragment.ErrAlgorithm, UnsupportedPackage},
		{fragment.ErrVersion, UnsupportedPackage},
		{fragment.ErrUnsupported, UnsupportedPackage},
		{fragment.ErrTooLarge, NoFlash},
		{fragment.ErrFlash, NoFlash},
		{ErrMemory, NoMemory},
		{ErrTimeout, ConnectionLost},
		{context.DeadlineExceeded, ConnectionLost},
		{fragment.ErrName, InvalidURI},
		{errors.New("other"), ConnectionLost},
	} {
		if got := ResultOf(fmt.Errorf("wrapped: %w", c.err)); c.err != nil && got != c.want {
			t.Errorf("%v gives result %d, want %d", c.err, got, c.want)
		}
		if c.err == nil && ResultOf(nil) != Initial {
			t.Error("no error gives a result")
		}
		r := newRelease(t)
		m, d := r.machine(t, Record{Sequence: 4})
		code(t, m.WriteURI(r.uri()), Changed)
		if err := m.Accepted(r.signed); err != nil {
			t.Fatal(err)
		}
		if c.err == nil {
			continue
		}
		if err := m.Fetched(c.err); err != nil {
			t.Fatal(err)
		}
		expect(t, m, Idle, c.want)
		if d.took() != "download abort" {
			t.Error("the image was not let go of")
		}
	}
}

func TestWriteURIRefuses(t *testing.T) {
	r := newRelease(t)
	for uri, want := range map[string]Result{
		"http://cdn/fw/" + r.signed.Name(layout).String():           UnsupportedProtocol,
		"coap://cdn/fw/firmware.bin":                                InvalidURI,
		"no uri":                                                    InvalidURI,
		"coap:///" + r.signed.Name(layout).String():                 InvalidURI,
		"coap://cdn/" + strings.Repeat("x", 256):                    InvalidURI,
		"coap://cdn/%zz/" + r.signed.Name(layout).String():          InvalidURI,
		"coap://cdn/fw/" + r.signed.Name(layout).String() + "/":     Initial,
		"coap://cdn/fw/" + r.signed.Name(layout).String() + "?q=1":  Initial,
		"coap://cdn:5690/" + r.signed.Name(layout).String():         Initial,
		"coaps://cdn/" + r.signed.Name(layout).String():             UnsupportedProtocol,
		"coap://[2001:db8::1]/fw/" + r.signed.Name(layout).String(): Initial,
	} {
		m, d := r.machine(t, Record{})
		got := m.WriteURI(uri)
		expect(t, m, Idle, want)
		if want == Initial {
			code(t, got, Changed)
			continue
		}
		code(t, got, BadRequest)
		if d.took() != "" {
			t.Errorf("%s: the device was asked to do something", uri)
		}
	}
}

func TestResetAndCancel(t *testing.T) {
	r := newRelease(t)
	for name, end := range map[string]struct {
		do   func(m *Machine) Code
		want Result
	}{
		"empty URI": {func(m *Machine) Code { return m.WriteURI("") }, Initial},
		"NUL":       {func(m *Machine) Code { return m.WritePackage(Block{Data: []byte{0}}) }, Initial},
		"cancel":    {func(m *Machine) Code { return m.Cancel() }, Cancelled},
	} {
		for _, state := range []State{Downloading, Downloaded} {
			t.Run(fmt.Sprint(name, " ", state), func(t *testing.T) {
				m, d := r.machine(t, Record{Sequence: 4})
				code(t, m.WriteURI(r.uri()), Changed)
				if err := m.Accepted(r.signed); err != nil {
					t.Fatal(err)
				}
				if state == Downloaded {
					if err := m.Fetched(nil); err != nil {
						t.Fatal(err)
					}
				}
				code(t, end.do(m), Changed)
				expect(t, m, Idle, end.want)
				if d.took() != "download abort" {
					t.Fatal("the image was not let go of")
				}
				// What comes late changes nothing.
				if m.Accepted(r.signed) == nil || m.Fetched(nil) == nil {
					t.Fatal("a cancelled download went on")
				}
				expect(t, m, Idle, end.want)
			})
		}
	}
}

func TestDeferredAndAutomatic(t *testing.T) {
	r := newRelease(t)
	d := &device{}
	yes := true
	m, err := New(Config{Keys: []fragment.PublicKey{r.key}, Device: d, MayDefer: func() bool { return yes }}, Record{State: Downloaded, Sign1: r.signed.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	code(t, m.Approve(), MethodNotAllowed)
	code(t, m.Update(), Changed)
	expect(t, m, Downloaded, Deferred)
	code(t, m.Approve(), Changed)
	expect(t, m, Updating, Initial)

	m, d = r.machine(t, Record{})
	code(t, m.WriteAuto(true), Changed)
	code(t, m.WriteURI(r.uri()), Changed)
	if err := errors.Join(m.Accepted(r.signed), m.Fetched(nil)); err != nil {
		t.Fatal(err)
	}
	expect(t, m, Updating, Initial)
	if d.took() != "download install" {
		t.Fatal("an automatic update did not begin")
	}
}

// After a restart the machine stands where it was saved.
func TestRestart(t *testing.T) {
	r := newRelease(t)
	for _, c := range []struct {
		rec  Record
		s    State
		res  Result
		does string
	}{
		{Record{}, Idle, Initial, ""},
		{Record{State: Idle, URI: r.uri()}, Idle, Initial, "download"},
		{Record{State: Downloading, URI: r.uri(), Sign1: r.signed.Bytes()}, Downloading, Initial, "download"},
		{Record{State: Downloading, Sign1: r.signed.Bytes()}, Idle, ConnectionLost, ""},
		{Record{State: Downloaded, URI: r.uri(), Sign1: r.signed.Bytes()}, Downloaded, Initial, ""},
		{Record{State: Updating, Sign1: r.signed.Bytes()}, Updating, Initial, ""},
		{Record{State: Idle, Result: Success, Sequence: 5}, Idle, Success, ""},
	} {
		m, d := r.machine(t, c.rec)
		expect(t, m, c.s, c.res)
		if got := d.took(); got != c.does {
			t.Errorf("%+v: the device was asked to %q, want %q", c.rec, got, c.does)
		}
	}
	for _, rec := range []Record{{State: Downloaded}, {State: 4}, {State: Updating, Sign1: []byte{1}}} {
		if _, err := New(Config{Device: &device{}}, rec); err == nil {
			t.Errorf("%+v was restored", rec)
		}
	}
}

// A state that could not be saved is not entered.
func TestSaveFails(t *testing.T) {
	r := newRelease(t)
	m, d := r.machine(t, Record{State: Downloaded, Sign1: r.signed.Bytes()})
	d.saveErr = errors.New("disk full")
	code(t, m.Update(), InternalError)
	code(t, m.Cancel(), InternalError)
	expect(t, m, Downloaded, Initial)
	if d.took() != "" {
		t.Fatal("the device was asked to do something")
	}
}

// pushAll sends a file in blocks and returns the last code.
func pushAll(m *Machine, file []byte, size int, sealed bool) (c Code) {
	for at := 0; at < len(file); at += size {
		end := min(at+size, len(file))
		if c = m.WritePackage(Block{Offset: int64(at), Data: file[at:end], More: end < len(file), Sealed: sealed}); c != Continue {
			return c
		}
	}
	return c
}

func TestPush(t *testing.T) {
	r := newRelease(t)
	for _, size := range []int{64, 256, 1024, len(r.file)} {
		for _, sealed := range []bool{false, true} {
			m, d := r.machine(t, Record{Sequence: 4})
			code(t, pushAll(m, r.file, size, sealed), Changed)
			expect(t, m, Downloaded, Initial)
			if !bytes.Equal(d.flash.B, r.image) {
				t.Fatal("image differs")
			}
			code(t, m.WritePackage(Block{Data: r.file, Sealed: sealed}), MethodNotAllowed)
			code(t, m.Update(), Changed)
		}
	}
}

// A bad page inside a sealed transfer means that the sender lies.
func TestPushSealedLie(t *testing.T) {
	r := newRelease(t)
	for at := range r.file {
		bad := bytes.Clone(r.file)
		bad[at] ^= 1
		m, _ := r.machine(t, Record{})
		c := pushAll(m, bad, 256, true)
		// A frag-info that says another layout is found at its items.
		if c != BadRequest {
			t.Fatalf("byte %d changed: code %v", at, c)
		}
		if s, res := m.State(); s != Idle || res != IntegrityFailure && res != UnsupportedPackage {
			t.Fatalf("byte %d changed: state %v, result %d", at, s, res)
		}
	}
	m, _ := r.machine(t, Record{})
	code(t, m.WritePackage(Block{Data: r.file[:1024], Sealed: true}), BadRequest)
	expect(t, m, Idle, IntegrityFailure)
}

// Over plain CoAP a bad page is as if the packet had not come.
func TestPushPlainInjection(t *testing.T) {
	proof.Requirement(t, "direct, injector", "E2E-13")
	r := newRelease(t)
	m, d := r.machine(t, Record{})
	const size = 256
	forgeries := 0
	for at := 0; at < len(r.file); {
		end := min(at+size, len(r.file))
		genuine := Block{Offset: int64(at), Data: r.file[at:end], More: end < len(r.file)}
		if at >= 512 { // behind the header
			bad := genuine
			bad.Data = bytes.Clone(genuine.Data)
			bad.Data[3] ^= 1
			code(t, m.WritePackage(bad), NoAnswer)
			forgeries++
			bad.Offset += size
			code(t, m.WritePackage(bad), Incomplete)
			expect(t, m, Downloading, Initial)
		}
		c := m.WritePackage(genuine)
		if want := Continue; genuine.More && c != want {
			t.Fatalf("at %d: code %v", at, c)
		}
		code(t, m.WritePackage(Block{Offset: int64(at), Data: r.file[at:end], More: true}), map[bool]Code{true: Continue, false: MethodNotAllowed}[genuine.More])
		at = end
	}
	expect(t, m, Downloaded, Initial)
	if !bytes.Equal(d.flash.B, r.image) || forgeries < 20 {
		t.Fatalf("image differs, or too few forgeries: %d", forgeries)
	}
}

// A header that does not verify is dropped whole, and after four the package
// itself is refused.
func TestPushPlainHeader(t *testing.T) {
	r := newRelease(t)
	bad := bytes.Clone(r.file)
	bad[100] ^= 1
	m, _ := r.machine(t, Record{})
	for range plainHeaders - 1 {
		code(t, pushAll(m, bad, 1024, false), NoAnswer)
		expect(t, m, Idle, Initial)
	}
	code(t, pushAll(m, bad, 1024, false), BadRequest)
	expect(t, m, Idle, IntegrityFailure)
	code(t, pushAll(m, r.file, 1024, false), Changed)
	expect(t, m, Downloaded, Initial)

	// What the manifest says is final: it is signed.
	m, _ = r.machine(t, Record{Sequence: 5})
	code(t, pushAll(m, r.file, 1024, false), BadRequest)
	expect(t, m, Idle, IntegrityFailure)
	m, d := r.machine(t, Record{})
	d.openErr = fmt.Errorf("no room: %w", fragment.ErrTooLarge)
	code(t, pushAll(m, r.file, 1024, true), BadRequest)
	expect(t, m, Idle, NoFlash)
	// A transfer begins at its beginning.
	m, _ = r.machine(t, Record{})
	code(t, m.WritePackage(Block{Offset: 512, Data: r.file[512:600], More: true}), Incomplete)
}

// puller is a device whose downloads are real.
type puller struct {
	*device
	t     *testing.T
	m     *Machine
	uri   string
	keys  []fragment.PublicKey
	ended chan error
}

func (p *puller) Download(_ string, policy fragment.Policy) {
	go func() {
		err := func() error {
			udp, err := fetch.ListenUDP(fetch.Timing{AckTimeout: 100 * time.Millisecond})
			if err != nil {
				return err
			}
			defer udp.Close()
			s, err := udp.Source(p.t.Context(), p.uri)
			if err != nil {
				return err
			}
			_, err = fetch.Run(p.t.Context(), fetch.Config{
				Sources: []fetch.Source{s}, Keys: p.keys, Policy: policy,
				Open: func(s *fragment.Signed) (fragment.Store, fragment.Store, error) {
					return &p.flash, &p.journal, p.m.Accepted(s)
				},
			})
			return err
		}()
		p.ended <- p.m.Fetched(err)
	}()
}

// The machine, a real download and a real mirror, from the write to the
// installed sequence.
func TestPullFromAMirror(t *testing.T) {
	r := newRelease(t)
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	path := "/fw/" + r.signed.Name(layout).String()
	server := &mirror.Server{Lookup: func(p string) (mirror.File, bool) {
		return mirror.File{ReaderAt: bytes.NewReader(r.file), Size: int64(len(r.file))}, p == path
	}}
	go func() { _ = server.Serve(ctx, conn) }()
	p := &puller{device: &device{}, t: t, keys: []fragment.PublicKey{r.key}, ended: make(chan error, 1)}
	p.uri = "coap://" + conn.LocalAddr().String() + path
	if p.m, err = New(Config{Keys: p.keys, Device: p}, Record{Sequence: 4}); err != nil {
		t.Fatal(err)
	}
	code(t, p.m.WriteURI(p.uri), Changed)
	if err := <-p.ended; err != nil {
		t.Fatal(err)
	}
	expect(t, p.m, Downloaded, Initial)
	code(t, p.m.Update(), Changed)
	if err := p.m.Installed(nil); err != nil {
		t.Fatal(err)
	}
	expect(t, p.m, Idle, Success)
	if p.record.Sequence != 5 || !bytes.Equal(p.flash.B, r.image) {
		t.Fatal("the image or its sequence is not in place")
	}
}
