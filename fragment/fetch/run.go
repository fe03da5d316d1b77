package fetch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/fragment"
	"github.com/oscorelay/oscorelay/internal/coap"
)

// download is one run.
type download struct {
	c       Config
	budget  *budget
	silence *time.Timer // since something verified

	mu       sync.Mutex // the verifier, the image, the result, every piece
	idle     *sync.Cond // a piece has ended
	verifier *fragment.Verifier
	flight   []fragment.Item
	held     int // unverified bytes
	result   Result
	rtt      time.Duration
	err      error
}

const (
	defaultWindow = 4
	maxWindow     = 4
	defaultPages  = 2
)

// Run downloads, verifies and writes an image. It returns nil when the whole
// image has been read back from flash and has the signed digest.
//
// On [ErrSuspended], on a context's end and after a power cut, run again with
// the same flash and journal: it goes on where it stopped. The result is
// meaningful in every case.
func Run(ctx context.Context, c Config) (Result, error) {
	c.Timing = c.Timing.orDefault()
	if c.Window == 0 {
		c.Window = defaultWindow
	}
	c.Window = max(1, min(c.Window, maxWindow))
	if c.Pages == 0 {
		c.Pages = defaultPages
	}
	d := &download{c: c, budget: newBudget(2 * c.Timing.AckTimeout)}
	d.idle = sync.NewCond(&d.mu)
	if c.Patience == 0 {
		c.Patience = defaultPatience
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.silence = time.AfterFunc(c.Patience, func() { cancel(errSilent) })
	defer d.silence.Stop()
	d.c.Patience = c.Patience
	err := d.run(ctx)
	if errors.Is(err, context.Canceled) && context.Cause(ctx) == errSilent {
		err = errSilent
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.result, err
}

func (d *download) run(ctx context.Context) error {
	groups, err := group(d.c.Sources)
	if err != nil {
		return err
	}
	s, err := d.manifest(ctx, groups)
	if err != nil {
		return err
	}
	d.result.Signed = s
	if d.c.Flash == nil {
		if d.c.Flash, d.c.Journal, err = d.c.Open(s); err != nil {
			return err
		}
	}
	im, err := fragment.OpenImage(s, fragment.ImageConfig{Flash: d.c.Flash, Journal: d.c.Journal})
	if err != nil {
		return err
	}
	d.result.Resumed = im.Verified()
	units := (uint64(s.Manifest().Size) + 1<<groups[0].name.Unit - 1) >> groups[0].name.Unit
	d.budget.grow(uint32(units))
	// One layout at a time: the next is for when the first one's share of the
	// budget is spent.
	whole := d.budget.left
	for i, g := range groups {
		d.budget.left = whole / len(groups)
		if i == 0 {
			d.budget.left += whole % len(groups)
		}
		err = d.layout(ctx, im, g)
		d.result.Mirrors = append(d.result.Mirrors, g.mirrors.results()...)
		if !errors.Is(err, ErrSuspended) {
			break
		}
	}
	if ferr := im.Flush(); err == nil {
		err = ferr
	}
	return err
}

// layoutGroup is the mirrors whose copies have one layout.
type layoutGroup struct {
	name    fragment.Name
	mirrors *mirrors
}

func group(sources []Source) ([]layoutGroup, error) {
	if len(sources) == 0 {
		return nil, fmt.Errorf("%w: there is none", ErrURI)
	}
	var (
		order  []fragment.Name
		byName = map[fragment.Name][]Source{}
	)
	for _, s := range sources {
		if s.Name.Manifest != sources[0].Name.Manifest {
			return nil, fmt.Errorf("%w: %s and %s", ErrSources, sources[0].Label, s.Label)
		}
		if byName[s.Name] == nil {
			order = append(order, s.Name)
		}
		byName[s.Name] = append(byName[s.Name], s)
	}
	var groups []layoutGroup
	for _, n := range order {
		groups = append(groups, layoutGroup{n, newMirrors(byName[n])})
	}
	return groups, nil
}

// manifest gets the manifest, over the sealed path or from a mirror's header,
// and decides whether this device takes it.
func (d *download) manifest(ctx context.Context, groups []layoutGroup) (*fragment.Signed, error) {
	name := groups[0].name
	var sign1 []byte
	if d.c.Manifest != nil {
		var err error
		if sign1, err = d.c.Manifest(ctx, name); err != nil {
			return nil, fmt.Errorf("fetch: manifest: %w", err)
		}
		if !name.Pins(sign1) {
			return nil, fmt.Errorf("%w: the sealed path gave another manifest than the name pins", fragment.ErrName)
		}
	} else {
		var err error
		if sign1, err = d.header(ctx, groups[0]); err != nil {
			return nil, err
		}
	}
	s, err := fragment.Open(sign1, d.c.Keys...)
	if err != nil {
		return nil, err
	}
	return s, d.c.Policy.Check(s)
}

// header reads a mirror's header. No block of it can be checked alone, so it
// is the one piece that is asked for again whole.
func (d *download) header(ctx context.Context, g layoutGroup) ([]byte, error) {
	var sign1 []byte
	p := &piece{d: d, block: coap.SZX(g.name.Block()), buf: make([]byte, fragment.MaxHeader)}
	p.check = func(n int) (verdict, error) {
		size, err := fragment.HeaderSize(p.buf[:n])
		switch {
		case err != nil, size == 0 && n == len(p.buf):
			return forged, nil
		case size == 0 || size > n:
			return more, nil
		}
		h, err := fragment.ParseHeader(p.buf[:size])
		if err != nil || h.Layout != g.name.Layout || len(h.Mirrors) > 0 || !g.name.Pins(h.Sign1) {
			return forged, nil
		}
		sign1 = h.Sign1
		return good, nil
	}
	d.hold(len(p.buf))
	defer d.hold(-len(p.buf))
	return sign1, errors.Join(p.get(ctx, g.mirrors, false))
}

// layout fetches what is missing from the mirrors of one layout.
func (d *download) layout(ctx context.Context, im *fragment.Image, g layoutGroup) error {
	geo, err := im.Signed().Pinned(g.name)
	if err != nil {
		return err
	}
	largest := geo.FileSize()
	if geo.Outboard {
		largest = max(largest, int64(geo.Size()))
	}
	if (largest-1)/int64(geo.Block()) > coap.MaxBlockNum {
		return fmt.Errorf("%w: %d bytes do not fit 2^20 blocks of %d", fragment.ErrGeometry, largest, geo.Block())
	}
	v, err := fragment.NewVerifier(im, geo, fragment.VerifierConfig{Pages: d.c.Pages})
	if err != nil {
		return err
	}
	d.verifier, d.err = v, nil
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		d.idle.Broadcast()
		d.mu.Unlock()
	})
	defer stop()
	for {
		var workers sync.WaitGroup
		for range d.c.Window {
			workers.Go(func() {
				if err := d.work(ctx, g); err != nil {
					d.fail(err)
					cancel()
				}
			})
		}
		workers.Wait()
		if d.err != nil {
			return d.err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// The flash is read back whole. Cells that have changed since are
		// found and asked for again, within the budget.
		err := im.Finish()
		if !errors.Is(err, fragment.ErrDigest) {
			return err
		}
		if d.budget.take(ctx) != nil {
			return err
		}
	}
}

// fail keeps the first error that is not a consequence of another.
func (d *download) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
	d.idle.Broadcast()
}

