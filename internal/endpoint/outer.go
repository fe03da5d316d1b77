package endpoint

import (
	"bytes"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Reassembler puts the outer blocks of protected messages together (RFC 8613
// §4.1.3.4.2): a hop cut what an endpoint had sealed whole. Nothing vouches for
// a block before the whole is opened, so a message is bounded by
// MAX_UNFRAGMENTED_SIZE, and all messages under assembly by a fixed number of
// bytes. It is safe for concurrent use.
type Reassembler struct {
	max      int
	total    int
	lifetime time.Duration

	mu    sync.Mutex
	parts map[string]*part
	held  int
}

// maxParts bounds the messages under assembly, whatever their length.
const maxParts = 4096

// part is a message under assembly.
type part struct {
	opts coap.Options
	body []byte
	at   time.Time
}

// NewReassembler returns a reassembler for messages whose ciphertext is up to
// max bytes (MAX_UNFRAGMENTED_SIZE), holding at most total bytes of all
// together, each for the lifetime after its last block.
func NewReassembler(max, total int, lifetime time.Duration) *Reassembler {
	return &Reassembler{max: max, total: total, lifetime: lifetime, parts: map[string]*part{}}
}

// Request takes a protected request. whole tells that out is a request without
// outer Block1, to be opened; otherwise out answers the block: 2.31, 4.08 or
// 4.13. Blocks belong together by source, outer cache key, which holds the
// OSCORE option, and Request-Tag.
func (a *Reassembler) Request(now time.Time, source string, m oscore.Message) (out oscore.Message, whole bool) {
	r, err := parse(m)
	if err != nil {
		return oscore.Message{Code: byte(coap.BadRequest)}, false
	}
	b, isBlock, err := r.block(coap.Block1)
	switch {
	case err != nil:
		return oscore.Message{Code: byte(coap.BadOption)}, false
	case !isBlock:
		return m, true
	}
	opts := r.opts.Without(coap.Block1, coap.Size1)
	code := a.add(now, source+"\x00"+cacheKey(r.code, opts), opts, b, r.payload)
	if code == 0 {
		return a.finish(source+"\x00"+cacheKey(r.code, opts), r.code), true
	}
	reply := coap.Options{}.Add(coap.Block1, b.Append(nil))
	if code == coap.RequestEntityTooLarge {
		reply = reply.AddUint(coap.Size1, uint32(a.max))
	}
	return oscore.Message{Code: byte(code), Body: coap.AppendBody(nil, reply, nil)}, false
}

// Response takes a protected response under the exchange named by key. whole
// tells that out is the response without outer Block2. Otherwise next is the
// block to ask the hop for, under the same request; ok is false when the blocks
// do not fit together or are too large, and the message is to be dropped.
func (a *Reassembler) Response(now time.Time, key string, m oscore.Message) (out oscore.Message, whole bool, next coap.Block, ok bool) {
	r, err := parse(m)
	if err != nil {
		return out, false, next, false
	}
	b, isBlock, err := r.block(coap.Block2)
	switch {
	case err != nil:
		return out, false, next, false
	case !isBlock:
		return m, true, next, true
	}
	switch a.add(now, key, r.opts.Without(coap.Block2, coap.Size2), b, r.payload) {
	case 0:
		return a.finish(key, r.code), true, next, true
	case coap.Continue:
		return out, false, coap.Block{Num: b.Num + 1, SZX: b.SZX}, true
	}
	return out, false, next, false
}

// add takes one block. It returns 0 when the message is whole, Continue, or an
// error code after which nothing of the message is left.
func (a *Reassembler) add(now time.Time, key string, opts coap.Options, b coap.Block, payload []byte) coap.Code {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b.Num == 0 {
		a.drop(key)
		if len(a.parts) >= maxParts {
			a.expire(now)
			if len(a.parts) >= maxParts {
				return coap.ServiceUnavailable
			}
		}
		a.parts[key] = &part{opts: opts.Clone(), at: now}
	}
	p := a.parts[key]
	switch {
	case p == nil:
		return coap.RequestEntityIncomplete
	case b.More && b.Num > 0 && len(payload) == b.Size() && len(p.body) == b.Offset()+len(payload) && bytes.HasSuffix(p.body, payload):
		return coap.Continue // the last block again: its answer was lost
	case len(p.body) != b.Offset(), b.More && len(payload) != b.Size(), len(payload) > b.Size():
		a.drop(key)
		return coap.RequestEntityIncomplete
	case len(p.body)+len(payload) > a.max:
		a.drop(key)
		return coap.RequestEntityTooLarge
	}
	if a.held+len(payload) > a.total {
		a.expire(now)
		if a.held+len(payload) > a.total {
			a.drop(key)
			return coap.ServiceUnavailable
		}
	}
	p.body = append(p.body, payload...)
	p.at = now
	a.held += len(payload)
	if b.More {
		return coap.Continue
	}
	return 0
}

// finish takes a whole message out.
func (a *Reassembler) finish(key string, code byte) oscore.Message {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.parts[key]
	if p == nil {
		return oscore.Message{} // taken out by a concurrent first block
	}
	a.drop(key)
	return oscore.Message{Code: code, Body: coap.AppendBody(nil, p.opts, p.body)}
}

func (a *Reassembler) drop(key string) {
	if p := a.parts[key]; p != nil {
		a.held -= len(p.body)
		delete(a.parts, key)
	}
}

func (a *Reassembler) expire(now time.Time) {
	for key, p := range a.parts {
		if now.Sub(p.at) > a.lifetime {
			a.drop(key)
		}
	}
}
