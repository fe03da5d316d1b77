package proxy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/proxy"
)

// TestFullTableLetsGo: where no further observation has room, the clients of
// those that there are can renew and end them.
func TestFullTableLetsGo(t *testing.T) {
	client, other, origin := open(t), open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr()), Shards: 1, MaxRelations: 1})
	observe := func(n int, answer coap.Options) {
		t.Helper()
		client.ask(p.Addr(), coap.Confirmable, "t", options(coap.Observe, n))
		req, from := origin.want(coap.Confirmable, coap.GET)
		origin.send(from, coap.Datagram{Type: coap.Acknowledgement, Code: coap.Content, MessageID: req.MessageID, Token: req.Token, Body: coap.AppendBody(nil, answer, nil)})
		client.want(coap.Acknowledgement, coap.Content)
	}
	observe(0, options(coap.Observe, 1))
	client.shows()
	other.ask(p.Addr(), coap.Confirmable, "t", options(coap.Observe, 0))
	other.want(coap.Acknowledgement, coap.ServiceUnavailable)
	if st := p.Stats(); st.Relations != 1 {
		t.Fatalf("%+v", st)
	}
	client.ask(p.Addr(), coap.Confirmable, "another", options(coap.Observe, 0))
	client.want(coap.Acknowledgement, coap.ServiceUnavailable)
	observe(0, options(coap.Observe, 2))
	observe(1, nil)
	if st := p.Stats(); st.Relations != 0 {
		t.Fatalf("%+v", st)
	}
}

// TestLongTokens: tokens beyond the usual length (RFC 8974) are kept as long as
// their requests are, and take the room of what is kept whole.
func TestLongTokens(t *testing.T) {
	const room = 20_000
	client, origin := open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr()), Shards: 1, MaxTransfers: room})
	for i := range 50 {
		client.ask(p.Addr(), coap.Confirmable, fmt.Sprint(i, strings.Repeat("t", 1000)), nil)
	}
	await(t, func() bool { st := p.Stats(); return st.Requests+st.Shed == 50 })
	if st := p.Stats(); st.Shed == 0 || st.Requests == 0 || st.Exchanges*2*1000 > room {
		t.Fatalf("%d requests with tokens of 1000 bytes are under way", st.Exchanges)
	}
	for range p.Stats().Requests {
		req, from := origin.want(coap.Confirmable, coap.GET)
		origin.send(from, coap.Datagram{Type: coap.Acknowledgement, Code: coap.Content, MessageID: req.MessageID, Token: req.Token})
	}
	await(t, func() bool { return p.Stats().Exchanges == 0 })
	for { // the room is there again
		client.ask(p.Addr(), coap.Confirmable, strings.Repeat("u", 1000), nil)
		if req, _ := origin.receive(); req.Code == coap.GET {
			return
		}
	}
}

// TestNotificationsToNobody: of what a server tells a client that acknowledges
// nothing, the latest waits, not everything.
func TestNotificationsToNobody(t *testing.T) {
	client, origin := open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr()), Shards: 1, ClientNStart: 2, Amplification: -1})
	client.ask(p.Addr(), coap.Confirmable, "t", options(coap.Observe, 0))
	req, from := origin.want(coap.Confirmable, coap.GET)
	note := func(typ coap.Type, mid uint16, n int) {
		t.Helper()
		origin.send(from, coap.Datagram{Type: typ, Code: coap.Content, MessageID: mid, Token: req.Token, Body: coap.AppendBody(nil, options(coap.Observe, n), nil)})
	}
	note(coap.Acknowledgement, req.MessageID, 1)
	client.want(coap.Acknowledgement, coap.Content)
	const n = 100
	for i := range n {
		note(coap.Confirmable, uint16(1000+i), 2+i)
		origin.want(coap.Acknowledgement, coap.Empty)
	}
	if st := p.Stats(); st.Responses != n+1 || st.Outstanding > 3 {
		t.Errorf("%d of %d notifications are kept for a client that takes none", st.Outstanding, st.Responses)
	}
	var last []byte
	for last == nil || string(last) != string(coap.AppendUint(nil, n+1)) {
		d, _ := client.want(coap.Confirmable, coap.Content)
		client.send(p.Addr(), coap.Datagram{Type: coap.Acknowledgement, MessageID: d.MessageID})
		last, _ = coap.Find(d.Body, coap.Observe)
	}
	client.ask(p.Addr(), coap.NonConfirmable, "t", options(coap.Observe, 1)) // nothing of it stays
	req, from = origin.want(coap.NonConfirmable, coap.GET)
	origin.send(from, coap.Datagram{Type: coap.NonConfirmable, Code: coap.Content, MessageID: 1, Token: req.Token})
	await(t, func() bool { st := p.Stats(); return st.Relations == 0 && st.Outstanding == 0 })
}