// work fetches one item after the other.
func (d *download) work(ctx context.Context, g layoutGroup) error {
	geo := d.verifier.Geometry()
	buf := make([]byte, 1<<max(geo.Unit, geo.Page))
	d.hold(len(buf))
	defer d.hold(-len(buf))
	for {
		it, ok := d.next(ctx)
		if !ok {
			return ctx.Err()
		}
		p := &piece{
			d: d, offset: geo.Offset(it), image: geo.Outboard && it.Level == 0,
			block: coap.SZX(min(geo.Block(), 1<<(maxSZX+4))), buf: buf[:geo.Len(it)],
		}
		p.check = func(n int) (verdict, error) {
			if n < len(p.buf) {
				return more, nil
			}
			switch err := d.verifier.Offer(it, p.buf); {
			case err == nil:
				return good, nil
			case errors.Is(err, fragment.ErrForged):
				return forged, nil
			case errors.Is(err, fragment.ErrEarly):
				// Its page has been let go of; it will be asked for again.
				return good, nil
			default:
				return forged, err
			}
		}
		err := p.get(ctx, g.mirrors, it.Level > 0)
		d.ended(it)
		if err != nil {
			return err
		}
	}
}

// next waits for something to ask for; ok is false when nothing is left.
func (d *download) next(ctx context.Context) (it fragment.Item, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ctx.Err() == nil && d.err == nil {
		if d.verifier.Image().Complete() {
			return it, false
		}
		if want := d.verifier.Wanted(make([]fragment.Item, 0, 1), d.flight); len(want) > 0 {
			d.flight = append(d.flight, want[0])
			return want[0], true
		}
		if len(d.flight) == 0 {
			d.err = errStuck
			return it, false
		}
		d.idle.Wait()
	}
	return it, false
}

// ended takes an item out of flight.
func (d *download) ended(it fragment.Item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, f := range d.flight {
		if f == it {
			d.flight = append(d.flight[:i], d.flight[i+1:]...)
			break
		}
	}
	d.idle.Broadcast()
	if d.c.Progress != nil {
		im := d.verifier.Image()
		d.c.Progress(im.Verified(), int64(im.Signed().Manifest().Size))
	}
}

func (d *download) hold(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held += n
	d.result.Peak = max(d.result.Peak, d.held)
}

func (d *download) count(retry bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.result.Requests++
	if retry {
		d.result.Retries++
	}
}

// measure keeps a moving average of the round-trip time. d.mu is held.
func (d *download) measure(rtt time.Duration) {
	if d.rtt == 0 {
		d.rtt = rtt
	}
	d.rtt += (rtt - d.rtt) / 8
}

// patience is how long the genuine answer is waited for after a forged one,
// before the piece is asked for again: a few round trips.
func (d *download) patience() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rtt == 0 {
		return d.c.Timing.AckTimeout
	}
	return max(d.c.Timing.AckTimeout/20, min(4*d.rtt, d.c.Timing.AckTimeout))
}
