package proxy

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// transfer is a request that is kept whole, since its server takes it in
// blocks (RFC 7959 §2.5, RFC 8613 §4.1.3.4.2: outer block options), or may say
// that it does (§2.9.3: 4.13 with a Block1 option). It ends with its exchange.
type transfer struct {
	code    coap.Code
	options coap.Options
	payload []byte
	at      int   // where the block under way begins
	szx     uint8 // its size
	cut     bool  // it travels in blocks
	again   bool  // it began anew once
	kept    int   // bytes that it counts for
}

// keepFrom is the smallest payload that a server's hint could cut: smaller
// ones fit any network that carries CoAP.
const keepFrom = 128

// transferOf prepares a request of which the route, or its server, may want
// blocks, or returns nil. body may be used again after it.
func (sh *shard) transferOf(code coap.Code, p *plan) (*transfer, *refusal) {
	size := p.target.block
	if p.block1 || p.observe || size > 0 && p.payload <= size || size == 0 && p.payload < keepFrom {
		return nil, nil
	}
	if sh.transferred+len(p.body) > sh.cfg.MaxTransfers {
		if size == 0 {
			return nil, nil // the hint will be passed to the client
		}
		return nil, overloaded()
	}
	body := bytes.Clone(p.body)
	opts, payload, err := coap.Split(body)
	if err != nil {
		panic("proxy: a body of our own is malformed")
	}
	sh.transferred += len(body)
	t := &transfer{code: code, options: opts, payload: payload, kept: len(body)}
	if size > 0 {
		sh.cut(t, coap.SZX(size))
	}
	return t, nil
}

// drop forgets a transfer.
func (sh *shard) drop(ex *exchange) {
	if ex.transfer != nil {
		sh.transferred -= ex.transfer.kept
		ex.transfer = nil
	}
}

// cut makes a transfer one of blocks. Its Request-Tag tells it from any other
// to the same server, which without the path would look like the same
// operation (RFC 9175 §3.3.2); it comes after those that the client gave.
func (sh *shard) cut(t *transfer, szx uint8) {
	tag := binary.BigEndian.AppendUint64(nil, sh.random())
	if t.cut {
		t.options = t.options[:len(t.options)-1]
	} else {
		sh.counts.transfer++
	}
	t.options = append(t.options[:len(t.options):len(t.options)], coap.Option{Number: coap.RequestTag, Value: tag})
	t.at, t.szx, t.cut = 0, szx, true
}

// block is the body of the block under way.
func (t *transfer) block() []byte {
	size := 1 << (t.szx + 4)
	end := min(t.at+size, len(t.payload))
	b := coap.Block{Num: uint32(t.at / size), More: end < len(t.payload), SZX: t.szx}
	return coap.AppendBody(nil, append(t.options[:len(t.options):len(t.options)], coap.Option{Number: coap.Block1, Value: b.Append(nil)}), t.payload[t.at:end])
}

// next takes a server's answer to a block. It reports whether another block is
// to be sent; the answer is for the client if not.
func (sh *shard) next(t *transfer, code coap.Code, body []byte, sealed bool) bool {
	if sealed {
		return false // the origin itself has answered
	}
	value, has := coap.Find(body, coap.Block1)
	b, err := coap.ParseBlock(value)
	switch {
	case code == coap.RequestEntityTooLarge && has && err == nil && b.Size() < len(t.payload) && (!t.cut || b.SZX < t.szx):
		// §2.9.3: as small as it says, from the start.
		sh.cut(t, b.SZX)
		return true
	case !t.cut:
		return false
	case code == coap.RequestEntityIncomplete && !t.again:
		// §2.9.2: the server has lost what came before.
		t.again = true
		sh.cut(t, t.szx)
		return true
	case code != coap.Continue || !has || err != nil || int(b.Num) != t.at>>(t.szx+4):
		return false
	}
	t.at += 1 << (t.szx + 4)
	if b.SZX < t.szx { // §2.3: the server wants the rest in smaller ones
		t.szx = b.SZX
	}
	return t.at < len(t.payload)
}

// continues sends the next block of an exchange whose server has answered the
// one before, and reports whether there is one.
func (sh *shard) continues(now time.Time, ex *exchange, code coap.Code, body []byte, sealed bool) bool {
	t := ex.transfer
	if t == nil || !sh.waiting.has(ex) || !sh.next(t, code, body, sealed) {
		return false
	}
	// Confirmable whatever the request was: one lost block would be the loss of all.
	if err := sh.launch(now, ex, coap.Datagram{Type: coap.Confirmable, Code: t.code, Body: t.block()}); err != nil {
		sh.count(tableFull)
		sh.fail(now, ex, overloaded())
	}
	return true
}

// tag marks the blocks that a client cuts itself with a Request-Tag of that
// client's, where they leave from a port that all clients share: blocks of two
// clients to one server would else be one operation's (RFC 9175 §3.3.2).
func (sh *shard) tag(body []byte, from *address) []byte {
	opts, payload, err := coap.Split(body)
	if err != nil {
		panic("proxy: a body of our own is malformed")
	}
	tag := binary.BigEndian.AppendUint64(nil, maphash.Comparable(sh.p.seed, *from))
	at := 0
	for i, o := range opts {
		if o.Number <= coap.RequestTag {
			at = i + 1
		}
	}
	out := make(coap.Options, 0, len(opts)+1)
	out = append(append(append(out, opts[:at]...), coap.Option{Number: coap.RequestTag, Value: tag}), opts[at:]...)
	return coap.AppendBody(nil, out, payload)
}

// withoutBlock1 is the body of a final answer to blocks, for a client that
// knows of none.
func withoutBlock1(body []byte) []byte {
	return replace(body, 0, nil, coap.Block1)
}
