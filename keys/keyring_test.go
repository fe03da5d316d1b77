package keys_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// entry returns an entry whose secret depends on its name alone.
func entry(name string, sender, recipient, idContext []byte) keys.Entry {
	secret := bytes.Repeat([]byte(name+"!"), 16)[:16]
	return keys.Entry{Name: name, Params: oscore.Params{
		MasterSecret: secret, SenderID: sender, RecipientID: recipient, IDContext: idContext,
	}}
}

func mustAdd(t testing.TB, r *keys.Keyring, e keys.Entry) *keys.Peer {
	t.Helper()
	p, err := r.Add(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustAddNew(t testing.TB, r *keys.Keyring, e keys.Entry) *keys.Peer {
	t.Helper()
	p, err := r.AddNew(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// names returns the names of peers.
func names(peers []oscore.Peer) (s []string) {
	for _, p := range peers {
		s = append(s, p.Name())
	}
	return s
}

var get = oscore.Message{Code: 0x01, Body: []byte{0xb1, 'x'}}

// send seals a request at one end and opens it at the other.
func send(t testing.TB, from, to oscore.Peer) (*oscore.Pending, *oscore.Request, error) {
	t.Helper()
	var pending oscore.Pending
	m, err := from.SealRequest(nil, &pending, get)
	if err != nil {
		t.Fatal(err)
	}
	var r oscore.Request
	_, err = to.OpenRequest(nil, &r, m)
	return &pending, &r, err
}

func TestFindOutcomes(t *testing.T) {
	r := keys.New(keys.NewMemory())
	r1 := []byte{1}
	mustAdd(t, r, entry("bare", []byte{0xa}, r1, nil))
	mustAdd(t, r, entry("named", []byte{0xa}, r1, []byte("ctx")))
	mustAdd(t, r, entry("empty", []byte{0xa}, r1, []byte{}))
	re := entry("rederiving", []byte{0xa}, []byte{2}, nil)
	re.Settings.Rederive = oscore.RoleServer
	mustAdd(t, r, re)
	asks := entry("asks", []byte{0xa}, []byte{3}, nil)
	asks.Settings.Rederive = oscore.RoleClient
	mustAdd(t, r, asks)
	for i := range 5 {
		mustAdd(t, r, entry(fmt.Sprintf("many%d", i), []byte{0xa}, []byte{4}, []byte{byte(i)}))
	}
	if err := r.ReserveID([]byte{9}); err != nil {
		t.Fatal(err)
	}
	wrapped := oscore.WrapBstr([]byte("R1R1R1R1"))
	for _, c := range []struct {
		name       string
		kid, ctx   []byte
		want       oscore.Match
		candidates string
	}{
		{"kid and kid context", r1, []byte("ctx"), oscore.MatchExact, "[named]"},
		{"an empty kid context is present", r1, []byte{}, oscore.MatchExact, "[empty]"},
		{"kid alone, the bare first", r1, nil, oscore.MatchKID, "[bare named empty]"},
		{"kid alone, four at most", []byte{4}, nil, oscore.MatchKID, "[many0 many1 many2 many3]"},
		{"unknown kid context never falls back", r1, []byte("other"), oscore.MatchNone, "[]"},
		{"unknown wrapped kid context without Appendix B.2", r1, wrapped, oscore.MatchNone, "[]"},
		{"unknown wrapped kid context with it", []byte{2}, wrapped, oscore.MatchRederive, "[rederiving]"},
		{"not a byte string", []byte{2}, []byte("R1R1"), oscore.MatchNone, "[]"},
		{"the client's role does not answer", []byte{3}, wrapped, oscore.MatchNone, "[]"},
		{"session", []byte{9}, nil, oscore.MatchSession, "[]"},
		{"session with kid context", []byte{9}, []byte("c"), oscore.MatchNone, "[]"},
		{"nobody", []byte{0x77}, nil, oscore.MatchNone, "[]"},
		{"nobody, empty kid", []byte{}, nil, oscore.MatchNone, "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, match := r.Find(nil, c.kid, c.ctx)
			if match != c.want || fmt.Sprint(names(got)) != c.candidates {
				t.Errorf("Find = %v, %v; want %s, %v", names(got), match, c.candidates, c.want)
			}
		})
	}
	r.ReleaseID([]byte{9})
	if _, m := r.Find(nil, []byte{9}, nil); m != oscore.MatchNone {
		t.Errorf("released identifier: %v", m)
	}
}

func TestAddRefusesDuplicates(t *testing.T) {
	proof.Checklist(t, "O-3.3-1", "O-3.3-2", "O-3.3-3")
	r := keys.New(keys.NewMemory())
	first := entry("first", []byte{0xa}, []byte{1}, []byte("c"))
	mustAdd(t, r, first)
	with := func(change func(*keys.Entry)) keys.Entry {
		e := first.Clone()
		e.Name = "second"
		change(&e)
		return e
	}
	for i := range oscore.MaxCandidates {
		e := entry(fmt.Sprintf("bare%d", i), []byte{0xa}, []byte{2}, nil)
		e.Settings.Rederive = oscore.RoleServer
		mustAdd(t, r, e)
	}
	fifth := entry("fifth", []byte{0xa}, []byte{2}, []byte("x"))
	fifth.Settings.Rederive = oscore.RoleServer
	for _, c := range []struct {
		name string
		e    keys.Entry
	}{
		{"name", entry("first", []byte{0xb}, []byte{7}, nil)},
		{"sender key", with(func(e *keys.Entry) { e.Params.RecipientID = []byte{5} })},
		{"sender key, salt of zeros", with(func(e *keys.Entry) { e.Params.RecipientID, e.Params.MasterSalt = []byte{5}, []byte{0, 0} })},
		{"recipient key", with(func(e *keys.Entry) { e.Params.SenderID = []byte{5} })},
		{"pair", with(func(e *keys.Entry) { e.Params.MasterSecret, e.Params.SenderID = []byte("another secret!!"), []byte{5} })},
		{"a fifth without kid context", entry("b5", []byte{0xa}, []byte{2}, nil)},
		{"a fifth in Appendix B.2", fifth},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := r.Add(context.Background(), c.e); !errors.Is(err, keys.ErrDuplicate) {
				t.Errorf("Add = %v, want ErrDuplicate", err)
			} else {
				t.Log(err)
			}
		})
	}
	if r.Len() != 5 {
		t.Errorf("%d peers, want 5: a refused one left traces", r.Len())
	}
	if err := r.Remove(context.Background(), "first"); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, r, with(func(e *keys.Entry) { e.Params.RecipientID = []byte{5} }))
}

