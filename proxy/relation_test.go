package proxy_test

import (
	"fmt"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/proxy"
)

// TestObservationsMakeRoom: observations of clients that do not show that they
// receive, as the owner of a forged address does not, keep no other client from
// observing. The server's notifications for one that had to go are reset.
func TestObservationsMakeRoom(t *testing.T) {
	const room = 4
	genuine, origin := open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr()), Shards: 1, MaxRelations: room})
	var tokens [][]byte // toward the server
	observe := func(s *socket) {
		t.Helper()
		s.ask(p.Addr(), coap.Confirmable, "t", options(coap.Observe, 0))
		req, from := origin.want(coap.Confirmable, coap.GET)
		tokens = append(tokens, req.Token)
		origin.send(from, coap.Datagram{Type: coap.Acknowledgement, Code: coap.Content, MessageID: req.MessageID, Token: req.Token, Body: coap.AppendBody(nil, options(coap.Observe, 1), nil)})
		s.want(coap.Acknowledgement, coap.Content)
	}
	observe(genuine)
	genuine.shows()
	for range 2 * room {
		observe(open(t)) // and is silent
	}
	if st := p.Stats(); st.Relations != room || st.By["observations_full"] != room+1 {
		t.Fatalf("%+v", st)
	}
}

// TestPeerObservations: one client, which may well receive, has no more than its
// part of the table.
func TestPeerObservations(t *testing.T) {
	client, other, origin := open(t), open(t), open(t)
	p := start(t, proxy.Config{Routes: reverse(origin.addr()), Shards: 1, PeerRelations: 2})
	observe := func(s *socket, token string, n int, notifies bool) {
		t.Helper()
		var answer coap.Options
		if notifies {
			answer = options(coap.Observe, 1)
		}
		s.ask(p.Addr(), coap.Confirmable, token, options(coap.Observe, n))
		req, from := origin.want(coap.Confirmable, coap.GET)
		origin.send(from, coap.Datagram{Type: coap.Acknowledgement, Code: coap.Content, MessageID: req.MessageID, Token: req.Token, Body: coap.AppendBody(nil, answer, nil)})
		s.want(coap.Acknowledgement, coap.Content)
	}
	observe(client, "0", 0, true)
	client.shows()
	observe(client, "1", 0, true)
	for i := range 3 {
		client.ask(p.Addr(), coap.Confirmable, fmt.Sprint(2+i), options(coap.Observe, 0))
		client.want(coap.Acknowledgement, coap.ServiceUnavailable)
	}
	observe(other, "0", 0, true)
	observe(client, "1", 1, false) // ends it
	observe(client, "2", 0, true)
	if st := p.Stats(); st.Relations != 3 || st.By["peer_observations_full"] != 3 {
		t.Fatalf("%+v", st)
	}
}
