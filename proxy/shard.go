package proxy

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/coap/message"
	"github.com/oscorelay/oscorelay/internal/udp"
)

// shard is a listening socket, its upstream sockets and its table of exchanges,
// under one lock.
type shard struct {
	p   *Proxy
	cfg Config // with the shard's part of the limits

	poll *udp.Poll[*leg]

	mu          sync.Mutex
	counts      counts
	kept        [2]int // bytes, by the front's and by the upstream's message layers
	front       *leg
	legs        []*leg         // front, then upstream
	shared      int            // the upstream leg in use among those shared, in legs
	own         map[owner]*leg // upstream legs by client
	numbered    uint64         // requests so far
	transferred int            // bytes of requests kept whole
	dirty       []*leg
	waiting     queue
	unshown     queue
	shedding    shedding
	free        []*exchange
	token       [8]byte
	body        []byte // of the request that is passed on
	relations   int
	names       map[name]resolved
	asked       map[name][]found // look-ups under way
	resolving   [2]int           // requests that wait for them: of routes, of clients' choice
	draining    bool
	closed      bool
	pool        []byte    // random bytes
	swept       time.Time // the last second's sweep
	wg          sync.WaitGroup
}

func (sh *shard) count(why reason) { sh.counts.by[why]++ }

// request passes a request on, or refuses it.
func (sh *shard) request(now time.Time, g *leg, ev event) {
	var back *target
	if g != sh.front {
		_, known := g.hops[ev.Peer]
		if !known {
			sh.count(notProxying)
			g.messages().Refuse(ev, coap.ProxyingNotSupported, refuse(0, "no client is known by this address").body())
			return
		}
		back = &target{addr: sh.p.remote(&g.client).Addr(), port: uint16(g.client.port)}
	}
	p, bad := sh.p.rules.Load().plan(sh.body[:0], ev.Message.Body, back)
	if cap(p.body) > cap(sh.body) {
		sh.body = p.body
	}
	if bad != nil {
		sh.count(bad.reason())
		g.messages().Refuse(ev, bad.code, bad.body())
		return
	}
	full := reasons
	switch {
	case sh.draining:
		full = draining
	case g.layer.Unanswered(&ev) >= sh.cfg.PeerExchanges:
		full = peerFull
	case g == sh.front && !sh.cfg.PerClient && p.target.addr.IsValid() && sh.legs[sh.shared].layer.Waiting(sh.destination(&p)) >= sh.cfg.ServerNStart:
		full = serverFull // here for less than it takes in forward
	case sh.waiting.n >= sh.cfg.MaxExchanges && !sh.makeRoom(now, g, &p):
		full = exchangesFull
	}
	if full == reasons && p.observe {
		full = sh.observeRoom(now, g, &ev)
	}
	if full != reasons {
		sh.count(full)
		g.messages().Refuse(ev, coap.ServiceUnavailable, overloaded().body())
		return
	}
	in, err := g.messages().AcceptRequest(now, ev)
	if err != nil {
		sh.count(tableFull)
		return
	}
	code := ev.Message.Code
	if p.target.addr.IsValid() {
		sh.forward(now, g, in, code, p, p.target.addr)
		return
	}
	p.body = bytes.Clone(p.body)
	sh.resolve(now, p.target.host, p.open, func(now time.Time, addr netip.Addr, bad *refusal) {
		if bad != nil {
			sh.count(unresolved)
			sh.answer(now, g, in, bad)
			return
		}
		sh.forward(now, g, in, code, p, addr)
	})
}

// shortToken is the longest token that is not counted, in bytes.
const shortToken = 64

