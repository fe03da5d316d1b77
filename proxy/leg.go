package proxy

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap/message"
)

// leg is one socket of the proxy, with the message IDs and tokens that belong
// to its address.
type leg struct {
	sh    *shard
	conn  *net.UDPConn
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

// packet is a datagram on its way out.
type packet struct {
	conn *net.UDPConn
	to   netip.AddrPort
	data []byte
}

func (sh *shard) newLeg(conn *net.UDPConn, front bool) *leg {
	cfg := &sh.p.cfg
	m := message.Config{NStart: cfg.ServerNStart, MaxPeers: cfg.MaxPeers, MaxBytes: cfg.MaxBytes, AckTimeout: cfg.AckTimeout, AckDelay: cfg.AckDelay}
	if front { // a client expects answers from the address that it asked
		m.NStart, m.ReuseIDs = cfg.ClientNStart, true
	}
	return &leg{
		sh: sh, conn: conn,
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

// read takes in datagrams until the socket is closed.
func (g *leg) read() {
	limit := g.sh.p.cfg.MaxDatagram
	buf := make([]byte, limit+1)
	var out []packet
	for {
		n, from, err := g.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an earlier datagram found no receiver
		}
		if n > limit {
			g.sh.p.counters.malformed.Add(1)
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		g.sh.mu.Lock()
		g.receive(time.Now(), from, buf[:n])
		out = g.sh.output(out[:0])
		g.sh.mu.Unlock()
		transmit(out)
	}
}

// transmit sends datagrams. What cannot be sent is lost, as in the network:
// the message layer sends it again.
func transmit(out []packet) {
	for i := range out {
		_, _ = out[i].conn.WriteToUDPAddrPort(out[i].data, out[i].to)
		out[i].data = nil
	}
}

// output collects what the legs have to send.
func (sh *shard) output(out []packet) []packet {
	for _, g := range sh.dirty {
		g.dirty = false
		for _, p := range g.layer.Output() {
			out = append(out, packet{g.conn, p.Peer, p.Data})
		}
	}
	sh.dirty = sh.dirty[:0]
	return out
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
