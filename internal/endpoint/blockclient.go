package endpoint

import (
	"bytes"
	"encoding/binary"
	"time"

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
}

// beginUpload turns the exchange's request into a block-wise one. It carries a
// Request-Tag only when another upload under the same cache key has not
// concluded (RFC 9175 §3.4): a list without Request-Tag is one of the values to
// tell operations apart by, and some peers refuse the option.
func (x *Exchange) beginUpload(szx uint8) {
	u := &clientUpload{szx: szx, key: cacheKey(x.base.code, x.base.opts)}
	x.e.mu.Lock()
	defer x.e.mu.Unlock()
	s := x.e.state(x.peer.Name())
	if s.tags[u.key] || len(s.tags) >= maxTags {
		s.nextTag++
		u.tag = binary.BigEndian.AppendUint64(nil, s.nextTag)
		u.tag, u.tagged = bytes.TrimLeft(u.tag, "\x00"), true
	} else {
		if s.tags == nil {
			s.tags = map[string]bool{}
		}
		s.tags[u.key] = true
	}
	x.upload = u
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
	x.e.mu.Lock()
	defer x.e.mu.Unlock()
	delete(x.e.state(x.peer.Name()).tags, u.key)
}

// block returns the request for the block that the upload is at.
func (u *clientUpload) block(base request, whole []byte) (request, []byte) {
	size := coap.Block{SZX: u.szx}.Size()
	to := min(u.offset+size, len(whole))
	u.sent = to - u.offset
	b := coap.Block{Num: uint32(u.offset / size), More: to < len(whole), SZX: u.szx}
	opts := append(coap.Options{}, base.opts...).Add(coap.Block1, b.Append(nil))
	if b.Num == 0 {
		opts = opts.AddUint(coap.Size1, uint32(len(whole)))
	}
	if u.tagged {
		opts = opts.Add(coap.RequestTag, u.tag)
	}
	return request{base.code, opts, nil}, whole[u.offset:to]
}

// receiveContinue processes the answer to a block. done tells that resp is the
// answer to the whole request.
func (x *Exchange) receiveContinue(now time.Time, resp request) (step Step, done bool) {
	u := x.upload
	b, ok, err := resp.block(coap.Block1)
	if err != nil {
		return x.fail(ErrTransfer), false
	}
	code := coap.Code(resp.code)
	last := u.offset+u.sent == len(x.whole)
	switch {
	case code == coap.RequestEntityTooLarge && ok && u.offset == 0 && b.SZX < u.szx:
		u.szx = b.SZX // RFC 7959 §2.9.3: again, in smaller blocks
		return x.resend(now), false
	case code != coap.Continue && (last || !code.IsSuccess()):
		if x.progress != nil && code.IsSuccess() {
			x.progress(len(x.whole), len(x.whole))
		}
		return Step{}, true
	case code != coap.Continue, last, !ok, b.Offset() != u.offset && b.Num != uint32(u.offset>>(u.szx+4)):
		return x.fail(ErrTransfer), false
	}
	u.offset += u.sent
	u.szx = min(u.szx, b.SZX)
	if x.progress != nil {
		x.progress(u.offset, len(x.whole))
	}
	return x.resend(now), false
}

// clientDownload is a response body coming in inner blocks (RFC 7959 §2.4).
type clientDownload struct {
	resp     request // the first block's code and options
	body     []byte
	etag     []byte
	szx      uint8
	restarts int
	fresh    bool // begin anew: no block number, no block yet
}

// maxRestarts bounds how often a body that changes under way is begun anew.
const maxRestarts = 3

// receiveBlock2 takes one block of a response. whole tells that the download
// holds it all; otherwise step goes on.
func (x *Exchange) receiveBlock2(now time.Time, resp request, b coap.Block) (step Step, whole bool) {
	d := x.download
	if d == nil {
		d = &clientDownload{fresh: true}
		x.download = d
	}
	etag, _ := resp.opts.Get(coap.ETag)
	if d.fresh && b.Num == 0 {
		d.fresh, d.resp, d.body, d.etag = false, resp, nil, append([]byte{}, etag...)
	}
	size, _ := d.resp.opts.Uint(coap.Size2)
	switch {
	case d.fresh, resp.code != d.resp.code, !bytes.Equal(etag, d.etag):
		// The representation changed under way, or the server lost it.
		if unsafe(x.base.code) || !coap.Code(resp.code).IsSuccess() {
			return x.fail(ErrTransfer), false
		}
		if d.restarts++; d.restarts > maxRestarts {
			return x.fail(ErrTransfer), false
		}
		if b.Num == 0 { // it came from its beginning: take it
			d.resp, d.body, d.etag = resp, nil, append([]byte{}, etag...)
			break
		}
		d.fresh, d.body = true, nil
		return x.resend(now), false
	}
	switch {
	case b.Offset() != len(d.body), b.More && len(resp.payload) != b.Size(), len(resp.payload) > b.Size():
		return x.fail(ErrTransfer), false
	case len(d.body)+len(resp.payload) > x.e.cfg.MaxBody, uint64(size) > uint64(x.e.cfg.MaxBody):
		return x.fail(ErrTooLarge), false
	}
	d.body = append(d.body, resp.payload...)
	d.szx = b.SZX
	if x.progress != nil {
		x.progress(len(d.body), int(size))
	}
	if !b.More {
		d.resp.opts = d.resp.opts.Without(coap.Block2, coap.Size2)
		return Step{}, true
	}
	return x.resend(now), false
}

// next returns the request for the download's next block: the application's,
// without Observe and without the body of an upload (RFC 7959 §3.3).
func (d *clientDownload) next(x *Exchange) (request, []byte) {
	opts := x.base.opts.Without(coap.Observe)
	payload := x.whole
	if u := x.upload; u != nil {
		payload = nil
		if u.tagged {
			opts = opts.Add(coap.RequestTag, u.tag)
		}
	}
	if unsafe(x.base.code) {
		payload = nil
	}
	if !d.fresh {
		b := coap.Block{Num: uint32(len(d.body) >> (d.szx + 4)), SZX: d.szx}
		opts = opts.Add(coap.Block2, b.Append(nil))
	}
	return request{x.base.code, opts, nil}, payload
}

// continueNotification begins an exchange for the further blocks of a
// notification: a GET or FETCH without Observe (RFC 7959 §3.4).
func (x *Exchange) continueNotification(now time.Time, resp request, b coap.Block) Step {
	base := request{x.base.code, x.base.opts.Without(coap.Observe), nil}
	more := &Exchange{e: x.e, peer: x.peer, base: base, whole: x.whole, progress: x.progress}
	more.notification, _ = resp.opts.Get(coap.Observe)
	resp.opts = resp.opts.Without(coap.Observe)
	step, whole := more.receiveBlock2(now, resp, b)
	if whole || step.Kind != Send {
		more.close()
		return x.wait(ErrTransfer) // a bad block does not end the observation (RFC 8613 §8.4.2)
	}
	return Step{Kind: Notification, Message: step.Message, More: more}
}
