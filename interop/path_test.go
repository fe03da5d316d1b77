//go:build interop

package interop

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// hop starts a proxy that sends on what it gets. next is the relay behind it;
// last is true where that relay leads to the server.
type hop func(t *testing.T, port uint16, next netip.AddrPort, last bool)

// forwarding is our proxy as a forward-proxy: the client names the server.
func forwarding(t *testing.T, port uint16, next netip.AddrPort, last bool) {
	if last {
		peer.OSCOREProxy(t, port, "-forward", "127.0.0.0/8")
	} else {
		peer.OSCOREProxy(t, port, "-via", next.String())
	}
}

// reversing is our proxy as a reverse-proxy: its configuration does.
func reversing(t *testing.T, port uint16, next netip.AddrPort, _ bool) {
	peer.OSCOREProxy(t, port, "-reverse", next.String())
}

func viaLibcoap(t *testing.T, port uint16, next netip.AddrPort, last bool) {
	if last {
		next = netip.AddrPort{}
	}
	peer.LibcoapProxy(t, port, next)
}

func viaCalifornium(t *testing.T, port uint16, _ netip.AddrPort, last bool) {
	if !last {
		t.Fatal("Californium's proxy knows no next proxy")
	}
	peer.CaliforniumProxy(t, port)
}

// path is a way from our client to our server.
type path struct {
	name    string // in docs/REQUIREMENTS.md
	hops    []hop  // from the client on
	reverse bool   // the client does not name the server
	lacks   []string
	needs   []string  // components
	peer    [2]string // the proxy's component and program, for docs/INTEROP.md
	pieces  bool      // a proxy cuts messages by outer block-wise transfer
	// oneAtATime is for a proxy that keeps NSTART at 1 (RFC 7252 section 4.7):
	// what the server passes over in silence, because it refuses so many a second
	// only, holds all that follows, and so does a notification that our client
	// does not acknowledge, because it does not verify.
	oneAtATime bool
}

// noObserve are the exchanges that a proxy without Observe does not carry.
var noObserve = []string{"6", "7", "observe-large"}

var paths = []path{
	{name: "direct"},
	{name: "udp-proxy (libcoap)", hops: []hop{viaLibcoap}, pieces: true, oneAtATime: true, needs: []string{"debian"}, peer: [2]string{"debian", "libcoap3-bin"}},
	{name: "udp-proxy (Californium)", hops: []hop{viaCalifornium}, lacks: noObserve, pieces: true, needs: []string{"californium-proxy"}, peer: [2]string{"californium-proxy", "Californium"}},
	{name: "oscore-proxy", hops: []hop{reversing}, reverse: true},
	{name: "2 × oscore-proxy", hops: []hop{forwarding, forwarding}},
	{name: "3 × oscore-proxy", hops: []hop{reversing, reversing, reversing}, reverse: true},
	{name: "4 × oscore-proxy", hops: []hop{forwarding, forwarding, forwarding, forwarding}},
	{
		name: "oscore-proxy, libcoap, Californium", hops: []hop{forwarding, viaLibcoap, viaCalifornium},
		lacks: noObserve, pieces: true, needs: []string{"debian", "californium-proxy"},
	},
}

// line is a path with all its parties running: our client, then a hostile relay
// before, between and after the proxies, then our server.
//
//	client → relay 0 → proxy 1 → relay 1 → … → proxy n → relay n → server
type line struct {
	path
	ctx    peer.Context
	client *ours.Client
	server *ours.Server
	relays []*peer.Relay
}

// echoLifetime is short, so that what was held back gets too old within the
// time of a test.
const echoLifetime = 2 * time.Second

// start starts the parties, from the server on.
func (p path) start(t *testing.T) *line {
	t.Helper()
	for _, name := range p.needs {
		peer.Component(t, name)
	}
	l := &line{path: p, ctx: peer.Interop(false)}
	port := peer.FreePort(t)
	l.server = ours.StartServer(t, port, l.ctx, ours.Config{Gocoap: gocoap.Config{
		MaxHandlers: 1024, EchoLifetime: echoLifetime,
		Freshness: func(string, codes.Code, string) gocoap.Freshness { return gocoap.FreshUnsafe },
	}})
	l.relays = []*peer.Relay{peer.NewRelay(t, peer.Loopback(port))}
	for i, start := range slices.Backward(p.hops) {
		port := peer.FreePort(t)
		start(t, port, l.relays[0].Addr(), i == len(p.hops)-1)
		l.relays = slices.Insert(l.relays, 0, peer.NewRelay(t, peer.Loopback(port)))
	}
	l.client = l.another(t, l.ctx, ours.Config{Gocoap: gocoap.Config{PlainErrorWait: patient}})
	return l
}

// patient is how long our client waits for the genuine answer after a plain one.
const patient = 10 * time.Second

// another starts one more client at the near end.
func (l *line) another(t *testing.T, ctx peer.Context, cfg ours.Config) *ours.Client {
	t.Helper()
	if !l.reverse && len(l.hops) > 0 {
		cfg.Origin = l.last().Addr()
	}
	return ours.StartClient(t, l.relays[0].Addr(), ctx, cfg)
}

func (l *line) last() *peer.Relay { return l.relays[len(l.relays)-1] }

// honest lets every relay pass what comes.
func (l *line) honest() {
	for _, r := range l.relays {
		r.Forward(nil)
	}
}
