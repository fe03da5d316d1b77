package proxy_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/proxy"
)

// socket is a peer that speaks in datagrams.
type socket struct {
	t    testing.TB
	conn *net.UDPConn
	mid  uint16
}

func open(t testing.TB) *socket {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &socket{t: t, conn: c}
}

func (s *socket) addr() string { return s.conn.LocalAddr().String() }

func (s *socket) send(to netip.AddrPort, d coap.Datagram) {
	s.t.Helper()
	if _, err := s.conn.WriteToUDPAddrPort(d.Append(nil), to); err != nil {
		s.t.Fatal(err)
	}
}

// ask sends a request with a message ID of its own, which it returns.
func (s *socket) ask(to netip.AddrPort, typ coap.Type, token string, o coap.Options) uint16 {
	s.t.Helper()
	s.mid++
	s.send(to, coap.Datagram{Type: typ, Code: coap.GET, MessageID: s.mid, Token: []byte(token), Body: coap.AppendBody(nil, o, nil)})
	return s.mid
}

func (s *socket) receive() (coap.Datagram, netip.AddrPort) {
	s.t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, 65536)
	n, from, err := s.conn.ReadFromUDPAddrPort(b)
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := coap.ParseDatagram(b[:n])
	if err != nil {
		s.t.Fatal(err)
	}
	return d, from
}

func (s *socket) want(typ coap.Type, code coap.Code) (coap.Datagram, netip.AddrPort) {
	s.t.Helper()
	d, from := s.receive()
	if d.Type != typ || d.Code != code {
		s.t.Fatalf("%v %v %q came, want %v %v", d.Type, d.Code, d.Body, typ, code)
	}
	return d, from
}

// shows answers the ping that asks whether it receives.
func (s *socket) shows() {
	s.t.Helper()
	ping, from := s.want(coap.Confirmable, coap.Empty)
	s.send(from, coap.Datagram{Type: coap.Reset, MessageID: ping.MessageID})
}

// options builds a list from number, value pairs.
func options(list ...any) (o coap.Options) {
	for i := 0; i < len(list); i += 2 {
		switch v := list[i+1].(type) {
		case string:
			o = o.Add(list[i].(uint16), []byte(v))
		case int:
			o = o.AddUint(list[i].(uint16), uint32(v))
		}
	}
	return o
}

// TestHop: message IDs and tokens are each side's own, whatever the token's
// length (RFC 8974); confirmable stays confirmable; the body passes.
func TestHop(t *testing.T) {
	for _, typ := range []coap.Type{coap.Confirmable, coap.NonConfirmable} {
		for _, token := range []string{"", "a", "12345678", "ninebytes", strings.Repeat("t", 300), strings.Repeat("t", 2000)} {
			t.Run(fmt.Sprint(typ, " ", len(token)), func(t *testing.T) {
				client, origin := open(t), open(t)
				p := start(t, proxy.Config{Routes: reverse(origin.addr()), HopLimit: -1})
				safe := options(coap.ETag, "tag", coap.OSCORE, "\x09\x01\x01", coap.RequestTag, "rt", uint16(65000), "unknown")
				mid := client.ask(p.Addr(), typ, token, safe)
				req, from := origin.want(typ, coap.GET)
				if !bytes.Equal(req.Body, coap.AppendBody(nil, safe, nil)) {
					t.Errorf("body %x", req.Body)
				}
				if string(req.Token) == token || len(req.Token) > 8 {
					t.Errorf("the client's token is used toward the server: %x", req.Token)
				}
				want := coap.AppendBody(nil, options(coap.OSCORE, "", uint16(65000), "unknown"), []byte("answer"))
				resp := coap.Datagram{Type: coap.Acknowledgement, Code: coap.Content, MessageID: req.MessageID, Token: req.Token, Body: want}
				back := coap.Acknowledgement
				if typ == coap.NonConfirmable {
					resp.Type, back = coap.NonConfirmable, coap.NonConfirmable
				}
				origin.send(from, resp)
				got, _ := client.want(back, coap.Content)
				if string(got.Token) != token || back == coap.Acknowledgement && got.MessageID != mid || !bytes.Equal(got.Body, want) {
					t.Errorf("%+v", got)
				}
			})
		}
	}
}

