package endpoint

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// receiveBlock1 takes one block of an upload. whole tells that r.inner() now is
// the whole request; otherwise res answers the block.
func (e *Endpoint) receiveBlock1(now time.Time, r *Incoming, b coap.Block) (whole bool, res Result) {
	in := r.inner()
	block := in.payload
	switch {
	case len(block) > b.Size(), b.More && len(block) != b.Size():
		return false, r.reply(coap.BadRequest, ReasonPlaintext)
	case b.Num == 0 && !b.More: // a body of one block
		in.opts = in.opts.Without(coap.Block1, coap.Size1)
		return true, res
	}
	key := cacheKey(in.code, in.opts, coap.IfNoneMatch)
	size, _ := in.opts.Uint(coap.Size1)
	if uint64(size) > uint64(e.cfg.MaxBody) || b.Offset()+len(block) > e.cfg.MaxBody {
		if s := e.find(r.Peer.Name()); s != nil {
			s.mu.Lock()
			s.transfers.dropUpload(key)
			s.mu.Unlock()
		}
		return false, r.tooLarge()
	}
	switch code := e.assemble(now, r, key, b, block); code {
	case 0:
		return true, res
	case coap.Continue:
	default:
		return false, r.reply(code, ReasonStale)
	}
	opts := coap.Options{}.Add(coap.Block1, b.Append(nil))
	if r.offerEcho {
		opts = opts.Add(coap.Echo, e.echo.value(now, r.Peer.Name()))
	}
	return false, r.sendWith(oscore.Message{Code: byte(coap.Continue), Body: coap.AppendBody(nil, opts, nil)}, "")
}

// assemble adds a block to its upload. It returns Continue, an error code, or
// 0 when r.inner() holds the whole body.
func (e *Endpoint) assemble(now time.Time, r *Incoming, key string, b coap.Block, block []byte) coap.Code {
	in := r.inner()
	s := e.state(r.Peer.Name())
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.transfers
	u := t.uploads[key]
	switch {
	case b.Num == 0:
		t.dropUpload(key)
		if len(t.uploads) >= e.cfg.MaxTransfers {
			t.expire(now, e.cfg.TransferLifetime)
			if len(t.uploads) >= e.cfg.MaxTransfers {
				return coap.ServiceUnavailable
			}
		}
		_, onlyNew := in.opts.Get(coap.IfNoneMatch)
		u = &upload{onlyNew: onlyNew}
		if t.uploads == nil {
			t.uploads = map[string]*upload{}
		}
		t.uploads[key] = u
	case u == nil:
		return coap.RequestEntityIncomplete
	case b.More && len(u.body) == b.Offset()+len(block) && bytes.Equal(u.body[b.Offset():], block):
		u.at = now
		return coap.Continue // the last block once more: its answer was lost
	case len(u.body) != b.Offset():
		t.dropUpload(key)
		return coap.RequestEntityIncomplete
	}
	for t.held+len(block) > 4*e.cfg.MaxBody && len(t.downloads) > 0 {
		t.dropOldestDownload() // it can be made anew; an upload cannot
	}
	if t.held+len(block) > 4*e.cfg.MaxBody {
		t.dropUpload(key)
		return coap.ServiceUnavailable
	}
	u.body = append(u.body, block...)
	u.at = now
	t.held += len(block)
	if b.More {
		return coap.Continue
	}
	t.dropUpload(key)
	in.opts, in.payload = in.opts.Without(coap.Block1, coap.Size1), u.body
	if _, ok := in.opts.Get(coap.IfNoneMatch); u.onlyNew && !ok {
		// Only the first block holds it (RFC 7959 §2.9.3).
		in.opts = append(coap.Options{{Number: coap.IfNoneMatch}}, in.opts...)
		slices.SortStableFunc(in.opts, func(a, b coap.Option) int { return int(a.Number) - int(b.Number) })
	}
	return 0
}

// tooLarge answers 4.13 with the size that would pass (RFC 7959 §2.9.3).
func (r *Incoming) tooLarge() Result {
	opts := coap.Options{}.AddUint(coap.Size1, uint32(r.e.cfg.MaxBody))
	return r.sendWith(oscore.Message{Code: byte(coap.RequestEntityTooLarge), Body: coap.AppendBody(nil, opts, nil)}, ReasonLimited)
}

// slice returns the block of a response that the request asks for, and keeps
// the whole for the requests to come (RFC 7959 §2.4). A response that fits one
// block is returned as it is.
func (e *Endpoint) slice(now time.Time, r *Incoming, resp request) request {
	if _, ok := resp.opts.Get(coap.Block2); ok || e.cfg.Transparent {
		return resp // the application slices by itself
	}
	fits, szx := e.limits(r.Peer, optionsSize(resp.opts))
	wish := r.marks.has&hasBlock2 != 0
	b := coap.Block{SZX: szx}
	if wish {
		b = r.marks.block2
		if szx = min(szx, b.SZX); szx < b.SZX { // keep the offset under the smaller size
			b.Num, b.SZX = b.Num<<(b.SZX-szx), szx
		}
		fits = min(fits, b.Size())
	}
	if b.Num == 0 && len(resp.payload) <= fits {
		if wish && coap.Code(resp.code).IsSuccess() {
			resp.opts = resp.opts.Add(coap.Block2, coap.Block{SZX: b.SZX}.Append(nil))
		}
		return resp
	}
	if b.Num > 0 && b.Offset() >= len(resp.payload) {
		return request{code: byte(coap.BadRequest)} // RFC 7959 §2.4: no such block
	}
	if _, ok := resp.opts.Get(coap.ETag); !ok {
		// RFC 9175 §3.8: one ETag never names two representations.
		sum := sha256.Sum256(resp.payload)
		resp.opts = resp.opts.Add(coap.ETag, sum[:8])
	}
	e.keep(now, r, resp)
	return cut(resp, b)
}

