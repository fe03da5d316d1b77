package proxy_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/proxy"
)

// TestSlowServer: a server that takes its time and is asked for twice what there
// is room for meanwhile is still made use of. The oldest exchanges are not dropped
// for others that would be dropped likewise; what is refused is told when to come
// again.
func TestSlowServer(t *testing.T) {
	const places = 100 // and so many turns an answer takes
	client, server := open(t), open(t)
	p := start(t, proxy.Config{Routes: []proxy.Route{{To: server.addr()}}, Shards: 1, MaxExchanges: places})
	var due [][]coap.Datagram // what the server got, by turn
	var upstream netip.AddrPort
	got, good, refused := uint64(0), 0, 0
	for turn := range 10 * places {
		for range 2 {
			client.ask(p.Addr(), coap.NonConfirmable, string(binary.BigEndian.AppendUint32(nil, uint32(turn))), nil)
		}
		for _, d := range settled(client, p.Addr()) {
			switch age, _ := coap.Find(d.Body, coap.MaxAge); {
			case d.Code == coap.Content && turn >= 5*places:
				good++
			case d.Code == coap.ServiceUnavailable && len(age) == 1:
				refused++
			case d.Code != coap.Content:
				t.Fatalf("%v %x", d.Code, d.Body)
			}
		}
		due = append(due, nil)
		for ; got < p.Stats().Requests; got++ {
			d, from := server.receive()
			due[turn], upstream = append(due[turn], d), from
		}
		if turn < places {
			continue
		}
		for _, d := range due[turn-places] {
			server.send(upstream, coap.Datagram{Type: coap.NonConfirmable, Code: coap.Content, MessageID: d.MessageID, Token: d.Token})
		}
		settled(server, upstream)
	}
	if good < 4*places {
		t.Errorf("%d of %d requests are answered, the server had time for %d", good, 2*5*places, 5*places)
	}
	if st := p.Stats(); refused == 0 || st.By["exchanges_full"] < uint64(refused) {
		t.Errorf("%d are refused, %d counted", refused, st.By["exchanges_full"])
	}
}

// settled waits until the proxy has taken in what a peer sent it, and returns what
// came meanwhile.
func settled(s *socket, to netip.AddrPort) (came []coap.Datagram) {
	s.t.Helper()
	s.mid++
	s.send(to, coap.Datagram{Type: coap.Confirmable, MessageID: s.mid})
	for {
		d, _ := s.receive()
		if d.Type == coap.Reset && d.MessageID == s.mid {
			return came
		}
		if d.Type != coap.Reset { // the proxy resets what comes too late
			came = append(came, d)
		}
	}
}
