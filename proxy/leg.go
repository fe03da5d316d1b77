package proxy

import (
	"errors"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap/message"
	"github.com/oscorelay/oscorelay/internal/udp"
)

// leg is one socket of the proxy, with the message IDs and tokens that belong
// to its address.
type leg struct {
	sh    *shard
	sock  *udp.Socket
	layer *message.Layer[address]
	dirty bool
	gone  bool // closed; what was read before comes to nothing

	tokens   tokens                  // of requests sent from here
	byClient map[clientKey]*exchange // observations asked for here, by the client's token
	observes map[address]int         // how many a client has

	// Of an upstream leg that belongs to one client (Config.PerClient).
	own        bool
	owner      owner
	client     address // where what servers send goes
	proof      uint64  // the last request that proved it; 0: none has
	strangers  float64 // requests from elsewhere that may still be passed
	strangerAt time.Time
	hops       map[address]bool // servers that it has sent to, and whether one has answered
	used       time.Time
}

// clientKey is a request's identity at the side that sent it.
type clientKey struct {
	peer  address
	token string
}

func (sh *shard) newLeg(sock *udp.Socket, front bool) *leg {
	cfg := &sh.cfg
	m := message.Config{Reuse: true, Kept: &sh.kept[1], NStart: cfg.ServerNStart, MaxPeers: cfg.MaxPeers, MaxBytes: cfg.MaxBytes, AckTimeout: cfg.AckTimeout, AckDelay: cfg.AckDelay}
	if front { // a client expects answers from the address that it asked
		m.NStart, m.ReuseIDs, m.Kept = cfg.ClientNStart, true, &sh.kept[0]
		m.Amplification = max(cfg.Amplification, 0)
	}
	return &leg{
		sh: sh, sock: sock,
		layer:    message.New[address](m),
		byClient: map[clientKey]*exchange{},
		observes: map[address]int{},
	}
}

// messages is the leg's message layer, whose output will be sent.
func (g *leg) messages() *message.Layer[address] {
	if !g.dirty {
		g.dirty = true
		g.sh.dirty = append(g.sh.dirty, g)
	}
	return g.layer
}

// receive handles one datagram.
func (g *leg) receive(now time.Time, from address, data []byte) {
	if g.gone {
		return
	}
	ev := g.messages().Receive(now, from, data)
	switch ev.Kind {
	case message.Request:
		g.sh.request(now, g, ev)
	case message.Response:
		g.sh.response(now, g, ev)
	case message.Reset, message.GaveUp:
		g.sh.failed(now, ev)
	case message.None:
		switch {
		case errors.Is(ev.Err, message.ErrDuplicate):
			g.sh.count(duplicate)
		case ev.Err != nil:
			g.sh.count(malformed)
		case ev.Message.Code.IsResponse():
			g.sh.late(&ev) // in an acknowledgement of nothing
		}
	}
}
