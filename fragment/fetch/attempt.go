package fetch

import (
	"context"
	crand "crypto/rand"
	"errors"
	"time"
)

// verdict is what a check says of the bytes so far.
type verdict int

const (
	more   verdict = iota // go on after the bytes that are there
	forged                // all there, and not genuine
	good
)

// cell is the granularity in which answers are put together: RFC 7959's
// smallest block.
const cell = 16

// maxCandidates is how many answers to one request are looked at.
const maxCandidates = 4

// maxTries is how many tries of one piece stay open for late answers.
const maxTries = 4

// piece is something that can be checked only as a whole: an item, or a
// header. Its blocks come from answers of any age; a later answer to a request
// takes the place of an earlier one, and the whole is checked each time, so
// that a forged block that was faster than the genuine one does no harm.
type piece struct {
	d      *download
	offset int64 // in the resource
	image  bool  // the resource is the image of an outboard file
	block  uint8 // SZX of the largest block it may be asked in
	buf    []byte
	filled [4096 / cell]bool
	status verdict
	err    error // the device's own trouble
	// check judges the first n bytes. It is called with d.mu held.
	check   func(n int) (verdict, error)
	changed chan struct{}
}

// contiguous returns how many bytes from the start are there.
func (p *piece) contiguous() int {
	n := 0
	for n < len(p.buf) && p.filled[n/cell] {
		n += cell
	}
	return min(n, len(p.buf))
}

// take puts an answer in its place; it reports whether the bytes were of use.
// d.mu is held.
func (p *piece) take(a Answer) bool {
	at := a.Offset - p.offset
	if !a.Content || at < 0 || at >= int64(len(p.buf)) || at%cell != 0 ||
		len(a.Payload) == 0 || int64(len(a.Payload)) != min(1<<(a.SZX+4), int64(len(p.buf))-at) {
		return false
	}
	copy(p.buf[at:], a.Payload)
	for i := int(at); i < int(at)+len(a.Payload); i += cell {
		p.filled[i/cell] = true
	}
	p.status, p.err = p.check(p.contiguous())
	if p.status == forged {
		p.d.result.Forged++
	}
	return p.status != forged
}

// get fetches a piece, from as many mirrors and as often as the budget allows.
func (p *piece) get(ctx context.Context, m *mirrors, page bool) error {
	p.changed = make(chan struct{}, 1)
	var tries [][]func()
	defer func() {
		for _, t := range tries {
			stopAll(t)
		}
	}()
	var last *mirror
	for try := 0; ; try++ {
		if try > 0 {
			if err := p.d.budget.take(ctx); err != nil {
				return err
			}
			if p.finished() { // a late answer came while the budget was waited for
				return p.conclude(m, last)
			}
		}
		if len(tries) == maxTries {
			stopAll(tries[0])
			tries = tries[1:]
		}
		p.clear()
		x := m.pick(last)
		stops, err := p.try(ctx, x, try)
		tries = append(tries, stops)
		if err != nil {
			return err
		}
		if p.finished() {
			return p.conclude(m, x)
		}
		p.d.mu.Lock()
		wrong := p.status == forged
		p.d.mu.Unlock()
		m.failed(x, wrong, page)
		last = x
	}
}

func stopAll(stops []func()) {
	for _, stop := range stops {
		stop()
	}
}

func (p *piece) finished() bool {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	return p.status == good || p.err != nil
}

func (p *piece) conclude(m *mirrors, x *mirror) error {
	p.d.mu.Lock()
	err := p.err
	p.d.result.Needed += int64(p.contiguous())
	p.d.mu.Unlock()
	if err == nil {
		m.verified(x)
		p.d.silence.Reset(p.d.c.Patience)
		p.d.budget.earn()
	}
	return err
}

func (p *piece) clear() {
	p.d.mu.Lock()
	clear(p.filled[:])
	p.status = more
	p.d.mu.Unlock()
}

// try asks one mirror for every block of the piece, and then waits a moment
// for late answers if what came is not genuine.
func (p *piece) try(ctx context.Context, x *mirror, try int) (stops []func(), err error) {
	var tag []byte
	if try > 0 {
		// RFC 9175 §3.6: part of the cache key, and of no meaning to a server
		// that answers a GET: the request passes by a cache's stale copy.
		tag = make([]byte, 4)
		_, _ = crand.Read(tag)
	}
	for {
		p.d.mu.Lock()
		at, status, err := p.contiguous(), p.status, p.err
		szx := p.szx(x, at)
		p.d.mu.Unlock()
		if status == good || err != nil {
			return stops, nil
		}
		if status == forged {
			p.await(ctx, p.d.patience(), func() bool { return p.status == good || p.err != nil })
			return stops, ctx.Err()
		}
		answered, gone := false, false
		sent := time.Now()
		stops = append(stops, x.Start(Request{
			Num: uint32((p.offset + int64(at)) >> (szx + 4)), SZX: szx, Image: p.image, Tag: tag,
		}, p.candidate(x, &answered, &gone, sent)))
		p.d.count(try > 0)
		p.await(ctx, 0, func() bool { return answered || gone || p.status != more || p.err != nil })
		if err := ctx.Err(); err != nil {
			return stops, err
		}
		p.d.mu.Lock()
		usable := p.contiguous() > at || p.status != more || p.err != nil
		p.d.mu.Unlock()
		if usable {
			continue
		}
		if gone {
			return stops, nil
		}
		// An answer without bytes: an error code, or a lie. The genuine answer
		// may be on its way.
		p.await(ctx, p.d.patience(), func() bool { return p.contiguous() > at || p.status != more || p.err != nil })
		p.d.mu.Lock()
		usable = p.contiguous() > at || p.status != more
		p.d.mu.Unlock()
		if !usable {
			return stops, ctx.Err()
		}
	}
}

// candidate returns the function that one request's answers go to.
func (p *piece) candidate(x *mirror, answered, gone *bool, sent time.Time) func(Answer, error) bool {
	count := 0
	return func(a Answer, err error) bool {
		p.d.mu.Lock()
		defer p.d.mu.Unlock()
		defer p.signal()
		if err != nil {
			*gone = true
			return true
		}
		p.d.result.Received += int64(len(a.Payload))
		if p.status == good || p.err != nil {
			return true
		}
		if count++; count > maxCandidates {
			return false
		}
		*answered = true
		if a.Content && a.SZX < x.szx && a.SZX >= minSZX {
			x.szx = a.SZX
		}
		used := p.take(a)
		if p.status == good {
			p.d.measure(time.Since(sent))
		}
		return used
	}
}

func (p *piece) signal() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// await waits until done, which is called with d.mu held, for at most limit; 0
// is without limit.
func (p *piece) await(ctx context.Context, limit time.Duration, done func() bool) {
	var expired <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		expired = timer.C
	}
	for {
		p.d.mu.Lock()
		ok := done()
		p.d.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-p.changed:
		case <-expired:
			return
		case <-ctx.Done():
			return
		}
	}
}

// minSZX is 64 bytes, the format's smallest block; a mirror that wants less is
// not believed.
const minSZX = 2

// szx returns the block size to ask a mirror for at a position of the piece:
// as large as the piece's alignment and the mirror allow. d.mu is held.
func (p *piece) szx(x *mirror, at int) uint8 {
	szx := min(p.block, x.szx)
	for szx > 0 && (p.offset+int64(at))&(1<<(szx+4)-1) != 0 {
		szx--
	}
	return szx
}

var errStuck = errors.New("fetch: nothing to ask for, and the image is not complete")
