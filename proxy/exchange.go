package proxy

import (
	"container/list"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/coap/message"
)

type (
	event    = message.Event[address]
	incoming = message.Incoming[address]
	outgoing = message.Outgoing[address]
)

// exchange is a request on its way through the proxy, and afterwards the
// observation that it began.
//
//	client ── from ──┃ clientToken │ token ┃── to ── next
type exchange struct {
	from   *leg
	client clientKey
	in     *incoming // the request that waits for its answer; nil: none does

	to    *leg
	next  address
	token uint64    // toward next; 0: none yet
	out   *outgoing // the request, until it is answered

	observe  bool // asked for by its request
	relation bool // agreed to by its server (RFC 7641 §3.1)
	silent   bool // No-Response: its end is no timeout
	deadline time.Time
	queued   *list.Element // in shard.waiting
}

// notification is the tag of a notification under way to the client.
type notification struct{ *exchange }

// newToken draws a token that nobody can guess (RFC 7252 §5.3.1) and that no
// other request of the leg has.
func (g *leg) newToken() uint64 {
	for {
		if token := g.sh.random(); token != 0 && g.byToken[token] == nil {
			return token
		}
	}
}

// wait enters an exchange into the table of those that wait for an answer. The
// table is a queue: when it is full the oldest goes, for a genuine server
// answers sooner than one that never will.
func (sh *shard) wait(now time.Time, ex *exchange) {
	if sh.waiting.Len() >= sh.cfg.MaxExchanges {
		sh.p.counters.shed.Add(1)
		sh.fail(now, sh.waiting.Front().Value.(*exchange), refuse(coap.ServiceUnavailable, "overloaded"))
	}
	ex.deadline = now.Add(sh.p.cfg.Timeout)
	ex.queued = sh.waiting.PushBack(ex)
	sh.perPeer[ex.client.peer]++
}

// settle takes an exchange out of it.
func (sh *shard) settle(ex *exchange) {
	if ex.queued == nil {
		return
	}
	sh.waiting.Remove(ex.queued)
	ex.queued = nil
	if sh.perPeer[ex.client.peer]--; sh.perPeer[ex.client.peer] == 0 {
		delete(sh.perPeer, ex.client.peer)
	}
}

// end forgets an exchange whole. The server's next notification, if there is
// one, is reset as unknown, which ends the observation there (RFC 7641 §3.6).
func (sh *shard) end(now time.Time, ex *exchange) {
	sh.settle(ex)
	ex.to.messages().Forget(now, ex.out)
	ex.out, ex.in = nil, nil
	if ex.to.byToken[ex.token] == ex {
		delete(ex.to.byToken, ex.token)
	}
	if ex.from.byClient[ex.client] == ex {
		delete(ex.from.byClient, ex.client)
	}
	if ex.relation {
		ex.relation = false
		sh.relations--
	}
}

// fail ends an exchange and tells its client why.
func (sh *shard) fail(now time.Time, ex *exchange, why *refusal) {
	in, silent := ex.in, ex.silent
	sh.end(now, ex)
	if in == nil || silent {
		return
	}
	sh.answer(now, ex.from, in, why)
}

// answer answers an accepted request with an error of the proxy's own, never
// confirmable: whoever forges a source address would have it retransmitted there.
func (sh *shard) answer(now time.Time, g *leg, in *incoming, why *refusal) {
	_, _ = g.messages().Respond(now, in, coap.NonConfirmable, why.code, why.body(), nil) // full: the client asks again
}

// replyType is the type of an answer that is not piggybacked.
func replyType(in *incoming) coap.Type {
	if in.Confirmable() {
		return coap.Confirmable
	}
	return coap.NonConfirmable
}