// cut makes one block out of a whole response.
func cut(resp request, b coap.Block) request {
	from := min(b.Offset(), len(resp.payload))
	to := min(from+b.Size(), len(resp.payload))
	b.More = to < len(resp.payload)
	opts := resp.opts.Without(coap.Block2).Add(coap.Block2, b.Append(nil))
	if b.Num == 0 {
		opts = opts.Without(coap.Size2).AddUint(coap.Size2, uint32(len(resp.payload)))
	}
	return request{resp.code, opts, resp.payload[from:to]}
}

// keep remembers a copy of a whole response under the request's cache key.
// Where the peer holds too much, the oldest goes; a further block of what is
// not kept is made anew (GET, FETCH) or refused.
func (e *Endpoint) keep(now time.Time, r *Incoming, whole request) {
	if len(whole.payload) > 4*e.cfg.MaxBody {
		return
	}
	key := r.downloadKey()
	d := &download{
		resp:    request{whole.code, whole.opts.Without(coap.Observe).Clone(), bytes.Clone(whole.payload)},
		options: r.options, made: now, at: now,
	}
	s := e.state(r.Peer.Name())
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.transfers
	t.dropDownload(key)
	if len(t.downloads) >= e.cfg.MaxTransfers || t.held+len(whole.payload) > 4*e.cfg.MaxBody {
		t.expire(now, e.cfg.TransferLifetime)
	}
	for len(t.downloads) > 0 && (len(t.downloads) >= e.cfg.MaxTransfers || t.held+len(whole.payload) > 4*e.cfg.MaxBody) {
		t.dropOldestDownload()
	}
	if t.held+len(whole.payload) > 4*e.cfg.MaxBody {
		return // uploads fill it
	}
	if t.downloads == nil {
		t.downloads = map[string]*download{}
	}
	t.downloads[key] = d
	t.held += len(whole.payload)
}

// downloadKey is what the request for a further block finds the response by.
// After an upload that request holds no payload (RFC 7959 §3.3), so a FETCH is
// found by its options alone then.
func (r *Incoming) downloadKey() string {
	if r.key == "" {
		in := r.inner()
		r.options = cacheKey(in.code, in.opts, coap.IfNoneMatch)
		r.key = r.options
		if r.marks.has&hasBlock1 == 0 {
			r.key = payloadKey(r.options, in.payload)
		}
	}
	return r.key
}

// nextBlock serves a further block of a response that was kept.
func (e *Endpoint) nextBlock(now time.Time, r *Incoming, b coap.Block) (oscore.Message, bool) {
	s := e.find(r.Peer.Name())
	if s == nil {
		return oscore.Message{}, false
	}
	key, payload := r.downloadKey(), r.inner().payload
	s.mu.Lock()
	d := s.transfers.downloads[key]
	if d == nil && coap.Code(r.opened.Code) == coap.FETCH && len(payload) == 0 {
		// Some clients leave a FETCH's payload out of the requests for further
		// blocks, whether it went out in blocks or not.
		d = s.transfers.newest(key)
	}
	if d != nil {
		d.at = now
	}
	s.mu.Unlock()
	if d == nil {
		return oscore.Message{}, false
	}
	_, szx := e.limits(r.Peer, optionsSize(d.resp.opts))
	if szx < b.SZX {
		b.Num, b.SZX = b.Num<<(b.SZX-szx), szx
	}
	if b.Offset() >= len(d.resp.payload) {
		return oscore.Message{Code: byte(coap.BadRequest)}, true // RFC 7959 §2.4: no such block
	}
	resp := cut(d.resp, b)
	if r.offerEcho {
		resp.opts = resp.opts.Add(coap.Echo, e.echo.value(now, r.Peer.Name()))
	}
	return resp.message(resp.payload), true
}

// blockOverhead is room for what a block needs beside its payload: Block
// option, size, ETag or Request-Tag, Echo.
const blockOverhead = 40

// limits returns the longest payload that goes to the peer in one piece beside
// options of that many bytes, and the size exponent of a block.
func (e *Endpoint) limits(p oscore.Peer, options int) (fits int, szx uint8) {
	n := p.Settings().MaxUnfragmented
	if n <= 0 {
		return e.cfg.BlockSize, coap.SZX(e.cfg.BlockSize)
	}
	fits = min(e.cfg.BlockSize, max(n-options-1, 16))
	return fits, coap.SZX(min(fits, n-options-blockOverhead))
}

// optionsSize bounds the bytes that the options take.
func optionsSize(opts coap.Options) (n int) {
	var previous uint16
	for _, o := range opts {
		n += coap.OptionSize(min(previous, o.Number), o.Number, len(o.Value))
		previous = o.Number
	}
	return n
}
