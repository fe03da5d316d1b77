package bolt

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"testing"

	"pgregory.net/rapid"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// modelled is a device of the model: its entry, the other end, and all that the
// daemon's end may have done under its keys.
type modelled struct {
	entry    keys.Entry
	there    bool
	derived  []byte
	round    int // of Appendix B.2
	far      *oscore.Context
	sent     []oscore.Message // under the present keys
	old      []oscore.Message // under earlier ones
	accepted map[uint64]bool
	used     map[uint64]bool // numbers
	window   bool
	count    uint64 // encryptions
	changed  int    // counts what ends a peer that somebody holds
}

func (d *modelled) bare() bool {
	return d.entry.Params.IDContext == nil || d.entry.Params.OmitKIDContext
}

// renew gives the device the context of an ID Context, or the one configured.
func (d *modelled) renew(t *rapid.T, idContext []byte) {
	params := d.entry.Params.Clone().Swap()
	if idContext != nil {
		params.IDContext = idContext
	}
	far, err := oscore.New(params)
	if err != nil {
		t.Fatal(err)
	}
	far.Begin()
	if idContext != nil {
		carried := idContext
		if d.bare() {
			carried = nil
		}
		if err := far.SetKIDContext(carried); err != nil {
			t.Fatal(err)
		}
	}
	d.far, d.derived = far, idContext
	d.old, d.sent = append(d.old, d.sent...), nil
	d.accepted, d.used = map[uint64]bool{}, map[uint64]bool{}
}

// answers returns the kid contexts that name the device alone.
func (d *modelled) answers() [][]byte {
	switch {
	case d.derived != nil:
		return [][]byte{d.derived, oscore.WrapBstr(d.derived)}
	case d.entry.Params.IDContext != nil:
		return [][]byte{d.entry.Params.IDContext}
	}
	return nil
}

// held is a request that somebody answers later, as an observation does.
type held struct {
	d       *modelled
	peer    oscore.Peer
	request *oscore.Request
	changed int
	epoch   uint64
}

type model struct {
	base  string
	opts  Options
	st    *Store
	ring  *keys.Keyring
	all   []*modelled
	held  []held
	found map[string]int
}

// TestKeyringModel plays devices that share kids and kid contexts against a keyring
// that holds one to three of them, with evictions, crashes, clean stops, entries
// that change, and Appendix B.2: what is found is what a keyring that held them all
// would find, no number is used twice, no request is accepted twice, and nothing
// but a crash makes a device answer a challenge.
func TestKeyringModel(t *testing.T) {
	proof.Checklist(t, "O-B.1.1-1")
	did := map[string]int{}
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		base := filepath.Join(t.TempDir(), fmt.Sprint(n))
		m := &model{base: base, found: did, opts: opts(base)}
		m.opts.noSync, m.opts.anchors = true, lazy{}
		m.opts.Hot = rapid.IntRange(1, 3).Draw(rt, "hot")
		m.opts.OnError = func(err error) { rt.Error(err) }
		m.open(rt, true)
		defer func() { m.st.die() }()
		names := []string{"a", "b", "c", "d", "e", "f", "g"}
		for i, name := range names {
			d := &modelled{entry: demo(name)}
			p := &d.entry.Params
			p.SenderID, p.RecipientID = []byte{0xa}, []byte{byte(rapid.IntRange(1, 2).Draw(rt, "kid"))}
			p.IDContext = [][]byte{nil, {}, {0x41, byte(i)}, {byte(i)}}[rapid.IntRange(0, 3).Draw(rt, "context")]
			if len(p.IDContext) == 0 && p.IDContext != nil {
				p.IDContext = []byte{byte(0x60 + i)}
			}
			p.OmitKIDContext = p.IDContext != nil && rapid.Bool().Draw(rt, "omit")
			p.WindowSize = []int{0, 1, 64, 100}[rapid.IntRange(0, 3).Draw(rt, "window")]
			if rapid.Bool().Draw(rt, "answers B.2") {
				d.entry.Settings.Rederive = oscore.RoleServer
			}
			if err := m.st.Put(ctx, true, d.entry); errors.Is(err, keys.ErrDuplicate) {
				continue // too many share its kid
			} else if err != nil {
				rt.Fatal(err)
			}
			d.there, d.window = true, true
			d.renew(rt, nil)
			m.all = append(m.all, d)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"":                m.check,
			"send":            m.send,
			"send again":      m.send,
			"repeat":          m.repeat,
			"ask":             m.ask,
			"hold":            m.hold,
			"answer held":     m.answerHeld,
			"answer held too": m.answerHeld,
			"find":            m.find,
			"put again":       m.putAgain,
			"remove":          m.remove,
			"derive":          m.derive,
			"stop":            m.stop,
			"crash":           m.crash,
		})
	})
	for _, what := range []string{"accepted", "refused", "challenged", "evicted and answered", "derived", "exact", "kid", "rederive"} {
		if did[what] == 0 {
			t.Errorf("%q never happened: the model lost its life", what)
		}
	}
	t.Log(did)
}