func TestEqualIDsAndBadNamesAreRefused(t *testing.T) {
	r := keys.New(keys.NewMemory())
	if _, err := r.Add(context.Background(), entry("x", []byte{1}, []byte{1}, nil)); err == nil {
		t.Error("equal IDs were taken")
	}
	for _, name := range []string{"", "a/b", "a\nb", "\xff", string(make([]byte, 200))} {
		if _, err := r.Add(context.Background(), entry(name, []byte{1}, []byte{2}, nil)); !errors.Is(err, keys.ErrName) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestNewMaterialTalksAtOnce(t *testing.T) {
	ring := keys.New(keys.NewMemory())
	client := mustAddNew(t, ring, entry("d", []byte{1}, []byte{2}, nil))
	other := keys.New(keys.NewMemory())
	e := entry("d", []byte{2}, []byte{1}, nil)
	server := mustAddNew(t, other, e)
	pending, r, err := send(t, client, server)
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.Seal(nil, oscore.Message{Code: 0x45})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pending.Open(nil, m); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownMaterialIsTainted(t *testing.T) {
	store := keys.NewMemory()
	ring := keys.New(store)
	p := mustAdd(t, ring, entry("d", []byte{1}, []byte{2}, nil))
	if !p.Tainted() {
		t.Fatal("not tainted")
	}
	var pending oscore.Pending
	if _, err := p.SealRequest(nil, &pending, get); !errors.Is(err, keys.ErrTainted) {
		t.Fatalf("SealRequest = %v", err)
	} else {
		t.Log(err)
	}
	// It opens, but vouches for nothing and challenges nobody.
	peer := mustAddNew(t, keys.New(keys.NewMemory()), entry("d", []byte{2}, []byte{1}, nil))
	_, r, err := send(t, peer, p)
	if !errors.Is(err, oscore.ErrUnproven) {
		t.Fatalf("OpenRequest = %v", err)
	}
	if _, err := p.SealChallenge(nil, r, []byte{1}); !errors.Is(err, keys.ErrTainted) {
		t.Errorf("SealChallenge = %v", err)
	}
	if _, err := p.SealResponse(nil, r, oscore.Message{Code: 0x45}); !errors.Is(err, keys.ErrTainted) {
		t.Errorf("SealResponse = %v", err)
	}
	if err := p.AcceptEcho(r); !errors.Is(err, keys.ErrTainted) {
		t.Errorf("AcceptEcho = %v", err)
	}
	if _, err := r.Seal(nil, oscore.Message{Code: 0x45}); !errors.Is(err, oscore.ErrUnproven) {
		t.Errorf("Request.Seal = %v", err)
	}
}

func TestNumbersGoOnAfterRestart(t *testing.T) {
	store := keys.NewMemory()
	seen := map[uint64]bool{}
	for restart := range 4 {
		ring := keys.New(store)
		e := entry(fmt.Sprint("name", restart), []byte{1}, []byte{2}, nil)
		e.Params.MasterSecret = []byte("one and the same")
		var p *keys.Peer
		if restart == 0 {
			p = mustAddNew(t, ring, e)
		} else {
			p = mustAdd(t, ring, e)
		}
		for range 200 {
			var pending oscore.Pending
			if _, err := p.SealRequest(nil, &pending, get); err != nil {
				t.Fatal(err)
			}
			if seen[pending.PartialIV()] {
				t.Fatalf("number %d twice", pending.PartialIV())
			}
			seen[pending.PartialIV()] = true
		}
		store.Restart() // the ring is not closed: a crash
	}
}

func TestWindowSurvivesOnlyACleanStop(t *testing.T) {
	ctx := context.Background()
	store := keys.NewMemory()
	client := mustAddNew(t, keys.New(keys.NewMemory()), entry("d", []byte{1}, []byte{2}, nil))
	server := entry("d", []byte{2}, []byte{1}, nil)

	ring := keys.New(store)
	p := mustAddNew(t, ring, server)
	var pending oscore.Pending
	replay, err := client.SealRequest(nil, &pending, get)
	if err != nil {
		t.Fatal(err)
	}
	var r oscore.Request
	if _, err := p.OpenRequest(nil, &r, replay); err != nil {
		t.Fatal(err)
	}
	if err := ring.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := p.OpenRequest(nil, &r, replay); !errors.Is(err, keys.ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}

	ring = keys.New(store)
	p = mustAdd(t, ring, server)
	if _, err := p.OpenRequest(nil, &r, replay); !errors.Is(err, oscore.ErrReplay) {
		t.Fatalf("replay after a clean stop: %v", err)
	}
	if _, _, err := send(t, client, p); err != nil {
		t.Fatal(err)
	}
	store.Restart() // crash

	p = mustAdd(t, keys.New(store), server)
	if _, err := p.OpenRequest(nil, &r, replay); !errors.Is(err, oscore.ErrUnproven) {
		t.Fatalf("replay after a crash: %v", err)
	}
	// Echo: a challenge under a number of its own, and the answer opens it.
	if _, err := p.SealChallenge(nil, &r, []byte("echo")); err != nil {
		t.Fatal(err)
	}
	_, fresh, err := send(t, client, p)
	if !errors.Is(err, oscore.ErrUnproven) {
		t.Fatal(err)
	}
	if err := p.AcceptEcho(fresh); err != nil {
		t.Fatal(err)
	}
	if _, err := p.OpenRequest(nil, &r, replay); !errors.Is(err, oscore.ErrReplay) {
		t.Fatalf("replay after Echo: %v", err)
	}
}

func TestConcurrentSealsNeverShareANumber(t *testing.T) {
	store := keys.NewMemory()
	p := mustAddNew(t, keys.New(store), entry("d", []byte{1}, []byte{2}, nil))
	const workers, each = 8, 2000
	var wg sync.WaitGroup
	got := make([][]uint64, workers)
	for w := range workers {
		wg.Go(func() {
			var buf [128]byte
			for range each {
				var pending oscore.Pending
				if _, err := p.SealRequest(buf[:0], &pending, get); err != nil {
					t.Error(err)
					return
				}
				got[w] = append(got[w], pending.PartialIV())
			}
		})
	}
	wg.Wait()
	seen := map[uint64]bool{}
	for _, g := range got {
		for _, n := range g {
			if seen[n] {
				t.Fatalf("number %d twice", n)
			}
			seen[n] = true
		}
	}
	if len(seen) != workers*each {
		t.Errorf("%d numbers", len(seen))
	}
}
