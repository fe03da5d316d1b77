package sim

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// blocks is block-wise transfer (RFC 7959) without OSCORE, both sides. Uploads
// are put together by peer and options; a response in blocks is kept, so that
// all of them are of one representation.
type blocks struct {
	size int // of this side's blocks

	mu        *sync.Mutex
	uploads   map[string]*transfer
	downloads map[string]*transfer
}

type transfer struct {
	whole packet
	at    time.Time
}

const (
	maxBody      = 1 << 20
	transferLife = 60 * time.Second
)

func newBlocks(size int) blocks {
	return blocks{size: size, mu: new(sync.Mutex), uploads: map[string]*transfer{}, downloads: map[string]*transfer{}}
}

func (b *blocks) szx() uint8 { return coap.SZX(b.size) }

func blockOf(p packet, id message.OptionID) (block coap.Block, has bool, err error) {
	v, err := p.options.GetBytes(id)
	if err != nil {
		return block, false, nil
	}
	block, err = coap.ParseBlock(v)
	return block, true, err
}

// withBlock replaces the options of block-wise transfer.
func withBlock(opts message.Options, set ...message.Option) message.Options {
	out := slices.Clone(opts)
	out = slices.DeleteFunc(out, func(o message.Option) bool {
		return o.ID == message.Block1 || o.ID == message.Block2 || o.ID == message.Size1 || o.ID == message.Size2
	})
	out = append(out, set...)
	slices.SortStableFunc(out, func(a, b message.Option) int { return int(a.ID) - int(b.ID) })
	return out
}

func blockOption(id message.OptionID, b coap.Block) message.Option {
	return message.Option{ID: id, Value: b.Append(nil)}
}

func sizeOption(id message.OptionID, n int) message.Option {
	return message.Option{ID: id, Value: coap.AppendUint(nil, uint32(n))}
}

// cacheKey is what the requests of one transfer have in common.
func cacheKey(source string, p packet) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %d", source, p.code)
	for _, o := range withBlock(p.options) {
		if o.ID != message.Observe {
			fmt.Fprintf(&b, " %d=%x", o.ID, o.Value)
		}
	}
	return b.String()
}

func downloadKey(source string, p packet) string {
	return fmt.Sprintf("%s %x", cacheKey(source, p), sha256.Sum256(p.payload))
}

