package proxy_test

import (
	"errors"
	"net"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/proxy"
)

// respond answers a request, sealed or not.
func (s *socket) respond(d coap.Datagram, to *net.UDPAddr, code coap.Code, sealed bool) {
	s.t.Helper()
	var o coap.Options
	if sealed {
		o = options(coap.OSCORE, "")
	}
	s.send(to.AddrPort(), coap.Datagram{Type: coap.Acknowledgement, Code: code, MessageID: d.MessageID, Token: d.Token, Body: coap.AppendBody(nil, o, nil)})
}

// TestReturnAddress: a device keeps its port toward the server wherever it
// sends from, and what the server sends goes to where its last proven request
// came from: not where somebody merely named its kid, nor where an answer that
// was not protected went, nor back by an answer that comes late.
func TestReturnAddress(t *testing.T) {
	home, away, origin := open(t), open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr()), ByKID: true})
	kid := options(coap.OSCORE, "\x19\x05\x01\x07\x2a") // kid context 07, kid 2a
	var port *net.UDPAddr
	ask := func(c *socket) coap.Datagram {
		t.Helper()
		c.ask(p.Addr(), coap.Confirmable, "t", kid)
		d, from := origin.want(coap.Confirmable, coap.GET)
		at := net.UDPAddrFromAddrPort(from)
		if port == nil {
			port = at
		}
		if at.Port != port.Port {
			t.Fatalf("port %d, was %d", at.Port, port.Port)
		}
		return d
	}
	call := func(where *socket) {
		t.Helper()
		origin.ask(port.AddrPort(), coap.NonConfirmable, "call", nil)
		where.want(coap.NonConfirmable, coap.GET)
	}
	d := ask(home)
	origin.respond(d, port, coap.Content, true)
	home.want(coap.Acknowledgement, coap.Content)
	call(home)

	late := ask(home) // answered after the next ones
	d = ask(away)
	call(home)
	origin.respond(d, port, coap.Unauthorized, false)
	away.want(coap.Acknowledgement, coap.Unauthorized)
	call(home)
	d = ask(away)
	origin.respond(d, port, coap.Content, true)
	away.want(coap.Acknowledgement, coap.Content)
	call(away)
	origin.respond(late, port, coap.Content, true)
	home.want(coap.Acknowledgement, coap.Content)
	call(away)
	if st := p.Stats(); st.Moved != 1 || st.Upstream != 1 {
		t.Errorf("%+v", st)
	}
}

// TestStrangers: who knows a device's kid and no more cannot use up its port.
func TestStrangers(t *testing.T) {
	home, away, origin := open(t), open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr()), ByKID: true})
	kid := options(coap.OSCORE, "\x09\x01\x2a")
	home.ask(p.Addr(), coap.Confirmable, "t", kid)
	d, from := origin.want(coap.Confirmable, coap.GET)
	origin.respond(d, net.UDPAddrFromAddrPort(from), coap.Content, true)
	home.want(coap.Acknowledgement, coap.Content)
	for range 100 {
		away.ask(p.Addr(), coap.NonConfirmable, "s", kid)
	}
	await(t, func() bool { st := p.Stats(); return st.Requests+st.Shed == 101 })
	if st := p.Stats(); st.By["stranger_limited"] < 50 || st.Requests > 51 {
		t.Errorf("%+v", st)
	}
	home.ask(p.Addr(), coap.Confirmable, "u", kid)
	for {
		if d, _ := origin.receive(); d.Type == coap.Confirmable {
			break
		}
	}
}

// TestKIDsApart: devices are told apart by kid, by kid context, and by having
// one or none.
func TestKIDsApart(t *testing.T) {
	client, origin := open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr()), ByKID: true})
	ports := map[uint16]string{}
	for _, value := range []string{"\x09\x01\x2a", "\x09\x01\x2b", "\x09\x01", "\x19\x01\x01\x07\x2a", "\x19\x01\x00\x2a", "\x01\x01"} {
		client.ask(p.Addr(), coap.NonConfirmable, value, options(coap.OSCORE, value))
		_, from := origin.want(coap.NonConfirmable, coap.GET)
		if was, taken := ports[from.Port()]; taken {
			t.Errorf("%x and %x share a port", value, was)
		}
		ports[from.Port()] = value
	}
	if _, err := proxy.Listen(proxy.Config{Listen: "127.0.0.1:0", Routes: reverse(origin.addr()), ByKID: true, Shards: 2}); !errors.Is(err, proxy.ErrConfig) {
		t.Error(err)
	}
}

// TestPrefix: a route by the first segments of an outer path, which are taken
// off.
func TestPrefix(t *testing.T) {
	client, one, two, rest := open(t), open(t), open(t), open(t)
	p := start(t, proxy.Config{HopLimit: -1, Routes: []proxy.Route{
		{Prefix: "/gw/1", To: one.addr()}, {Prefix: "gw/2", KID: []byte{5}, To: two.addr()}, {To: rest.addr()},
	}})
	path := func(segments ...string) (o coap.Options) {
		for _, s := range segments {
			o = o.Add(coap.URIPath, []byte(s))
		}
		return o
	}
	sealed := options(coap.OSCORE, "\x09\x01\x05")
	for name, c := range map[string]struct {
		in, out coap.Options
		at      *socket
	}{
		"first":           {path("gw", "1"), nil, one},
		"first, more":     {path("gw", "1", "a", "1"), path("a", "1"), one},
		"second":          {append(sealed, path("gw", "2")...), sealed, two},
		"second, no kid":  {path("gw", "2"), path("gw", "2"), rest},
		"too short":       {path("gw"), path("gw"), rest},
		"not the first":   {path("x", "gw", "1"), path("x", "gw", "1"), rest},
		"only resembling": {path("gw/1"), path("gw/1"), rest},
	} {
		t.Run(name, func(t *testing.T) {
			client.ask(p.Addr(), coap.NonConfirmable, name, c.in)
			d, _ := c.at.want(coap.NonConfirmable, coap.GET)
			if opts, _, err := coap.Split(d.Body); err != nil || !opts.Equal(c.out) && len(opts)+len(c.out) > 0 {
				t.Errorf("%v, %v", opts, err)
			}
		})
	}
}

// TestAnswersFromWhereAsked: on a machine with many addresses an answer leaves
// from the one that was asked.
func TestAnswersFromWhereAsked(t *testing.T) {
	origin := open(t)
	for _, listen := range []string{":0", "0.0.0.0:0"} {
		p := start(t, proxy.Config{Listen: listen, Routes: reverse(origin.addr())})
		for _, addr := range []string{"127.0.0.1", "127.9.8.7"} {
			client := open(t)
			to := net.UDPAddrFromAddrPort(p.Addr())
			to.IP = net.ParseIP(addr)
			client.ask(to.AddrPort(), coap.Confirmable, "t", nil)
			d, from := origin.want(coap.Confirmable, coap.GET)
			origin.respond(d, net.UDPAddrFromAddrPort(from), coap.Content, false)
			if _, back := client.want(coap.Acknowledgement, coap.Content); back.Addr().String() != addr {
				t.Errorf("asked %s, answered from %v", addr, back)
			}
		}
	}
}
