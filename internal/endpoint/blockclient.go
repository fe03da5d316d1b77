package endpoint

import (
	"bytes"
	"encoding/binary"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// clientUpload is a request body going out in inner blocks (RFC 7959 §2.5).
type clientUpload struct {
	offset int
	szx    uint8
	sent   int // bytes of the block under way
	tag    []byte
	tagged bool
	key    string
	done   bool // the response to the whole request came
}

// beginUpload turns the exchange's request into a block-wise one.
//
// It carries a new Request-Tag unless the absence of one can tell its blocks
// from all earlier ones that might still arrive (RFC 9175 §3.5.1): every
// upload of the cache key under this context was of this process and has
// concluded. What a process before this one left unanswered is not known.
func (x *Exchange) beginUpload(szx uint8) error {
	r := x.base()
	if len(r.payload) > coap.MaxBlockNum<<(szx+4) {
		return ErrTooLarge
	}
	u := &clientUpload{szx: szx, key: cacheKey(r.code, r.opts, coap.IfNoneMatch)}
	s := x.e.state(x.peer.Name())
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.clean || s.tags[u.key] || len(s.tags) >= maxTags {
		u.tag, u.tagged = x.e.newTag(), true
	} else {
		if s.tags == nil {
			s.tags = map[string]bool{}
		}
		s.tags[u.key] = true
	}
	x.upload = u
	return nil
}

// newTag returns a Request-Tag that was never used: random bytes of the
// process, and a count.
func (e *Endpoint) newTag() []byte {
	n := binary.BigEndian.AppendUint32(nil, e.nextTag.Add(1))
	return append(e.tagBase[:len(e.tagBase):len(e.tagBase)], bytes.TrimLeft(n, "\x00")...)
}

// maxTags bounds the cache keys whose last upload did not conclude; beyond it
// every upload is tagged.
const maxTags = 64

// conclude frees the untagged value once the operation has ended: its last
// response came, and replay protection keeps its messages from being accepted
// again (RFC 9175 §3.5.1). After an abandoned one the value stays taken.
func (u *clientUpload) conclude(x *Exchange, concluded bool) {
	if u.tagged || !concluded {
		return
	}
	s := x.e.state(x.peer.Name())
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tags, u.key)
}

// block returns the request for the block that the upload is at.
func (u *clientUpload) block(base request) (request, []byte) {
	size := coap.Block{SZX: u.szx}.Size()
	to := min(u.offset+size, len(base.payload))
	u.sent = to - u.offset
	b := coap.Block{Num: uint32(u.offset / size), More: to < len(base.payload), SZX: u.szx}
	opts := base.opts
	if b.Num > 0 {
		opts = opts.Without(coap.IfNoneMatch) // RFC 7959 §2.9.3
	}
	opts = append(coap.Options{}, opts...).Add(coap.Block1, b.Append(nil))
	if b.Num == 0 {
		opts = opts.AddUint(coap.Size1, uint32(len(base.payload)))
	}
	if u.tagged {
		opts = opts.Add(coap.RequestTag, u.tag)
	}
	return request{base.code, opts, nil}, base.payload[u.offset:to]
}

// receiveBlock1 processes a response as the answer to a block of the request.
// done tells that it answers the whole.
//
//	2.31 ─► the next block          4.13 with a smaller size ─► again in smaller blocks
//	success with Block1, not to the last block (a server without memory of
//	     earlier blocks, RFC 7959 §3.2) ─► the next block
//	4.08 ─► the server lost the earlier blocks: from the beginning
//	anything else ─► the response
func (x *Exchange) receiveBlock1(resp request, k marks) (step Step, done bool) {
	u, code, total := x.upload, coap.Code(resp.code), len(x.base().payload)
	smaller := code == coap.RequestEntityTooLarge && k.has&hasBlock1 != 0 && !x.manual()
	switch {
	case u == nil && smaller && k.block1.Size() < total:
		if err := x.beginUpload(k.block1.SZX); err != nil {
			return x.fail(err), false
		}
		return x.resend(), false
	case u == nil && code == coap.Continue && !x.manual():
		return x.fail(ErrTransfer), false
	case u == nil || u.done:
		return Step{}, true
	}
	last := u.offset+u.sent == total
	switch {
	case smaller && k.block1.SZX < u.szx:
		u.szx, u.offset = k.block1.SZX, 0 // RFC 7959 §2.9.3
		if total > coap.MaxBlockNum<<(u.szx+4) {
			return x.fail(ErrTooLarge), false
		}
		return x.resend(), false
	case code == coap.RequestEntityIncomplete && x.restarts < maxRestarts:
		x.restarts++
		u.offset = 0
		return x.resend(), false
	case code != coap.Continue && (last || !code.IsSuccess()):
		u.done = true
		if code.IsSuccess() {
			x.progressed(total, total)
		}
		return Step{}, true
	case last, k.has&hasBlock1 == 0, k.block1.Offset() != u.offset && k.block1.Num != uint32(u.offset>>(u.szx+4)):
		return x.fail(ErrTransfer), false
	}
	u.offset += u.sent
	u.szx = min(u.szx, k.block1.SZX)
	if total > coap.MaxBlockNum<<(u.szx+4) {
		return x.fail(ErrTooLarge), false
	}
	x.progressed(u.offset, total)
	return x.resend(), false
}