func (m *model) open(t *rapid.T, first bool) {
	var err error
	m.opts.Init = first
	if m.st, err = Open(filepath.Join(m.base, "store"), m.opts); err != nil {
		t.Fatal(err)
	}
	if m.ring, err = m.st.Keyring(ctx); err != nil {
		t.Fatal(err)
	}
}

// one draws a device; there says whether its entry must be there.
func (m *model) one(t *rapid.T, there bool) *modelled {
	var some []*modelled
	for _, d := range m.all {
		if d.there == there {
			some = append(some, d)
		}
	}
	if len(some) == 0 {
		t.Skip("no such device")
	}
	return rapid.SampledFrom(some).Draw(t, "device")
}

func (m *model) spend(t *rapid.T, d *modelled, piv uint64) {
	if d.used[piv] {
		t.Fatalf("%s: number %d is used twice", d.entry.Name, piv)
	}
	d.used[piv] = true
	d.count++
}

// check compares what needs no message.
func (m *model) check(t *rapid.T) {
	n := 0
	for _, d := range m.all {
		if d.there {
			n++
		}
	}
	if m.ring.Len() != n {
		t.Fatalf("%d peers, want %d", m.ring.Len(), n)
	}
}

// want returns what a keyring that held every device would find.
func (m *model) want(kid, kidContext []byte) (names []string, few int, match oscore.Match) {
	var bare, named, rederive []string
	for _, d := range m.all {
		if !d.there || string(d.entry.Params.RecipientID) != string(kid) {
			continue
		}
		if kidContext != nil && slices.ContainsFunc(d.answers(), func(c []byte) bool { return string(c) == string(kidContext) }) {
			return []string{d.entry.Name}, 1, oscore.MatchExact
		}
		if d.bare() {
			bare = append(bare, d.entry.Name)
		} else {
			named = append(named, d.entry.Name)
		}
		if d.entry.Settings.Rederive&oscore.RoleServer != 0 {
			rederive = append(rederive, d.entry.Name)
		}
	}
	switch _, err := oscore.UnwrapBstr(kidContext); {
	case kidContext == nil && len(bare)+len(named) > 0:
		return append(bare, named...), min(oscore.MaxCandidates, len(bare)+len(named)), oscore.MatchKID
	case kidContext != nil && len(rederive) > 0 && err == nil:
		return rederive, len(rederive), oscore.MatchRederive
	}
	return nil, 0, oscore.MatchNone
}

func (m *model) lookUp(t *rapid.T, kid, kidContext []byte) []oscore.Peer {
	peers, match := m.ring.Find(nil, kid, kidContext)
	var names []string
	for _, p := range peers {
		names = append(names, p.Name())
	}
	want, few, wantMatch := m.want(kid, kidContext)
	m.found[match.String()]++
	ok := match == wantMatch && len(names) == few
	seen := map[string]bool{}
	for _, name := range names {
		ok = ok && slices.Contains(want, name) && !seen[name]
		seen[name] = true
	}
	if match == oscore.MatchKID { // those that send no kid context come first
		bare := func(name string) bool {
			return m.all[slices.IndexFunc(m.all, func(d *modelled) bool { return d.entry.Name == name })].bare()
		}
		ok = ok && sort.SliceIsSorted(names, func(i, j int) bool { return bare(names[i]) && !bare(names[j]) })
		for _, name := range want {
			ok = ok && (!bare(name) || seen[name])
		}
	}
	if !ok {
		t.Fatalf("Find(%x, %x) = %v, %v, want %d of %v, %v", kid, kidContext, names, match, few, want, wantMatch)
	}
	return peers
}

