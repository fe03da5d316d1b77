//go:build interop

package interop

import (
	"cmp"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
)

// The directions of docs/INTEROP.md.
const (
	toUs   = "its client → our server"
	fromUs = "our client → its server"
)

// opponent is another implementation in both roles. state names a folder for
// what it keeps; the same folder again means the same party again.
type opponent struct {
	component   string
	server      func(t *testing.T, port uint16, c peer.Context, state string) *peer.Process
	client      func(t *testing.T, r *peer.Relay, c peer.Context, state string, patience time.Duration) *peer.Client
	serverLacks []string
	clientLacks []string
	aeads       []int
	hkdfs       []int
}

var allAEADs = []int{1, 2, 3, 10, 11, 12, 13, 24, 30, 31, 32, 33}

var opponents = []opponent{
	{
		component: "aiocoap",
		server: func(t *testing.T, port uint16, c peer.Context, state string) *peer.Process {
			return peer.AiocoapServer(t, port, c, state)
		},
		client: func(t *testing.T, r *peer.Relay, c peer.Context, state string, patience time.Duration) *peer.Client {
			return peer.AiocoapClient(t, r.URI(), c, state, fmt.Sprintf("PEER_TIMEOUT=%v", patience.Seconds()))
		},
		serverLacks: aiocoapServerLacks,
		aeads:       allAEADs, hkdfs: []int{-10, -11, 6},
	},
	{
		component: "californium",
		server: func(t *testing.T, port uint16, c peer.Context, _ string) *peer.Process {
			return peer.CaliforniumServer(t, port, c)
		},
		client: func(t *testing.T, r *peer.Relay, c peer.Context, _ string, patience time.Duration) *peer.Client {
			return peer.CaliforniumClient(t, r.URI(), c, fmt.Sprintf("--timeout=%d", patience.Milliseconds()))
		},
		clientLacks: californiumClientLacks,
		aeads:       allAEADs, hkdfs: []int{-10, -11},
	},
	{
		component: "liboscore",
		server: func(t *testing.T, port uint16, c peer.Context, _ string) *peer.Process {
			return peer.LibOSCOREServer(t, port, c)
		},
		client: func(t *testing.T, r *peer.Relay, c peer.Context, _ string, _ time.Duration) *peer.Client {
			return peer.LibOSCOREClient(t, r.Addr(), c)
		},
		serverLacks: libOSCORELacks, clientLacks: libOSCORELacks,
		aeads: []int{1, 3, 10, 24}, hkdfs: []int{-10},
	},
}

// each runs f against every opponent, once as client and once as server, side
// by side.
func each(t *testing.T, f func(t *testing.T, o opponent, direction string)) {
	for _, o := range opponents {
		for direction, name := range map[string]string{toUs: "to-us", fromUs: "from-us"} {
			t.Run(o.component+"/"+name, func(t *testing.T) {
				t.Parallel()
				f(t, o, direction)
			})
		}
	}
}

// record says which feature the test shows.
func (o opponent) record(t *testing.T, direction, feature string) {
	t.Helper()
	proof.Interop(t, peer.Version(t, o.component), direction, feature)
}

// meeting is both sides with a relay between them, one of them ours.
type meeting struct {
	pair
	relay     *peer.Relay
	port      uint16
	ourServer *ours.Server  // one of the two
	ourClient *ours.Client  // is nil
	its       *peer.Process // the opponent's process
	itsClient *peer.Client  // if it is the client
	itsServer *peer.Process // if it is the server
	state     string        // the opponent's folder
}

// meet brings the opponent and this library together in one direction. itsView
// is the context as the opponent has it.
func (o opponent) meet(t *testing.T, direction string, our, itsView peer.Context, cfg ours.Config) *meeting {
	t.Helper()
	peer.Component(t, o.component) // skips
	m := &meeting{port: peer.FreePort(t), state: filepath.Join(t.TempDir(), "state")}
	if direction == toUs {
		m.ourServer = ours.StartServer(t, m.port, our, cfg)
		m.relay = peer.NewRelay(t, peer.Loopback(m.port))
		m.itsClient = o.client(t, m.relay, itsView, m.state, cmp.Or(cfg.Patience, 20*time.Second))
		m.its = m.itsClient.Process
		m.pair = pair{client: m.itsClient, server: m.ourServer, lacks: o.clientLacks}
	} else {
		m.itsServer = o.server(t, m.port, itsView, m.state)
		m.its = m.itsServer
		m.relay = peer.NewRelay(t, peer.Loopback(m.port))
		m.ourClient = ours.StartClient(t, m.relay.Addr(), our, cfg)
		m.pair = pair{client: m.ourClient, server: m.itsServer, lacks: o.serverLacks}
	}
	m.pair.relay = m.relay
	m.pair.record = func(t *testing.T, feature string) { o.record(t, direction, feature) }
	return m
}
