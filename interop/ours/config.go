package ours

import (
	"bytes"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

// other is the name of the peer at the other end.
const other = "peer"

// Config is what a test may vary of either side.
type Config struct {
	Gocoap   gocoap.Config   // without a Keyring
	Settings oscore.Settings // of the peer at the other end
	// OmitKIDContext leaves the kid context out although there is one.
	OmitKIDContext bool
	// Tainted makes the server begin with a context of unknown history.
	Tainted bool
	TCP     bool
	// Origin is the server's address where the client's is that of a forward
	// proxy; the zero value is for none.
	Origin   netip.AddrPort
	Patience time.Duration // with a request; 0 means 20 s
}

// entry writes the context down as one side's keyring has it.
func (c Config) entry(t testing.TB, p peer.Context, client bool) keys.Entry {
	t.Helper()
	hkdf, err := oscore.ParseHKDF(strconv.Itoa(p.HKDF))
	if err != nil {
		t.Fatal(err)
	}
	params := oscore.Params{
		MasterSecret: oscore.Secret(bytes.Clone(p.Secret)), MasterSalt: p.Salt, IDContext: p.IDContext,
		SenderID: p.ServerID, RecipientID: p.ClientID,
		AEAD: oscore.AEAD(p.AEAD), HKDF: hkdf, OmitKIDContext: c.OmitKIDContext,
	}
	if client {
		params = params.Swap()
	}
	return keys.Entry{Name: other, Params: params, Settings: c.Settings}
}

// events counts what the library reports, by reason.
type events struct {
	mu  sync.Mutex
	all []gocoap.Event
}

func (e *events) add(ev gocoap.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

// Events tells how often the library reported the reason.
func (e *events) Events(reason string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, ev := range e.all {
		if ev.Reason == reason {
			n++
		}
	}
	return n
}

// log shows the events of a failed test.
func (e *events) log(t testing.TB, who string) {
	if !t.Failed() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		t.Logf("%s: %s peer=%s kid=%x kid_context=%x piv=%d %v", who, ev.Reason, ev.Peer, ev.KID, ev.KIDContext, ev.PartialIV, ev.Err)
	}
}