// receive takes a request: whole, if it is, or done with the answer to a
// block.
func (b *blocks) receive(source string, in packet) (whole, out packet, done bool) {
	b1, has1, err1 := blockOf(in, message.Block1)
	b2, has2, err2 := blockOf(in, message.Block2)
	if err1 != nil || err2 != nil {
		return whole, packet{code: codes.BadRequest}, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expire()
	whole = in
	whole.options = withBlock(in.options)
	if has1 {
		if out, done = b.upload(source, in, &whole, b1); done {
			return whole, out, true
		}
	}
	if has2 && b2.Num > 0 {
		d := b.downloads[downloadKey(source, whole)]
		if d != nil {
			return whole, b.cut(d.whole, b2), true
		}
	}
	return whole, out, false
}

func (b *blocks) upload(source string, in packet, whole *packet, b1 coap.Block) (out packet, done bool) {
	k := cacheKey(source, in)
	u := b.uploads[k]
	bad := func(code codes.Code) (packet, bool) {
		delete(b.uploads, k)
		return packet{code: code, options: message.Options{blockOption(message.Block1, b1)}}, true
	}
	switch {
	case b1.More && len(in.payload) != b1.Size(), len(in.payload) > b1.Size():
		return bad(codes.BadRequest)
	case b1.Num == 0:
		u = &transfer{}
		b.uploads[k] = u
	case u == nil || len(u.whole.payload) != b1.Offset():
		return bad(codes.RequestEntityIncomplete)
	case b1.Offset()+len(in.payload) > maxBody:
		return bad(codes.RequestEntityTooLarge)
	}
	u.at = time.Now()
	u.whole.payload = append(u.whole.payload, in.payload...)
	if b1.More {
		return packet{code: codes.Continue, options: message.Options{blockOption(message.Block1, b1)}}, true
	}
	whole.payload = u.whole.payload
	delete(b.uploads, k)
	return packet{}, false
}

func (b *blocks) expire() {
	for _, m := range []map[string]*transfer{b.uploads, b.downloads} {
		for k, t := range m {
			if time.Since(t.at) > transferLife {
				delete(m, k)
			}
		}
	}
}

// answer returns the response to send: its block that the request asks for.
func (b *blocks) answer(source string, in, whole, resp packet) packet {
	var set []message.Option
	if b1, has, _ := blockOf(in, message.Block1); has {
		set = append(set, blockOption(message.Block1, b1))
	}
	want, has, _ := blockOf(in, message.Block2)
	want.SZX = min(want.SZX, b.szx())
	if !has {
		want = coap.Block{SZX: b.szx()}
	}
	if len(resp.payload) > want.Size() {
		if !resp.options.HasOption(message.ETag) {
			sum := sha256.Sum256(resp.payload)
			resp.options = withBlock(resp.options, message.Option{ID: message.ETag, Value: sum[:8]})
		}
		b.mu.Lock()
		b.downloads[downloadKey(source, whole)] = &transfer{resp, time.Now()}
		resp = b.cut(resp, want)
		b.mu.Unlock()
		set = append(set, blockOption(message.Block2, mustBlock(resp)))
		if v, err := resp.options.GetUint32(message.Size2); err == nil {
			set = append(set, sizeOption(message.Size2, int(v)))
		}
	} else if has && want.Num > 0 {
		return packet{code: codes.BadRequest}
	}
	resp.options = withBlock(resp.options, set...)
	return resp
}

func mustBlock(p packet) coap.Block {
	b, _, _ := blockOf(p, message.Block2) // cut has set it
	return b
}

// cut makes one block of a response.
func (b *blocks) cut(whole packet, want coap.Block) packet {
	if szx := min(want.SZX, b.szx()); szx < want.SZX {
		want.Num, want.SZX = want.Num<<(want.SZX-szx), szx
	}
	if want.Offset() >= len(whole.payload) {
		return packet{code: codes.BadRequest}
	}
	to := min(want.Offset()+want.Size(), len(whole.payload))
	want.More = to < len(whole.payload)
	set := []message.Option{blockOption(message.Block2, want)}
	if want.Num == 0 {
		set = append(set, sizeOption(message.Size2, len(whole.payload)))
	} else {
		whole.options = slices.DeleteFunc(slices.Clone(whole.options), func(o message.Option) bool { return o.ID == message.Observe })
	}
	whole.options = withBlock(whole.options, set...)
	whole.payload = whole.payload[want.Offset():to]
	return whole
}

// send sends a request by do, in blocks if its payload is larger than one, and
// returns the whole response.
func (b *blocks) send(req packet, do func(packet) (packet, error)) (packet, error) {
	if len(req.payload) <= b.size {
		in, err := do(req)
		if err != nil {
			return in, err
		}
		return b.rest(req, in, do)
	}
	szx := b.szx()
	for from := 0; ; {
		block := coap.Block{Num: uint32(from >> (szx + 4)), SZX: szx}
		to := min(from+block.Size(), len(req.payload))
		block.More = to < len(req.payload)
		set := []message.Option{blockOption(message.Block1, block)}
		if from == 0 {
			set = append(set, sizeOption(message.Size1, len(req.payload)))
		}
		in, err := do(packet{req.code, withBlock(req.options, set...), req.payload[from:to]})
		if err != nil {
			return in, err
		}
		got, has, err := blockOf(in, message.Block1)
		if err != nil || block.More && in.code == codes.Continue && !has {
			return in, errBlocks
		}
		if !block.More || in.code != codes.Continue {
			return b.rest(req, in, do)
		}
		// A smaller size takes effect for what follows (RFC 7959 §2.5).
		szx = min(szx, got.SZX)
		from = to
	}
}

// rest fetches the blocks of a response that follow its first.
func (b *blocks) rest(req, in packet, do func(packet) (packet, error)) (packet, error) {
	first, has, err := blockOf(in, message.Block2)
	if err != nil || has && first.Num != 0 {
		return in, errBlocks
	}
	if !has || !first.More {
		in.options = withBlock(in.options)
		return in, nil
	}
	etag, _ := in.options.GetBytes(message.ETag)
	whole := in
	payload := req.payload
	if req.code != codes.FETCH {
		payload = nil
	}
	for block := first; block.More; {
		next := coap.Block{Num: uint32(len(whole.payload) >> (block.SZX + 4)), SZX: block.SZX}
		if in, err = do(packet{req.code, withBlock(req.options, blockOption(message.Block2, next)), payload}); err != nil {
			return in, err
		}
		if in.code != whole.code {
			return in, nil // the peer's error answers the whole
		}
		got, has, err := blockOf(in, message.Block2)
		tag, _ := in.options.GetBytes(message.ETag)
		if err != nil || !has || got.Offset() != len(whole.payload) || !bytes.Equal(tag, etag) || len(whole.payload)+len(in.payload) > maxBody {
			return in, errBlocks
		}
		whole.payload = append(slices.Clip(whole.payload), in.payload...)
		block = got
	}
	whole.options = withBlock(whole.options)
	return whole, nil
}