// forward sends an accepted request to its next hop.
func (sh *shard) forward(now time.Time, from *leg, in *incoming, code coap.Code, p plan, addr netip.Addr) {
	var next address
	if from != sh.front {
		next = from.client
	} else {
		at := netip.AddrPortFrom(addr.Unmap(), p.target.port)
		if bad := sh.p.permitted(&p, at); bad != nil {
			sh.count(bad.reason())
			sh.answer(now, from, in, bad)
			return
		}
		next = sh.p.address(at, netip.Addr{})
	}
	client := clientKey{in.Peer(), string(in.Token())}
	var ex, old *exchange
	if len(from.byClient) > 0 {
		old = from.byClient[client]
	}
	if old != nil && p.observe && old.next == next {
		// RFC 7641 §3.3.1, §3.6: the same token renews or ends the observation,
		// and so must the token toward the server.
		sh.waiting.remove(old)
		old.to.messages().Forget(now, old.out)
		old.out = nil
		if old.in != nil {
			from.messages().Release(old.in)
		}
		ex = old
	} else if old != nil {
		sh.end(now, old) // the client has used its token for something else
	}
	if ex == nil {
		ex = sh.newExchange()
		ex.from, ex.client, ex.next = from, client, next
	}
	ex.in, ex.observe, ex.unwanted, ex.holder = in, p.observe, p.unwanted, p.holder
	sh.numbered++
	ex.number = sh.numbered
	var bad *refusal
	if n := len(client.token); n > shortToken && ex.kept == 0 {
		if sh.transferred+2*n > sh.cfg.MaxTransfers {
			sh.count(transfersFull)
			sh.fail(now, ex, overloaded())
			return
		}
		ex.kept = 2 * n // here and in the message layer
		sh.transferred += ex.kept
	}
	if ex.transfer, bad = sh.transferOf(code, &p); bad != nil {
		sh.count(transfersFull)
		sh.fail(now, ex, bad)
		return
	}
	switch t := ex.transfer; {
	case t != nil && t.cut:
		p.body = t.block()
	case p.block1 && from == sh.front && !sh.cfg.PerClient:
		p.body = sh.tag(p.body, &client.peer)
	}
	typ := coap.NonConfirmable
	if in.Confirmable() || ex.transfer != nil && ex.transfer.cut {
		typ = coap.Confirmable
	}
	if err := sh.launch(now, ex, coap.Datagram{Type: typ, Code: code, Body: p.body}); err != nil {
		switch {
		case errors.Is(err, errServerFull):
			sh.count(serverFull)
		case !errors.Is(err, errStranger):
			sh.count(tableFull)
		}
		sh.fail(now, ex, overloaded())
		return
	}
	sh.counts.requests++
	sh.wait(now, ex)
	if ex.observe {
		from.byClient[ex.client] = ex
	}
}

// launch sends an exchange's request from a leg that has a message ID for it.
func (sh *shard) launch(now time.Time, ex *exchange, d coap.Datagram) error {
	for range max(len(sh.legs), 2) {
		g, err := ex.to, error(nil)
		if g == nil {
			if g, err = sh.toward(now, ex); err != nil {
				return err
			}
		}
		if ex.to == nil && g != sh.front && g.layer.Waiting(ex.next) >= sh.cfg.ServerNStart {
			return errServerFull
		}
		if ex.to == nil {
			g.tokens.draw(ex, sh.random())
		}
		d.Token = binary.BigEndian.AppendUint64(sh.token[:0], ex.token)
		ex.out, err = g.messages().Send(now, ex.next, d, ex)
		if err == nil {
			ex.to = g
			if g.own {
				g.used = now
				if _, known := g.hops[ex.next]; !known && len(g.hops) < 16 {
					g.hops[ex.next] = false
				}
			}
			return nil
		}
		if ex.to == nil {
			g.tokens.release(ex)
		}
		if !errors.Is(err, message.ErrNoMessageID) || ex.to != nil || g == sh.front || sh.p.cfg.PerClient {
			return err
		}
		if err := sh.nextShared(); err != nil {
			return err
		}
	}
	return message.ErrNoMessageID
}

// toward returns the leg that a request leaves by.
func (sh *shard) toward(now time.Time, ex *exchange) (*leg, error) {
	if ex.from != sh.front {
		return sh.front, nil
	}
	if sh.p.cfg.PerClient {
		return sh.ownLeg(now, ex)
	}
	return sh.legs[sh.shared], nil
}

