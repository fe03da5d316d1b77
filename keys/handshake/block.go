package handshake

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// maxBlock is the largest block, in bytes.
const maxBlock = 1024

// answers hold what is left of responses above one block, one for each source
// (RFC 7959 §2.4), for the client to ask for.
type answers struct {
	mu   sync.Mutex
	rest map[string]answer
}

type answer struct {
	code byte
	opts coap.Options
	body []byte
	at   time.Time
}

// maxAnswers bounds the responses held; each has at most edhoc.MaxMessage bytes.
const maxAnswers = 64

// cut returns a response as it goes out: acknowledging the request's last
// block, and cut to its first block if it is longer than one.
func (a *answers) cut(now time.Time, source string, block1 []byte, m oscore.Message) oscore.Message {
	opts, payload, err := coap.Split(m.Body)
	if err != nil {
		return m // our own: it parses
	}
	if block1 != nil {
		opts = opts.Add(coap.Block1, block1)
	}
	if len(payload) > maxBlock {
		a.mu.Lock()
		if a.rest == nil {
			a.rest = map[string]answer{}
		}
		for other, r := range a.rest {
			if len(a.rest) < maxAnswers {
				break
			}
			if now.Sub(r.at) > 10*time.Second || len(a.rest) >= 2*maxAnswers {
				delete(a.rest, other)
			}
		}
		if len(a.rest) < 2*maxAnswers {
			a.rest[source] = answer{m.Code, opts.Without(coap.Block1), payload, now}
		}
		a.mu.Unlock()
		opts = opts.Add(coap.Block2, coap.Block{More: true, SZX: coap.SZX(maxBlock)}.Append(nil)).AddUint(coap.Size2, uint32(len(payload)))
		payload = payload[:maxBlock]
	}
	return oscore.Message{Code: m.Code, Body: coap.AppendBody(nil, opts, payload)}
}

// next answers a request for a further block.
func (a *answers) next(now time.Time, source string, request coap.Options) (oscore.Message, bool) {
	v, ok := request.Get(coap.Block2)
	if !ok {
		return oscore.Message{}, false
	}
	b, err := coap.ParseBlock(v)
	if err != nil {
		return oscore.Message{Code: byte(coap.BadRequest)}, true
	}
	if b.Num == 0 {
		return oscore.Message{}, false // a wish for a size: ours is the largest there is
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r, ok := a.rest[source]
	if !ok || b.Offset() >= len(r.body) {
		return oscore.Message{Code: byte(coap.RequestEntityIncomplete)}, true
	}
	part := r.body[b.Offset():]
	if b.More = len(part) > b.Size(); b.More {
		part = part[:b.Size()]
	} else {
		delete(a.rest, source)
	}
	return oscore.Message{Code: r.code, Body: coap.AppendBody(nil, r.opts.Add(coap.Block2, b.Append(nil)), part)}, true
}

// ErrTransfer: the server broke the rules of block-wise transfer.
var ErrTransfer = errors.New("handshake: block-wise transfer failed")

// transfer is one POST of the client's and its answer, in blocks where they
// are longer than one.
type transfer struct {
	opts coap.Options
	body []byte
	sent int // bytes of body sent
	szx  uint8
	got  []byte
}

func newTransfer(path []string, echo, body []byte) *transfer {
	var opts coap.Options
	for _, p := range path {
		opts = opts.Add(coap.URIPath, []byte(p))
	}
	if len(body) > 0 {
		opts = opts.AddUint(coap.ContentFormat, formatCIDEDHOC)
	}
	if echo != nil {
		opts = opts.Add(coap.Echo, echo)
	}
	return &transfer{opts: opts, body: body, szx: coap.SZX(maxBlock)}
}

// request returns the next message to send. reliable sends all at once.
func (t *transfer) request(reliable bool) oscore.Message {
	opts, part := t.opts, t.body[t.sent:]
	size := 1 << (t.szx + 4)
	switch {
	case len(t.got) > 0: // ask for a further block of the answer
		b := coap.Block{Num: uint32(len(t.got) / size), SZX: t.szx}
		opts, part = opts.Without(coap.ContentFormat).Add(coap.Block2, b.Append(nil)), nil
	case !reliable && len(t.body) > maxBlock:
		b := coap.Block{Num: uint32(t.sent / size), More: len(part) > size, SZX: t.szx}
		part = part[:min(size, len(part))]
		opts = opts.Add(coap.Block1, b.Append(nil))
		t.sent += len(part)
	default:
		t.sent = len(t.body)
	}
	return oscore.Message{Code: byte(coap.POST), Body: coap.AppendBody(nil, opts, part)}
}

// response takes an answer; whole tells that it is all there, else the next
// request is due.
func (t *transfer) response(m oscore.Message) (opts coap.Options, payload []byte, whole bool, err error) {
	opts, payload, err = coap.Split(m.Body)
	if err != nil {
		return nil, nil, false, fmt.Errorf("%w: %w", ErrTransfer, err)
	}
	if coap.Code(m.Code) == coap.Continue {
		v, ok := opts.Get(coap.Block1)
		b, err := coap.ParseBlock(v)
		if !ok || err != nil || t.sent >= len(t.body) {
			return nil, nil, false, fmt.Errorf("%w: 2.31 (Continue) out of place", ErrTransfer)
		}
		t.szx = min(t.szx, b.SZX)
		return nil, nil, false, nil
	}
	v, ok := opts.Get(coap.Block2)
	if !ok {
		return opts, payload, true, nil
	}
	b, err := coap.ParseBlock(v)
	switch {
	case err != nil, b.Offset() != len(t.got), b.More && len(payload) != b.Size(), len(t.got)+len(payload) > MaxMessage:
		return nil, nil, false, fmt.Errorf("%w: Block2 does not follow what came before", ErrTransfer)
	}
	t.got, t.szx = append(t.got, payload...), b.SZX
	return opts, t.got, !b.More, nil
}

// segments returns the segments of a path.
func segments(path string) (out []string) {
	start := 1
	for i := 1; i <= len(path); i++ {
		if i == len(path) || path[i] == '/' {
			out = append(out, path[start:i])
			start = i + 1
		}
	}
	return out
}
