package proxy

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap/message"
	"golang.org/x/net/ipv4"
)

// leg is one socket of the proxy, with the message IDs and tokens that belong
// to its address.
type leg struct {
	sh    *shard
	conn  *net.UDPConn
	batch *ipv4.PacketConn // the same socket
	layer *message.Layer[netip.AddrPort]
	dirty bool

	byToken  map[string]*exchange    // requests sent from here, by this proxy's token
	byClient map[clientKey]*exchange // observations asked for here, by the client's token

	// Of an upstream leg that belongs to one client (Config.PerClient).
	client netip.AddrPort
	hops   map[netip.AddrPort]bool // servers that it has sent to, and whether one has answered
	used   time.Time
}

// clientKey is a request's identity at the side that sent it.
type clientKey struct {
	peer  netip.AddrPort
	token string
}

func (sh *shard) newLeg(conn *net.UDPConn, front bool) *leg {
	cfg := &sh.p.cfg
	m := message.Config{NStart: cfg.ServerNStart, MaxPeers: cfg.MaxPeers, MaxBytes: cfg.MaxBytes, AckTimeout: cfg.AckTimeout, AckDelay: cfg.AckDelay}
	if front { // a client expects answers from the address that it asked
		m.NStart, m.ReuseIDs = cfg.ClientNStart, true
	}
	return &leg{
		sh: sh, conn: conn, batch: ipv4.NewPacketConn(conn),
		layer:   message.New[netip.AddrPort](m),
		byToken: map[string]*exchange{}, byClient: map[clientKey]*exchange{},
	}
}

// messages is the leg's message layer, whose output will be sent.
func (g *leg) messages() *message.Layer[netip.AddrPort] {
	if !g.dirty {
		g.dirty = true
		g.sh.dirty = append(g.sh.dirty, g)
	}
	return g.layer
}

// read takes in datagrams until the socket is closed: as many as are there, up
// to batch, with one system call, and sends what comes of them likewise.
func (g *leg) read() {
	n := batch
	if g.client.IsValid() {
		n = 1 // one of thousands: memory counts for more
	}
	limit := g.sh.p.cfg.MaxDatagram
	in, out := make([]ipv4.Message, n), batches{}
	for i := range in {
		in[i].Buffers = [][]byte{make([]byte, limit+1)}
	}
	for {
		n, err := g.batch.ReadBatch(in, 0)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an earlier datagram found no receiver
		}
		g.sh.mu.Lock()
		now := time.Now()
		for i := range in[:n] {
			addr, ok := in[i].Addr.(*net.UDPAddr)
			if !ok || in[i].N > limit {
				g.sh.p.counters.malformed.Add(1)
				continue
			}
			from := addr.AddrPort()
			g.receive(now, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), in[i].Buffers[0][:in[i].N])
		}
		out.collect(g.sh)
		g.sh.mu.Unlock()
		out.transmit()
	}
}

// receive handles one datagram.
func (g *leg) receive(now time.Time, from netip.AddrPort, data []byte) {
	c := &g.sh.p.counters
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
			c.duplicates.Add(1)
		case ev.Err != nil:
			c.malformed.Add(1)
		}
	}
}
