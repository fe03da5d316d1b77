package endpoint

import (
	"bytes"
	"container/list"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Reassembler puts the outer blocks of protected messages together (RFC 8613
// §4.1.3.4.2): a hop cut what an endpoint had sealed whole. Nothing vouches for
// a block before the whole is opened, so a message is bounded by
// MAX_UNFRAGMENTED_SIZE, and all messages under assembly by a number of bytes,
// everything counted. Where they are spent the message idle for longest makes
// room: a flood has to outrun the round trip of a genuine transfer, and cannot
// lock it out by what it left behind. It is safe for concurrent use.
type Reassembler struct {
	max      int
	total    int
	lifetime time.Duration

	mu    sync.Mutex
	parts map[string]*list.Element // of *part
	idle  list.List                // longest first
	held  int
}

// part is a message under assembly.
type part struct {
	key  string
	opts coap.Options
	body []byte
	size int // of what it holds beside body
	at   time.Time
}

// partOverhead is what a part costs beside its bytes.
const partOverhead = 512

func (p *part) cost() int { return p.size + cap(p.body) }

// NewReassembler returns a reassembler for messages whose ciphertext is up to
// max bytes (MAX_UNFRAGMENTED_SIZE), holding at most total bytes of all
// together, each for the lifetime after its last block.
func NewReassembler(max, total int, lifetime time.Duration) *Reassembler {
	return &Reassembler{max: max, total: total, lifetime: lifetime, parts: map[string]*list.Element{}}
}

// Request takes a protected request. whole tells that out is a request without
// outer Block1, to be opened; otherwise out answers the block: 2.31, 4.08 or
// 4.13. Blocks belong together by source, outer cache key, which holds the
// OSCORE option, and Request-Tag.
func (a *Reassembler) Request(now time.Time, source string, m oscore.Message) (out oscore.Message, whole bool) {
	k, code := scan(m.Body)
	if code != 0 {
		return oscore.Message{Code: byte(code)}, false
	}
	if k.has&hasBlock1 == 0 {
		return m, true
	}
	r, _ := parse(m) // scan has walked it
	opts := r.opts.Without(coap.Block1, coap.Size1)
	size, _ := r.opts.Uint(coap.Size1)
	key := "request\x00" + source + "\x00" + outerKey(r.code, opts)
	code = coap.RequestEntityTooLarge
	if uint64(size) <= uint64(a.max) {
		out, code = a.add(now, key, r.code, opts, k.block1, r.payload)
	}
	if code == 0 {
		return out, true
	}
	reply := coap.Options{}.Add(coap.Block1, k.block1.Append(nil))
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
	k, code := scan(m.Body)
	if code != 0 {
		return out, false, next, false
	}
	if k.has&hasBlock2 == 0 {
		return m, true, next, true
	}
	r, _ := parse(m) // scan has walked it
	out, code = a.add(now, "response\x00"+key, r.code, r.opts.Without(coap.Block2, coap.Size2), k.block2, r.payload)
	switch code {
	case 0:
		return out, true, next, true
	case coap.Continue:
		return out, false, coap.Block{Num: k.block2.Num + 1, SZX: k.block2.SZX}, true
	}
	return out, false, next, false
}

// add takes one block. It returns the whole message and 0, or Continue, or an
// error code after which nothing of the message is left.
func (a *Reassembler) add(now time.Time, key string, code byte, opts coap.Options, b coap.Block, payload []byte) (oscore.Message, coap.Code) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var none oscore.Message
	a.expire(now)
	el := a.parts[key]
	switch {
	case b.Num == 0:
		a.drop(el)
		opts = opts.Clone()
		p := &part{key: key, opts: opts, size: partOverhead + 2*len(key)}
		for _, o := range opts {
			p.size += len(o.Value) + 32
		}
		el = a.idle.PushBack(p)
		a.parts[key] = el
		a.held += p.cost()
	case el == nil:
		return none, coap.RequestEntityIncomplete
	}
	p := el.Value.(*part)
	switch {
	case b.More && b.Num > 0 && len(payload) == b.Size() && len(p.body) == b.Offset()+len(payload) && bytes.HasSuffix(p.body, payload):
		return none, coap.Continue // the last block again: its answer was lost
	case len(p.body) != b.Offset(), b.More && len(payload) != b.Size(), len(payload) > b.Size():
		a.drop(el)
		return none, coap.RequestEntityIncomplete
	case len(p.body)+len(payload) > a.max:
		a.drop(el)
		return none, coap.RequestEntityTooLarge
	}
	a.held -= p.cost()
	p.body = append(p.body, payload...)
	a.held += p.cost()
	p.at = now
	a.idle.MoveToBack(el)
	for a.held > a.total {
		oldest := a.idle.Front()
		a.drop(oldest)
		if oldest == el {
			return none, coap.ServiceUnavailable
		}
	}
	if b.More {
		return none, coap.Continue
	}
	a.drop(el)
	return oscore.Message{Code: code, Body: coap.AppendBody(nil, p.opts, p.body)}, 0
}

// expire drops what has been idle for longer than the lifetime.
func (a *Reassembler) expire(now time.Time) {
	for el := a.idle.Front(); el != nil && now.Sub(el.Value.(*part).at) > a.lifetime; el = a.idle.Front() {
		a.drop(el)
	}
}

func (a *Reassembler) drop(el *list.Element) {
	if el == nil {
		return
	}
	p := el.Value.(*part)
	a.held -= p.cost()
	delete(a.parts, p.key)
	a.idle.Remove(el)
}
