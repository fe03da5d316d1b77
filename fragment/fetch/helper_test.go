package fetch

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/fragment"
	"github.com/oscorelay/oscorelay/fragment/internal/flash"
	"github.com/oscorelay/oscorelay/internal/coap"
	fileserver "github.com/oscorelay/oscorelay/internal/mirror"
)

// quick keeps tests short where packets are lost on purpose.
var quick = Timing{AckTimeout: 60 * time.Millisecond, MaxRetransmit: 4}

// memory is a Store that fails the test when a byte is written that is not the
// genuine image's: the flash is checked at every step.
type memory struct {
	t     testing.TB
	image []byte // nil: a journal
	mu    sync.Mutex
	flash.Memory
}

func (m *memory) ReadAt(b []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.Memory.ReadAt(b, off)
}

func (m *memory) WriteAt(b []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.image != nil && (int(off)+len(b) > len(m.image) || !bytes.Equal(b, m.image[off:int(off)+len(b)])) {
		m.t.Errorf("unverified bytes reach flash at %d", off)
	}
	return m.Memory.WriteAt(b, off)
}

// release is a signed image and its files.
type release struct {
	image  []byte
	signed *fragment.Signed
	key    fragment.PublicKey
	policy fragment.Policy
	files  map[string][]byte // by path
	timing Timing            // of its jobs
}

func newRelease(t testing.TB, size int, leaf uint8, layouts ...fragment.Layout) *release {
	t.Helper()
	r := &release{image: make([]byte, size), files: map[string][]byte{}, timing: quick}
	_, _ = rand.NewChaCha8([32]byte{1}).Read(r.image)
	s, err := fragment.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.key = s.Public()
	m, err := fragment.Describe(bytes.NewReader(r.image), uint32(size), leaf, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Sequence = 1
	b, err := fragment.Sign(nil, m, s)
	if err != nil {
		t.Fatal(err)
	}
	if r.signed, err = fragment.Open(b, r.key); err != nil {
		t.Fatal(err)
	}
	for _, l := range layouts {
		var file bytes.Buffer
		if err := fragment.Cut(&file, bytes.NewReader(r.image), r.signed.Envelope(), fragment.CutConfig{Layout: l}); err != nil {
			t.Fatal(err)
		}
		name := r.signed.Name(l)
		r.files["/fw/"+name.String()] = file.Bytes()
		if l.Outboard {
			r.files["/fw/"+name.Image()] = r.image
		}
	}
	return r
}

func (r *release) lookup(path string) (fileserver.File, bool) {
	b, ok := r.files[path]
	return fileserver.File{ReaderAt: bytes.NewReader(b), Size: int64(len(b)), ETag: []byte{1, 2}}, ok
}

// serve starts an honest mirror, changed by the given options, and returns its
// address.
func (r *release) serve(t testing.TB, change ...func(*fileserver.Server)) string {
	t.Helper()
	s := &fileserver.Server{Lookup: r.lookup}
	for _, c := range change {
		c(s)
	}
	conn := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ctx, conn) }()
	t.Cleanup(func() { cancel(); <-done })
	return conn.LocalAddr().String()
}

func listen(t testing.TB) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func (r *release) uri(addr string, l fragment.Layout) string {
	return "coap://" + addr + "/fw/" + r.signed.Name(l).String()
}

// job is a download's configuration with a guarded flash.
func (r *release) job(t testing.TB, uris ...string) (Config, *memory) {
	t.Helper()
	u, err := ListenUDP(r.timing)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	flash := &memory{t: t, image: r.image}
	c := Config{Keys: []fragment.PublicKey{r.key}, Policy: r.policy, Flash: flash, Journal: &memory{t: t}, Timing: r.timing}
	for _, uri := range uris {
		s, err := u.Source(t.Context(), uri)
		if err != nil {
			t.Fatal(err)
		}
		c.Sources = append(c.Sources, s)
	}
	return c, flash
}

// relay stands between a client and a mirror, on real sockets, and does what
// its two functions say: each gets a datagram and sends what it likes.
type relay struct {
	conn   *net.UDPConn
	origin *net.UDPConn
	mu     sync.Mutex
	client net.Addr
	reply  func([]byte) // straight to the client
}

func newRelay(t testing.TB, origin string, upward, downward func(r *relay, b []byte, send func([]byte))) string {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", origin)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{conn: listen(t)}
	if r.origin, err = net.DialUDP("udp", nil, to); err != nil {
		t.Fatal(err)
	}
	r.reply = func(b []byte) {
		r.mu.Lock()
		client := r.client
		r.mu.Unlock()
		_, _ = r.conn.WriteTo(b, client)
	}
	pass := func(_ *relay, b []byte, send func([]byte)) { send(b) }
	if upward == nil {
		upward = pass
	}
	if downward == nil {
		downward = pass
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := r.conn.ReadFrom(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.client = from
			r.mu.Unlock()
			upward(r, bytes.Clone(buf[:n]), func(b []byte) { _, _ = r.origin.Write(b) })
		}
	})
	wait.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, err := r.origin.Read(buf)
			if err != nil {
				return
			}
			downward(r, bytes.Clone(buf[:n]), r.reply)
		}
	})
	t.Cleanup(func() { _ = r.conn.Close(); _ = r.origin.Close(); wait.Wait() })
	return r.conn.LocalAddr().String()
}

// forge changes the last byte of a datagram, which is payload.
func forge(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-1] ^= 1
	return b
}

// edit parses a response and lets its options be changed.
func edit(t testing.TB, b []byte, change func(d *coap.Datagram, o coap.Options) coap.Options) []byte {
	d, err := coap.ParseDatagram(b)
	if err != nil {
		t.Error(err)
		return b
	}
	o, payload, err := coap.Split(d.Body)
	if err != nil {
		t.Error(err)
		return b
	}
	o = change(&d, o)
	d.Body = coap.AppendBody(nil, o, payload)
	return d.Append(nil)
}

func complete(t testing.TB, c Config, flash *memory, image []byte) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	r, err := Run(ctx, c)
	if err != nil {
		t.Fatalf("%v (%+v)", err, r)
	}
	if !bytes.Equal(flash.B, image) {
		t.Fatal("the flash does not hold the image")
	}
	return r
}