func (x *Exchange) progressed(done, total int) {
	if x.progress != nil {
		x.progress(done, total)
	}
}

// clientDownload is a response body coming in inner blocks (RFC 7959 §2.4).
type clientDownload struct {
	resp  request // the first block's code and options
	body  []byte
	etag  []byte
	szx   uint8
	fresh bool // begin anew: no block number, no block yet
}

// maxRestarts bounds how often an exchange is begun anew, because its body
// changes under way or the server lost it.
const maxRestarts = 3

// restart begins a download anew, with the body of the request if that had
// gone out in blocks. Only a request that changes nothing may be repeated.
func (x *Exchange) restart() Step {
	if x.restarts++; unsafe(x.request.Code) || x.restarts > maxRestarts {
		return x.fail(ErrTransfer)
	}
	if u := x.upload; u != nil {
		u.offset, u.done, x.download = 0, false, nil
	} else {
		x.download = &clientDownload{fresh: true}
	}
	return x.resend()
}

// receiveBlock2 takes one block of a response. whole tells that the download
// holds it all; otherwise step goes on.
func (x *Exchange) receiveBlock2(resp request, b coap.Block) (step Step, whole bool) {
	d := x.download
	if d == nil {
		d = &clientDownload{fresh: true}
		x.download = d
	}
	etag, _ := resp.opts.Get(coap.ETag)
	switch {
	case d.fresh && b.Num == 0:
		d.begin(resp, etag)
	case d.fresh, resp.code != d.resp.code, !bytes.Equal(etag, d.etag):
		// The representation changed under way, or the server lost it.
		if !coap.Code(resp.code).IsSuccess() {
			return x.fail(ErrTransfer), false
		}
		return x.restart(), false
	}
	size, _ := d.resp.opts.Uint(coap.Size2)
	switch {
	case b.Offset() != len(d.body), b.More && len(resp.payload) != b.Size(), len(resp.payload) > b.Size():
		return x.fail(ErrTransfer), false
	case len(d.body)+len(resp.payload) > x.e.cfg.MaxBody, uint64(size) > uint64(x.e.cfg.MaxBody):
		return x.fail(ErrTooLarge), false
	}
	d.body = append(d.body, resp.payload...)
	d.szx = b.SZX
	total := int(size)
	switch {
	case !b.More:
		total = len(d.body)
	case total < len(d.body):
		total = 0 // unknown
	}
	x.progressed(len(d.body), total)
	if !b.More {
		d.resp.opts = d.resp.opts.Without(coap.Block2, coap.Size2)
		return Step{}, true
	}
	if len(d.body)>>(d.szx+4) > coap.MaxBlockNum {
		return x.fail(ErrTooLarge), false
	}
	return x.resend(), false
}

func (d *clientDownload) begin(resp request, etag []byte) {
	d.fresh, d.resp, d.body, d.etag = false, resp, nil, bytes.Clone(etag)
}

// next returns the request for the download's next block: the application's,
// without Observe and without the body of an upload (RFC 7959 §3.3).
func (d *clientDownload) next(x *Exchange) (request, []byte) {
	base := x.base()
	opts, payload := base.opts.Without(coap.Observe), base.payload
	if u := x.upload; u != nil {
		payload = nil
		if u.tagged {
			opts = opts.Add(coap.RequestTag, u.tag)
		}
	}
	if unsafe(base.code) {
		payload = nil
	}
	if !d.fresh {
		b := coap.Block{Num: uint32(len(d.body) >> (d.szx + 4)), SZX: d.szx}
		opts = opts.Add(coap.Block2, b.Append(nil))
	}
	return request{base.code, opts, nil}, payload
}

// continueNotification begins an exchange for the further blocks of a
// notification: a GET or FETCH without Observe (RFC 7959 §3.4).
func (x *Exchange) continueNotification(resp request, b coap.Block) Step {
	x.answered = true
	base := x.base()
	base.opts = base.opts.Without(coap.Observe)
	more := &Exchange{e: x.e, peer: x.peer, request: base.message(base.payload), progress: x.progress}
	if x.upload != nil {
		more.upload = &clientUpload{szx: x.upload.szx, tag: x.upload.tag, tagged: x.upload.tagged, done: true}
	}
	more.notification, _ = resp.opts.Get(coap.Observe)
	resp.opts = resp.opts.Without(coap.Observe)
	step, whole := more.receiveBlock2(resp, b)
	if whole || step.Kind != Send {
		more.close()
		return x.wait(ErrTransfer) // a bad block does not end the observation (RFC 8613 §8.4.2)
	}
	return Step{Kind: Notification, Message: step.Message, More: more}
}