// response passes a response back to the client that asked.
func (sh *shard) response(now time.Time, g *leg, ev event) {
	var ex *exchange
	if len(ev.Message.Token) == 8 {
		ex = g.tokens.find(binary.BigEndian.Uint64(ev.Message.Token))
	}
	piggybacked := ev.Message.Type == coap.Acknowledgement
	if ex == nil || ex.next != ev.Peer || piggybacked && ev.Sent != ex.out {
		// RFC 7252 §4.2, §4.3, RFC 7641 §3.6: an unknown one is reset, which
		// ends the observation that it may belong to.
		sh.count(unmatched)
		sh.late(&ev)
		g.messages().Reject(ev)
		return
	}
	if err := g.messages().AcceptResponse(now, ev); err != nil {
		return
	}
	if !piggybacked {
		g.messages().Forget(now, ex.out)
	}
	ex.out = nil
	code, body := ev.Message.Code, ev.Message.Body
	notifies, sealed, ok := checkResponse(body)
	if !ok {
		sh.count(badAnswer)
		sh.fail(now, ex, refuse(coap.BadGateway, "the server's answer has an option that is not safe to forward"))
		return
	}
	if sh.continues(now, ex, code, body, sealed) {
		return
	}
	if ex.transfer != nil && ex.transfer.cut {
		if code == coap.Continue && !sealed {
			sh.count(badAnswer)
			sh.fail(now, ex, refuse(coap.BadGateway, "the server lost track of the blocks"))
			return
		}
		body = withoutBlock1(body)
	}
	sh.drop(ex)
	sh.proven(g, ex, sealed, code)
	if code == coap.HopLimitReached {
		body = nameInHopLimit(body, sh.p.cfg.Identity)
	}
	sh.counts.responses++
	typ := ev.Message.Type
	if piggybacked {
		typ = coap.Confirmable
		if ex.in != nil {
			typ = replyType(ex.in)
		}
	}
	if sh.waiting.has(ex) {
		sh.counts.answered(now.Sub(ex.deadline) + sh.cfg.Timeout)
	}
	sh.waiting.remove(ex)
	goesOn := notifies && ex.observe && code.IsSuccess()
	var tag any
	if goesOn {
		tag, ex.tagged = notification{ex}, true
	}
	sh.unsay(now, ex)
	var out *outgoing
	var err error
	if in := ex.in; in != nil {
		ex.in = nil
		out, err = ex.from.messages().Respond(now, in, typ, code, body, tag)
	} else {
		d := coap.Datagram{Type: typ, Code: code, Token: []byte(ex.client.token), Body: body}
		out, err = ex.from.messages().Send(now, ex.client.peer, d, tag)
	}
	if err != nil {
		sh.count(tableFull)
	}
	if goesOn {
		ex.told = out
		sh.relate(now, ex)
	} else {
		sh.end(now, ex)
	}
}

// failed handles a message of this proxy that was reset or given up.
func (sh *shard) failed(now time.Time, ev event) {
	switch tag := ev.Sent.Tag.(type) {
	case notification: // RFC 7641 §3.6, §4.5: the client wants no more of them
		sh.end(now, tag.exchange)
	case *exchange:
		if tag.out != ev.Sent {
			return
		}
		if ev.Kind == message.Reset {
			sh.count(serverReset)
			sh.fail(now, tag, refuse(coap.BadGateway, "the server reset the request"))
			return
		}
		sh.count(silence)
		sh.fail(now, tag, refuse(coap.GatewayTimeout, "the server does not answer"))
	}
}

// tick does what time has made due and returns when to do it again.
func (sh *shard) tick(now time.Time) (again time.Time) {
	again = now.Add(tickIdle)
	sweeps := now.Sub(sh.swept) >= tickIdle
	if sweeps {
		sh.swept = now
	}
	for _, g := range sh.legs {
		at, ok := g.layer.Next()
		if ok && !at.After(now) || sweeps {
			g.messages().Advance(now, func(ev event) { sh.failed(now, ev) })
			at, ok = g.layer.Next()
		}
		if ok && at.Before(again) {
			again = at
		}
	}
	for ex := sh.waiting.head; ex != nil; ex = sh.waiting.head {
		if ex.deadline.After(now) {
			if ex.deadline.Before(again) {
				again = ex.deadline
			}
			break
		}
		if ex.unwanted == 0 {
			sh.count(silence)
		}
		sh.fail(now, ex, refuse(coap.GatewayTimeout, "the server does not answer"))
	}
	if soon := now.Add(tickEvery); again.Before(soon) {
		again = soon
	}
	return again
}

// open starts an upstream leg: of one client, or shared.
func (sh *shard) open(own bool) (*leg, error) {
	if sh.closed {
		return nil, net.ErrClosed
	}
	o := udp.Options{MaxDatagram: sh.cfg.MaxDatagram}
	if !own { // the answers to all that ServerNStart lets out may come at once
		o.ReadBuffer = sh.cfg.ReadBuffer
	}
	sock, err := udp.Listen(netip.AddrPort{}, o)
	if err != nil {
		return nil, err
	}
	g := sh.newLeg(sock, false)
	if g.own = own; own {
		g.hops = map[address]bool{}
	}
	if err := sh.poll.Add(sock, g); err != nil {
		_ = sock.Close()
		return nil, err
	}
	sh.legs = append(sh.legs, g)
	return g, nil
}

// random returns 64 bits that nobody can guess.
func (sh *shard) random() uint64 {
	if len(sh.pool) < 8 {
		sh.pool = make([]byte, 4096)
		_, _ = rand.Read(sh.pool) // never fails
	}
	v := binary.BigEndian.Uint64(sh.pool)
	sh.pool = sh.pool[8:]
	return v
}