// TestAnswersNobodyTakes: answers that a client does not take count among its
// requests.
func TestAnswersNobodyTakes(t *testing.T) {
	client, origin := open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr()), Shards: 1, ClientNStart: 2, Amplification: -1, PeerExchanges: 10, AckDelay: time.Millisecond})
	for i := 0; p.Stats().By["peer_exchanges_full"] == 0; i++ {
		if i == 100 {
			t.Fatalf("100 answers wait for a client that takes none: %+v", p.Stats())
		}
		client.ask(p.Addr(), coap.Confirmable, fmt.Sprint(i), nil)
		for {
			d, _ := client.receive()
			if d.Type == coap.Acknowledgement {
				if d.Code == coap.Empty {
					req, from := origin.want(coap.Confirmable, coap.GET)
					origin.send(from, coap.Datagram{Type: coap.Acknowledgement, Code: coap.Content, MessageID: req.MessageID, Token: req.Token})
					await(t, func() bool { return p.Stats().Responses == uint64(i+1) })
				}
				break
			}
		}
	}
	if st := p.Stats(); st.Outstanding > 12 {
		t.Errorf("%+v", st)
	}
}

// TestNoResponse: RFC 7967 names the classes that a client does not want to
// hear of; the proxy's own answers are of a class too, and silence may be an
// answer only where a class is named.
func TestNoResponse(t *testing.T) {
	for value, heard := range map[int]bool{0: true, 2: false, 8: false, 16: false, 26: false} {
		client, origin := open(t), open(t)
		p := start(t, proxy.Config{Routes: reverse(origin.addr()), Timeout: 100 * time.Millisecond})
		client.ask(p.Addr(), coap.NonConfirmable, "t", options(coap.NoResponse, value))
		origin.want(coap.NonConfirmable, coap.GET)
		await(t, func() bool { return p.Stats().Exchanges == 0 && p.Stats().Requests == 1 })
		client.ask(p.Addr(), coap.NonConfirmable, "after", options(coap.ProxyURI, "coap://x/"))
		d, _ := client.receive()
		if timeout := d.Code == coap.GatewayTimeout; timeout != heard {
			t.Errorf("No-Response %d: %v, want 5.04: %v", value, d.Code, heard)
		}
	}
	client, origin := open(t), open(t) // what is no success is told where only success is not wanted
	p := start(t, proxy.Config{Routes: reverse(origin.addr())})
	client.ask(p.Addr(), coap.NonConfirmable, "t", options(coap.NoResponse, 2))
	req, from := origin.want(coap.NonConfirmable, coap.GET)
	origin.send(from, coap.Datagram{Type: coap.NonConfirmable, Code: coap.Content, MessageID: 1, Token: req.Token, Body: coap.AppendBody(nil, options(uint16(2050), "unsafe"), nil)})
	client.want(coap.NonConfirmable, coap.BadGateway)
}

// TestOneOSCOREOption: whose a request is must not depend on which of two OSCORE
// options a server looks at.
func TestOneOSCOREOption(t *testing.T) {
	client, origin := open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr()), ByKID: true})
	client.ask(p.Addr(), coap.Confirmable, "t", options(coap.OSCORE, "\x09\x01\x2a", coap.OSCORE, "\x09\x01\x2b"))
	client.want(coap.Acknowledgement, coap.BadOption)
	client.ask(p.Addr(), coap.Confirmable, "t", options(coap.OSCORE, "\x09\x01"+strings.Repeat("k", 300)))
	client.want(coap.Acknowledgement, coap.BadOption)
}
