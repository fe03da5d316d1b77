package proxy

import (
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
	token uint64    // toward next
	out   *outgoing // the request, until it is answered
	told  *outgoing // the latest notification

	transfer *transfer // nil: the request was passed whole
	holder   string    // plan.holder
	kept     int       // bytes of a long token
	number   uint64    // among the requests of the shard
	observe  bool      // asked for by its request
	relation bool      // agreed to by its server (RFC 7641 §3.1)
	unwanted uint8     // plan.unwanted
	tagged   bool      // notifications refer to it
	deadline time.Time

	stands [queues]stand
}

// The queues of a shard, each oldest first.
const (
	waiting = iota // exchanges that wait for an answer
	unshown        // observations whose client has not shown that it receives
	queues
)

// stand is an exchange's place in a queue.
type stand struct {
	in            bool
	before, after *exchange
}

type queue struct {
	which      int
	head, tail *exchange
	n          int
}

func (q *queue) has(ex *exchange) bool { return ex.stands[q.which].in }

func (q *queue) push(ex *exchange) {
	ex.stands[q.which] = stand{in: true, before: q.tail}
	if q.tail == nil {
		q.head = ex
	} else {
		q.tail.stands[q.which].after = ex
	}
	q.tail = ex
	q.n++
}

// remove takes an exchange out, if it is in.
func (q *queue) remove(ex *exchange) {
	at := &ex.stands[q.which]
	if !at.in {
		return
	}
	if at.before == nil {
		q.head = at.after
	} else {
		at.before.stands[q.which].after = at.after
	}
	if at.after == nil {
		q.tail = at.before
	} else {
		at.after.stands[q.which].before = at.before
	}
	*at = stand{}
	q.n--
}

// notification is the tag of a notification under way to the client.
type notification struct{ *exchange }

// wait enters an exchange into the table of those that wait for an answer. It is
// full if it has become so while a name was resolved: then the oldest goes.
func (sh *shard) wait(now time.Time, ex *exchange) {
	if sh.waiting.n >= sh.cfg.MaxExchanges {
		sh.dropOldest(now)
	}
	ex.deadline = now.Add(sh.p.cfg.Timeout)
	sh.waiting.push(ex)
}

// end forgets an exchange whole. The server's next notification, if there is
// one, is reset as unknown, which ends the observation there (RFC 7641 §3.6).
func (sh *shard) end(now time.Time, ex *exchange) {
	sh.waiting.remove(ex)
	if ex.to != nil {
		ex.to.messages().Forget(now, ex.out)
		ex.out = nil
		ex.to.tokens.release(ex)
	}
	if ex.in != nil {
		ex.from.messages().Release(ex.in)
		ex.in = nil
	}
	if len(ex.from.byClient) > 0 && ex.from.byClient[ex.client] == ex {
		delete(ex.from.byClient, ex.client)
	}
	sh.drop(ex)
	sh.unsay(now, ex)
	sh.transferred -= ex.kept
	ex.kept = 0
	sh.unrelate(ex)
	if !ex.tagged && len(sh.free) < maxFree {
		*ex = exchange{}
		sh.free = append(sh.free, ex)
	}
}

// unsay takes back the latest notification if it waits behind others: a client
// that takes them slowly, or not at all, is told of the latest alone (RFC 7641
// §4.5.2).
func (sh *shard) unsay(now time.Time, ex *exchange) {
	if ex.told != nil && ex.told.Waiting() {
		ex.from.messages().Forget(now, ex.told)
	}
	ex.told = nil
}

// maxFree is how many exchanges are kept for use again.
const maxFree = 1 << 12

// newExchange returns an empty exchange. Those that have ended come again,
// unless a notification under way may still refer to them.
func (sh *shard) newExchange() *exchange {
	n := len(sh.free)
	if n == 0 {
		return new(exchange)
	}
	ex := sh.free[n-1]
	sh.free[n-1] = nil
	sh.free = sh.free[:n-1]
	return ex
}

// fail ends an exchange and tells its client why.
func (sh *shard) fail(now time.Time, ex *exchange, why *refusal) {
	if in := ex.in; in != nil && why.wanted(ex.unwanted) {
		ex.in = nil
		sh.answer(now, ex.from, in, why)
	}
	sh.end(now, ex)
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
