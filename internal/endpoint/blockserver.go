package endpoint

import (
	"crypto/sha256"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// upload is a request body under assembly from inner Block1 options (RFC 7959
// §2.5), of one peer, cache key and Request-Tag (RFC 9175 §3.3).
type upload struct {
	body []byte
	at   time.Time
}

// download is a response body of which further blocks may be asked for.
type download struct {
	resp request // whole, without Block2
	at   time.Time
}

// receiveBlock1 takes one block of an upload. whole tells that r.inner now is
// the whole request; otherwise res answers the block.
func (e *Endpoint) receiveBlock1(now time.Time, r *Incoming, b coap.Block) (whole bool, res Result) {
	r.block1, r.hasBlock1 = b, true
	block := r.inner.payload
	switch {
	case len(block) > b.Size(), b.More && len(block) != b.Size():
		return false, r.reply(coap.BadRequest, ReasonPlaintext)
	case b.Num == 0 && !b.More: // a body of one block
		r.dropBlock1(block)
		return true, res
	}
	if size, ok := r.inner.opts.Uint(coap.Size1); ok && uint64(size) > uint64(e.cfg.MaxBody) || b.Offset()+len(block) > e.cfg.MaxBody {
		e.mu.Lock()
		e.state(r.Peer.Name()).dropUpload(cacheKey(r.inner.code, r.inner.opts))
		e.mu.Unlock()
		return false, r.tooLarge()
	}
	code := e.assemble(now, r, b, block)
	switch {
	case code == 0:
		return true, res
	case code != coap.Continue:
		return false, r.reply(code, ReasonStale)
	}
	opts := coap.Options{}.Add(coap.Block1, b.Append(nil))
	if r.offerEcho {
		opts = opts.Add(coap.Echo, e.echo.value(now, r.Peer.Name()))
	}
	return false, r.sendWith(oscore.Message{Code: byte(coap.Continue), Body: coap.AppendBody(nil, opts, nil)}, "")
}

// assemble adds a block to its upload. It returns Continue, an error code, or
// 0 when r.inner holds the whole body.
func (e *Endpoint) assemble(now time.Time, r *Incoming, b coap.Block, block []byte) coap.Code {
	key := cacheKey(r.inner.code, r.inner.opts)
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state(r.Peer.Name())
	u := s.uploads[key]
	if b.Num == 0 {
		s.dropUpload(key)
		if len(s.uploads) >= e.cfg.MaxTransfers {
			s.expireAt(now, e.cfg.TransferLifetime)
			if len(s.uploads) >= e.cfg.MaxTransfers {
				return coap.ServiceUnavailable
			}
		}
		u = &upload{}
		if s.uploads == nil {
			s.uploads = map[string]*upload{}
		}
		s.uploads[key] = u
	}
	if u == nil || len(u.body) != b.Offset() {
		s.dropUpload(key)
		return coap.RequestEntityIncomplete
	}
	if s.transferred+len(block) > 4*e.cfg.MaxBody {
		s.dropUpload(key)
		return coap.ServiceUnavailable
	}
	u.body = append(u.body, block...)
	u.at = now
	s.transferred += len(block)
	if b.More {
		return coap.Continue
	}
	whole := u.body
	s.dropUpload(key)
	r.dropBlock1(whole)
	return 0
}

// dropBlock1 makes the assembled body the request's payload.
func (r *Incoming) dropBlock1(body []byte) {
	r.inner.opts = r.inner.opts.Without(coap.Block1, coap.Size1)
	r.inner.payload = body
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
	szx := coap.SZX(e.blockSize(r.Peer))
	if r.wantsBlock2 {
		szx = min(szx, r.block2.SZX)
	}
	size := coap.Block{SZX: szx}.Size()
	_, handlers := resp.opts.Get(coap.Block2) // the application slices by itself
	num := r.block2.Num
	if handlers || len(resp.payload) <= size && num == 0 {
		if r.wantsBlock2 && !handlers && coap.Code(resp.code).IsSuccess() {
			resp.opts = resp.opts.Add(coap.Block2, coap.Block{SZX: szx}.Append(nil))
		}
		return resp
	}
	whole := resp
	whole.opts = resp.opts.Without(coap.Observe)
	if _, ok := whole.opts.Get(coap.ETag); !ok {
		// RFC 9175 §3.8: one ETag never names two representations.
		sum := sha256.Sum256(whole.payload)
		whole.opts = whole.opts.Add(coap.ETag, sum[:8])
		resp.opts = resp.opts.Add(coap.ETag, sum[:8])
	}
	e.keep(now, r, whole)
	b := coap.Block{Num: num, SZX: szx}
	if r.wantsBlock2 {
		b = r.block2
		if szx < b.SZX { // keep the offset under the smaller size
			b.Num, b.SZX = b.Num<<(b.SZX-szx), szx
		}
	}
	if b.Offset() >= len(resp.payload) && num > 0 {
		return request{code: byte(coap.BadRequest)} // RFC 7959 §2.4: no such block
	}
	return cut(resp, b)
}

// cut makes one block out of a whole response. A block beyond the end is empty.
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

// keep remembers a whole response under the request's cache key. It is dropped
// silently when the peer holds too much: a further block is then made anew
// (GET, FETCH) or refused.
func (e *Endpoint) keep(now time.Time, r *Incoming, whole request) {
	key := e.downloadKey(r)
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state(r.Peer.Name())
	s.dropDownload(key)
	if len(s.downloads) >= e.cfg.MaxTransfers || s.transferred+len(whole.payload) > 4*e.cfg.MaxBody {
		s.expireAt(now, e.cfg.TransferLifetime)
		s.dropOldestDownload()
	}
	if s.transferred+len(whole.payload) > 4*e.cfg.MaxBody {
		return
	}
	if s.downloads == nil {
		s.downloads = map[string]*download{}
	}
	s.downloads[key] = &download{resp: whole, at: now}
	s.transferred += len(whole.payload)
}

// downloadKey is what the request for a further block finds the response by.
// After an upload that request holds no payload (RFC 7959 §3.3), so a FETCH is
// found by its options alone then.
func (e *Endpoint) downloadKey(r *Incoming) string {
	if r.hasBlock1 {
		return cacheKey(r.inner.code, r.inner.opts)
	}
	return r.key
}

// nextBlock serves a further block of a response that was kept.
func (e *Endpoint) nextBlock(now time.Time, r *Incoming, b coap.Block) (oscore.Message, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state(r.Peer.Name())
	d := s.downloads[e.downloadKey(r)]
	if d == nil || b.Offset() >= len(d.resp.payload) {
		return oscore.Message{}, false
	}
	d.at = now
	if szx := coap.SZX(e.blockSize(r.Peer)); szx < b.SZX {
		b.Num, b.SZX = b.Num<<(b.SZX-szx), szx
	}
	resp := cut(d.resp, b)
	return resp.message(resp.payload), true
}

// blockSize returns the largest block sent to the peer, in bytes.
func (e *Endpoint) blockSize(p oscore.Peer) int {
	size := e.cfg.BlockSize
	if n := p.Settings().MaxUnfragmented; n > 0 {
		size = min(size, n)
	}
	return max(size, 16)
}

func (s *peerState) dropUpload(key string) {
	if u := s.uploads[key]; u != nil {
		s.transferred -= len(u.body)
		delete(s.uploads, key)
	}
}

func (s *peerState) dropDownload(key string) {
	if d := s.downloads[key]; d != nil {
		s.transferred -= len(d.resp.payload)
		delete(s.downloads, key)
	}
}

func (s *peerState) dropOldestDownload() {
	oldest := ""
	for key, d := range s.downloads {
		if oldest == "" || d.at.Before(s.downloads[oldest].at) {
			oldest = key
		}
	}
	s.dropDownload(oldest)
}

// expireAt drops transfers that were idle for longer than the lifetime.
func (s *peerState) expireAt(now time.Time, lifetime time.Duration) {
	for key, u := range s.uploads {
		if now.Sub(u.at) > lifetime {
			s.dropUpload(key)
		}
	}
	for key, d := range s.downloads {
		if now.Sub(d.at) > lifetime {
			s.dropDownload(key)
		}
	}
}