// TestSeparate: a server that answers late, in a confirmable message of its
// own, is acknowledged, and so is the client.
func TestSeparate(t *testing.T) {
	client, origin := open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr())})
	mid := client.ask(p.Addr(), coap.Confirmable, "tk", nil)
	req, from := origin.want(coap.Confirmable, coap.GET)
	origin.send(from, coap.Datagram{Type: coap.Acknowledgement, MessageID: req.MessageID})
	if d, _ := client.want(coap.Acknowledgement, coap.Empty); d.MessageID != mid {
		t.Errorf("%+v", d)
	}
	origin.send(from, coap.Datagram{Type: coap.Confirmable, Code: coap.Content, MessageID: 99, Token: req.Token})
	if d, _ := origin.want(coap.Acknowledgement, coap.Empty); d.MessageID != 99 {
		t.Errorf("%+v", d)
	}
	d, _ := client.want(coap.Confirmable, coap.Content)
	client.send(p.Addr(), coap.Datagram{Type: coap.Acknowledgement, MessageID: d.MessageID})
}

// TestErrors: what the proxy answers by itself, over the wire.
func TestErrors(t *testing.T) {
	t.Run("reset by the server", func(t *testing.T) {
		client, origin := open(t), open(t)
		p := start(t, proxy.Config{Routes: reverse(origin.addr())})
		client.ask(p.Addr(), coap.Confirmable, "t", nil)
		req, from := origin.want(coap.Confirmable, coap.GET)
		origin.send(from, coap.Datagram{Type: coap.Reset, MessageID: req.MessageID})
		client.want(coap.Acknowledgement, coap.BadGateway)
	})
	t.Run("unsafe option in the answer", func(t *testing.T) {
		client, origin := open(t), open(t)
		p := start(t, proxy.Config{Routes: reverse(origin.addr())})
		client.ask(p.Addr(), coap.Confirmable, "t", nil)
		req, from := origin.want(coap.Confirmable, coap.GET)
		origin.send(from, coap.Datagram{
			Type: coap.Acknowledgement, Code: coap.Content, MessageID: req.MessageID, Token: req.Token,
			Body: coap.AppendBody(nil, options(uint16(65002), "?"), nil),
		})
		client.want(coap.Acknowledgement, coap.BadGateway)
	})
	t.Run("silent server", func(t *testing.T) {
		client, origin := open(t), open(t)
		p := start(t, proxy.Config{Routes: reverse(origin.addr()), AckTimeout: 10 * time.Millisecond, AckDelay: 5 * time.Second})
		client.ask(p.Addr(), coap.Confirmable, "t", nil)
		client.want(coap.Acknowledgement, coap.GatewayTimeout)
		if st := p.Stats(); st.Timeouts != 1 || st.Exchanges != 0 {
			t.Errorf("%+v", st)
		}
	})
	t.Run("acknowledged and never answered", func(t *testing.T) {
		client, origin := open(t), open(t)
		p := start(t, proxy.Config{Routes: reverse(origin.addr()), Timeout: 50 * time.Millisecond, AckDelay: 5 * time.Second})
		client.ask(p.Addr(), coap.Confirmable, "t", nil)
		req, from := origin.want(coap.Confirmable, coap.GET)
		origin.send(from, coap.Datagram{Type: coap.Acknowledgement, MessageID: req.MessageID})
		client.want(coap.Acknowledgement, coap.GatewayTimeout)
	})
	t.Run("target that is not allowed", func(t *testing.T) {
		client := open(t)
		p := start(t, proxy.Config{Forward: &proxy.Forward{Allow: loopback}})
		client.ask(p.Addr(), coap.Confirmable, "t", options(coap.ProxyURI, "coap://192.0.2.1"))
		client.want(coap.Acknowledgement, coap.Forbidden)
	})
	t.Run("itself", func(t *testing.T) {
		client := open(t)
		p := start(t, proxy.Config{Forward: &proxy.Forward{Allow: loopback}})
		client.ask(p.Addr(), coap.NonConfirmable, "t", options(coap.ProxyURI, "coap://"+p.Addr().String()))
		client.want(coap.NonConfirmable, coap.HopLimitReached)
	})
	t.Run("request from a server that knows no client", func(t *testing.T) {
		client, origin := open(t), open(t)
		p := start(t, proxy.Config{Routes: reverse(origin.addr())})
		client.ask(p.Addr(), coap.Confirmable, "t", nil)
		_, from := origin.want(coap.Confirmable, coap.GET)
		origin.ask(from, coap.Confirmable, "u", nil)
		origin.want(coap.Acknowledgement, coap.ProxyingNotSupported)
	})
}