func (m *model) find(t *rapid.T) {
	kid := []byte{byte(rapid.IntRange(1, 3).Draw(t, "kid"))}
	contexts := [][]byte{nil, {0x41, 9}, {}, {9}}
	for _, d := range m.all {
		contexts = append(contexts, d.answers()...)
		contexts = append(contexts, d.entry.Params.IDContext)
	}
	m.lookUp(t, kid, rapid.SampledFrom(contexts).Draw(t, "kid context"))
}

// optionOf returns the OSCORE option, which is the first.
func optionOf(t *rapid.T, msg oscore.Message) oscore.Option {
	n := int(msg.Body[0] & 15)
	at := 1
	if n == 13 {
		n, at = 13+int(msg.Body[1]), 2
	}
	opt, err := oscore.ParseOption(msg.Body[at : at+n])
	if err != nil {
		t.Fatal(err)
	}
	return opt
}

// deliver does what an endpoint does with a request. It returns who it came from.
func (m *model) deliver(t *rapid.T, msg oscore.Message) (*modelled, oscore.Peer, *oscore.Request, error) {
	opt := optionOf(t, msg)
	worst := oscore.ErrNoContext
	for _, p := range m.lookUp(t, opt.KID, opt.KIDContext) {
		q := new(oscore.Request)
		_, err := p.OpenRequest(nil, q, msg)
		d := m.all[slices.IndexFunc(m.all, func(d *modelled) bool { return d.entry.Name == p.Name() })]
		switch {
		case err == nil:
			if d.accepted[q.PartialIV()] {
				t.Fatalf("%s: request %d is accepted twice", d.entry.Name, q.PartialIV())
			}
			d.accepted[q.PartialIV()] = true
			d.count++
			m.found["accepted"]++
			return d, p, q, nil
		case errors.Is(err, oscore.ErrUnproven), errors.Is(err, oscore.ErrLate):
			return d, p, q, err
		case errors.Is(err, oscore.ErrReplay):
			worst = err
		case !errors.Is(err, oscore.ErrDecrypt) && !errors.Is(err, oscore.ErrNoContext):
			t.Fatalf("%s: %v", p.Name(), err)
		}
	}
	return nil, nil, nil, worst
}

func (m *model) seal(t *rapid.T, d *modelled) oscore.Message {
	var p oscore.Pending
	msg, err := d.far.SealRequest(nil, &p, oscore.Message{Code: 1})
	if err != nil {
		t.Fatal(err)
	}
	d.sent = append(d.sent, msg)
	return msg
}

// exchange sends a new request, which is accepted, after a challenge if the window
// was lost.
func (m *model) exchange(t *rapid.T, d *modelled) (oscore.Peer, *oscore.Request) {
	from, peer, q, err := m.deliver(t, m.seal(t, d))
	if err == nil && from == d {
		return peer, q
	}
	if from != d || !errors.Is(err, oscore.ErrUnproven) {
		t.Fatalf("a new request of %s is taken for one of %v: %v", d.entry.Name, from, err)
	}
	if d.window {
		t.Fatalf("%s is to answer a challenge although its window was never lost", d.entry.Name)
	}
	m.found["challenged"]++
	out, err := peer.SealChallenge(nil, q, []byte("echo"))
	if err != nil {
		t.Fatal(err)
	}
	challenge := optionOf(t, out)
	m.spend(t, d, challenge.Sequence())
	_, peer, q, err = m.deliver(t, m.seal(t, d))
	if !errors.Is(err, oscore.ErrUnproven) {
		t.Fatal(err)
	}
	if err := peer.AcceptEcho(q); err != nil {
		t.Fatal(err)
	}
	d.window = true
	d.accepted[q.PartialIV()] = true
	d.count++
	return peer, q
}

func (m *model) send(t *rapid.T) { m.exchange(t, m.one(t, true)) }

// repeat delivers something again.
func (m *model) repeat(t *rapid.T) {
	var every []oscore.Message
	for _, d := range m.all {
		every = append(append(every, d.sent...), d.old...)
	}
	if len(every) == 0 {
		t.Skip("nothing was sent")
	}
	if d, _, _, err := m.deliver(t, rapid.SampledFrom(every).Draw(t, "message")); err == nil {
		t.Fatalf("%s: a repetition is accepted", d.entry.Name)
	}
	m.found["refused"]++
}

