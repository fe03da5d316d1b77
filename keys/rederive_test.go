package keys_test

import (
	"context"
	"errors"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// derive returns a context of both ends for one ID Context, begun.
func derive(t *testing.T, p oscore.Peer, idContext string) *oscore.Context {
	t.Helper()
	c, err := p.Derive([]byte(idContext), oscore.WrapBstr([]byte(idContext)))
	if err != nil {
		t.Fatal(err)
	}
	c.Begin()
	return c
}

func TestAdoptReplacesATaintedContextForGood(t *testing.T) {
	ctx := context.Background()
	cs, ss := keys.NewMemory(), keys.NewMemory()
	ce, se := entry("c", []byte{1}, []byte{2}, nil), entry("c", []byte{2}, []byte{1}, nil)
	ce.Settings.Rederive, se.Settings.Rederive = oscore.RoleClient, oscore.RoleServer
	cr, sr := keys.New(cs), keys.New(ss)
	client, server := mustAdd(t, cr, ce), mustAdd(t, sr, se)

	// The third context of Appendix B.2, with three numbers spent before it is
	// adopted.
	const id3 = "R2R2R2R2R3R3R3R3"
	third, theirs := derive(t, client, id3), derive(t, server, id3)
	var pending oscore.Pending
	var last oscore.Message
	for range 3 {
		m, err := third.SealRequest(nil, &pending, get)
		if err != nil {
			t.Fatal(err)
		}
		last = m
	}
	var r oscore.Request
	if _, err := theirs.OpenRequest(nil, &r, last); err != nil {
		t.Fatal(err)
	}
	if err := server.Adopt(theirs); err != nil {
		t.Fatal(err)
	}
	if err := client.Adopt(third); err != nil {
		t.Fatal(err)
	}
	if client.Tainted() || server.Tainted() {
		t.Fatal("still tainted")
	}
	if _, err := server.OpenRequest(nil, &r, last); !errors.Is(err, oscore.ErrReplay) {
		t.Errorf("the window was not adopted: %v", err)
	}
	p, _, err := send(t, client, server)
	if err != nil {
		t.Fatal(err)
	}
	if p.PartialIV() < 3 {
		t.Errorf("number %d was spent before", p.PartialIV())
	}
	for _, kidContext := range [][]byte{[]byte(id3), oscore.WrapBstr([]byte(id3))} {
		if got, m := sr.Find(nil, []byte{1}, kidContext); m != oscore.MatchExact || len(got) != 1 {
			t.Errorf("Find(%x) = %v", kidContext, m)
		}
	}
	if _, m := sr.Find(nil, []byte{1}, oscore.WrapBstr([]byte("newR1newR1"))); m != oscore.MatchRederive {
		t.Errorf("another R1: %v", m)
	}

	// Both come back from a crash with what they agreed on.
	cs.Restart()
	ss.Restart()
	client, server = mustAdd(t, keys.New(cs), ce), mustAdd(t, keys.New(ss), se)
	if client.Tainted() || !client.Status().Derived {
		t.Fatalf("after a restart: %+v", client.Status())
	}
	spent := p.PartialIV()
	p, _, err = send(t, client, server)
	if !errors.Is(err, oscore.ErrUnproven) {
		t.Errorf("after a restart: %v", err)
	}
	if p.PartialIV() <= spent {
		t.Errorf("number %d again", p.PartialIV())
	}

	// A second run supersedes the first, whose numbers are forgotten.
	second := derive(t, client, "anotherRandomOne")
	if err := client.Adopt(second); err != nil {
		t.Fatal(err)
	}
	params := ce.Params.Clone()
	params.IDContext = []byte(id3)
	id, _, err := keys.Identities(&params)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := cs.Reserve(ctx, id[:], 1); !errors.Is(err, keys.ErrTainted) {
		t.Errorf("superseded context: %v", err)
	}
}

func TestDeriveWantsANewIDContext(t *testing.T) {
	e := entry("c", []byte{1}, []byte{2}, []byte("configured"))
	p := mustAddNew(t, keys.New(keys.NewMemory()), e)
	for _, idContext := range []string{"", "configured"} {
		if _, err := p.Derive([]byte(idContext), nil); !errors.Is(err, keys.ErrDerived) {
			t.Errorf("Derive(%q) = %v", idContext, err)
		}
	}
	if err := p.Adopt(derive(t, p, "random")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Derive([]byte("random"), nil); !errors.Is(err, keys.ErrDerived) {
		t.Errorf("Derive of the current one = %v", err)
	}
	other := mustAddNew(t, keys.New(keys.NewMemory()), entry("o", []byte{7}, []byte{8}, nil))
	if err := p.Adopt(derive(t, other, "random2")); !errors.Is(err, keys.ErrDerived) {
		t.Errorf("Adopt of another peer's = %v", err)
	}
}

// A wrapped kid context is the mark of Appendix B.2's own messages: a peer
// would begin a new run upon every request that carries one.
func TestKIDContextAfterAdopt(t *testing.T) {
	for name, c := range map[string]struct {
		configured []byte
		omit       bool
		want       string // "" for none
	}{
		"no ID Context configured": {nil, false, ""},
		"one that travels":         {[]byte("configured"), false, "R2R2R2R2R3R3R3R3"},
		"one that does not":        {[]byte("configured"), true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			store := keys.NewMemory()
			e := entry("c", []byte{1}, []byte{2}, c.configured)
			e.Params.OmitKIDContext = c.omit
			p := mustAddNew(t, keys.New(store), e)
			if err := p.Adopt(derive(t, p, "R2R2R2R2R3R3R3R3")); err != nil {
				t.Fatal(err)
			}
			check := func(when string, p *keys.Peer) {
				t.Helper()
				var pending oscore.Pending
				m, err := p.SealRequest(nil, &pending, get)
				if err != nil {
					t.Fatal(err)
				}
				opt, _, err := oscore.FindOption(m)
				if err != nil || string(opt.KIDContext) != c.want || (opt.KIDContext == nil) != (c.want == "") {
					t.Errorf("%s: kid context %q, %v, want %q", when, opt.KIDContext, err, c.want)
				}
			}
			check("adopted", p)
			store.Restart()
			check("after a restart", mustAdd(t, keys.New(store), e))
		})
	}
}