// TestLoop: two proxies that lead to each other stop by Hop-Limit (RFC 8768),
// and the answer names them.
func TestLoop(t *testing.T) {
	client := open(t)
	a := start(t, proxy.Config{Routes: reverse("127.0.0.1:1")}) // to have its address
	b := start(t, proxy.Config{Identity: "second", Routes: reverse(a.Addr().String())})
	_ = a.stop()
	a = start(t, proxy.Config{Listen: a.Addr().String(), Identity: "first", Routes: reverse(b.Addr().String()), HopLimit: 4})
	client.ask(a.Addr(), coap.Confirmable, "t", nil)
	d, _ := client.want(coap.Acknowledgement, coap.HopLimitReached)
	w := coap.Walk(d.Body)
	for w.Next() {
	}
	if got := string(w.Payload()); got != "first second first second first" {
		t.Errorf("the answer names %q", got)
	}
}

// TestObserveReset: a client that resets a notification ends the observation
// at the server too; one that a server ends, ends at the client.
func TestObserveReset(t *testing.T) {
	client, origin := open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr())})
	client.ask(p.Addr(), coap.Confirmable, "t", options(coap.Observe, 0))
	req, from := origin.want(coap.Confirmable, coap.GET)
	note := func(typ coap.Type, mid uint16, n int) {
		origin.send(from, coap.Datagram{Type: typ, Code: coap.Content, MessageID: mid, Token: req.Token, Body: coap.AppendBody(nil, options(coap.Observe, n), nil)})
	}
	note(coap.Acknowledgement, req.MessageID, 1)
	client.want(coap.Acknowledgement, coap.Content)
	client.shows()
	if st := p.Stats(); st.Relations != 1 || st.Exchanges != 0 {
		t.Fatalf("%+v", st)
	}
	note(coap.NonConfirmable, 70, 2)
	d, _ := client.want(coap.NonConfirmable, coap.Content)
	if string(d.Token) != "t" {
		t.Errorf("%+v", d)
	}
	// The same token renews it, with the same token toward the server.
	client.ask(p.Addr(), coap.Confirmable, "t", options(coap.Observe, 0))
	again, _ := origin.want(coap.Confirmable, coap.GET)
	if !bytes.Equal(again.Token, req.Token) {
		t.Errorf("renewed with token %x, was %x", again.Token, req.Token)
	}
	note(coap.Acknowledgement, again.MessageID, 3)
	client.want(coap.Acknowledgement, coap.Content)
	note(coap.Confirmable, 71, 4)
	if d, _ := origin.want(coap.Acknowledgement, coap.Empty); d.MessageID != 71 {
		t.Errorf("%+v", d)
	}
	d, _ = client.want(coap.Confirmable, coap.Content)
	client.send(p.Addr(), coap.Datagram{Type: coap.Reset, MessageID: d.MessageID})
	await(t, func() bool { return p.Stats().Relations == 0 })
	note(coap.NonConfirmable, 72, 5)
	if d, _ := origin.want(coap.Reset, coap.Empty); d.MessageID != 72 {
		t.Errorf("%+v", d)
	}
}

// await waits for what another goroutine is about to do.
func await(t testing.TB, f func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline:
			t.Fatal("did not come to pass")
		case <-tick.C:
		}
	}
}