// ask seals a request to a device.
func (m *model) ask(t *rapid.T) {
	d := m.one(t, true)
	p, ok := m.ring.Get(d.entry.Name)
	if !ok {
		t.Fatalf("no peer %s", d.entry.Name)
	}
	for range rapid.IntRange(1, 90).Draw(t, "requests") {
		var q oscore.Pending
		if _, err := p.SealRequest(nil, &q, oscore.Message{Code: 1}); err != nil {
			t.Fatal(err)
		}
		m.spend(t, d, q.PartialIV())
	}
	if u := p.Usage(); u.Encrypted != d.count {
		t.Fatalf("%s: %d encryptions, want %d", d.entry.Name, u.Encrypted, d.count)
	}
}

func (m *model) hold(t *rapid.T) {
	d := m.one(t, true)
	peer, q := m.exchange(t, d)
	m.held = append(m.held, held{d, peer, q, d.changed, m.st.Epoch()})
}

// answerHeld answers a request that came some time ago.
func (m *model) answerHeld(t *rapid.T) {
	if len(m.held) == 0 {
		t.Skip("nothing is held")
	}
	h := rapid.SampledFrom(m.held).Draw(t, "held")
	valid := h.changed == h.d.changed && h.epoch == m.st.Epoch()
	out, err := h.peer.SealResponse(nil, h.request, oscore.Message{Code: 0x45})
	if !valid {
		if err == nil {
			t.Fatalf("%s: a request of an earlier peer is answered", h.d.entry.Name)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", h.d.entry.Name, err)
	}
	opt := optionOf(t, out)
	m.spend(t, h.d, opt.Sequence())
	m.found["evicted and answered"]++
	if p, _ := m.ring.Get(h.d.entry.Name); oscore.Peer(p) != h.peer {
		t.Fatalf("%s has two peers", h.d.entry.Name)
	}
}

func (m *model) putAgain(t *rapid.T) {
	d := m.all[rapid.IntRange(0, len(m.all)-1).Draw(t, "device")]
	d.entry.Notes += "."
	if err := m.st.Put(ctx, rapid.Bool().Draw(t, "fresh"), d.entry); err != nil {
		t.Fatal(err)
	}
	d.there = true
	d.changed++
}

func (m *model) remove(t *rapid.T) {
	d := m.one(t, true)
	if err := m.st.Remove(ctx, d.entry.Name); err != nil {
		t.Fatal(err)
	}
	d.there = false
	d.changed++
}

// derive runs Appendix B.2.
func (m *model) derive(t *rapid.T) {
	d := m.one(t, true)
	p, ok := m.ring.Get(d.entry.Name)
	if !ok {
		t.Fatalf("no peer %s", d.entry.Name)
	}
	d.round++
	idContext := fmt.Appendf(nil, "R2R3-%s-%d", d.entry.Name, d.round)
	c, err := p.Derive(idContext, oscore.WrapBstr(idContext))
	if err != nil {
		t.Fatal(err)
	}
	c.Begin()
	other := m.one(t, true) // something comes between
	m.exchange(t, other)
	if err := p.Adopt(c); err != nil {
		t.Fatal(err)
	}
	d.renew(t, idContext)
	d.window, d.count = true, 0
	d.changed++
	m.found["derived"]++
}

func (m *model) stop(t *rapid.T) {
	if err := m.ring.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.st.Close(); err != nil {
		t.Fatal(err)
	}
	m.open(t, false)
}

func (m *model) crash(t *rapid.T) {
	m.st.die()
	m.held = nil // it died too
	m.open(t, false)
	for _, d := range m.all {
		d.window = false
		if !d.there {
			continue
		}
		p, ok := m.ring.Get(d.entry.Name)
		if !ok {
			t.Fatalf("no peer %s", d.entry.Name)
		}
		n := p.Usage().Encrypted
		if n > d.count || n+2*keys.MaxBlock < d.count {
			t.Fatalf("%s: a crash left %d of %d encryptions", d.entry.Name, n, d.count)
		}
		d.count = n
	}
}