// TestForgedResponse: a response that comes from another address, or with
// another token, reaches nobody, and the genuine one still does.
func TestForgedResponse(t *testing.T) {
	client, origin, forger := open(t), open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr())})
	client.ask(p.Addr(), coap.Confirmable, "t", nil)
	req, from := origin.want(coap.Confirmable, coap.GET)
	ack := coap.Datagram{Type: coap.Acknowledgement, Code: coap.Content, MessageID: req.MessageID, Token: req.Token, Body: coap.AppendPayload(nil, []byte("forged"))}
	forger.send(from, ack)
	seen := ack // by somebody on the path, who sends from elsewhere
	seen.Type = coap.NonConfirmable
	forger.send(from, seen)
	forger.want(coap.Reset, coap.Empty)
	other := ack
	other.Token = []byte("guess")
	origin.send(from, other)
	ack.Body = coap.AppendPayload(nil, []byte("genuine"))
	origin.send(from, ack)
	if d, _ := client.want(coap.Acknowledgement, coap.Content); !bytes.Contains(d.Body, []byte("genuine")) {
		t.Errorf("%q", d.Body)
	}
}

// TestFlood: garbage, requests that are never answered and sources without end
// take no more than their limits, and a genuine client is served meanwhile.
func TestFlood(t *testing.T) {
	client, origin, silent := open(t), open(t), open(t)
	p := start(t, proxy.Config{
		Routes:       []proxy.Route{{Host: "silent", To: silent.addr()}, {To: origin.addr()}},
		MaxExchanges: 100, PeerExchanges: 50, MaxPeers: 20, MaxBytes: 100_000,
	})
	noise := make([]byte, 64)
	sources := make([]*socket, 40)
	for i := range sources {
		sources[i] = open(t)
	}
	for round := range 20 {
		for _, s := range sources {
			for range 5 {
				_, _ = rand.Read(noise)
				_, _ = s.conn.WriteToUDPAddrPort(noise, p.Addr())
				s.ask(p.Addr(), coap.Type(round%2), fmt.Sprint(s.mid), options(coap.URIHost, "silent"))
			}
		}
		for attempt := 0; ; attempt++ { // a datagram may be lost in the flood
			client.ask(p.Addr(), coap.NonConfirmable, "t", nil)
			if err := origin.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 2048)
			n, from, err := origin.conn.ReadFromUDPAddrPort(b)
			if err != nil && attempt < 20 {
				continue
			}
			if err != nil {
				t.Fatal("a genuine client is not served during the flood")
			}
			req, err := coap.ParseDatagram(b[:n])
			if err != nil {
				t.Fatal(err)
			}
			origin.send(from, coap.Datagram{Type: coap.NonConfirmable, Code: coap.Content, MessageID: origin.mid, Token: req.Token})
			origin.mid++
			break
		}
		st := p.Stats()
		if st.Exchanges > 100 || st.Peers > 2*20 || st.Remembered > 2*20*1024 {
			t.Fatalf("%+v", st)
		}
	}
	if st := p.Stats(); st.Shed == 0 || st.Malformed == 0 {
		t.Errorf("%+v", st)
	}
}

// TestDualStack: a wildcard listener serves IPv4 and IPv6, and leads from one
// to the other.
func TestDualStack(t *testing.T) {
	six, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Skip("this machine has no IPv6:", err)
	}
	t.Cleanup(func() { six.Close() })
	newer, older := &socket{t: t, conn: six}, open(t)
	p := start(t, proxy.Config{Listen: ":0", Routes: []proxy.Route{{Host: "six", To: newer.addr()}, {To: older.addr()}}})
	for name, c := range map[string]struct {
		client, origin *socket
		host           string
		at             string
	}{
		"IPv4 to IPv6": {open(t), newer, "six", "127.0.0.1"},
		"IPv6 to IPv4": {&socket{t: t, conn: dialSix(t)}, older, "four", "::1"},
	} {
		t.Run(name, func(t *testing.T) {
			to := netip.AddrPortFrom(netip.MustParseAddr(c.at), p.Addr().Port())
			c.client.ask(to, coap.Confirmable, "t", options(coap.URIHost, c.host))
			req, from := c.origin.want(coap.Confirmable, coap.GET)
			c.origin.send(from, coap.Datagram{Type: coap.Acknowledgement, Code: coap.Content, MessageID: req.MessageID, Token: req.Token})
			if _, back := c.client.want(coap.Acknowledgement, coap.Content); back != to {
				t.Errorf("answered from %v", back)
			}
		})
	}
}

func dialSix(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
