package terminate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/oscorelay/oscorelay/keys/bolt"
)

// What is kept of a device, by each route for itself: several may serve it, and
// what one of them has under way is not to be led to the backend of another.
const (
	factAddress  = "address"  // see appendAddress
	factLocation = "location" // of its registration, and the endpoint name it is of
	factSeed     = "seed"     // of a gateway, under gatewayName
)

// gatewayName is no context's: a name holds no control character.
const gatewayName = "\x01gateway"

// behind writes to the store, many changes in one transaction. Most of them need
// not be there before a message goes out; for the others there is after.
//
// A disk that is full is tried again, with what was to be written then. A store
// that has stopped is not.
type behind struct {
	update func(context.Context, func(*bolt.Tx) error) error
	log    *slog.Logger
	c      *counters

	turn sync.Mutex // of whoever has changes in hand: they are made in their order

	mu      sync.Mutex
	work    []func(*bolt.Tx) error
	held    []func(*bolt.Tx) error // in hand, or not taken by the disk yet
	then    []func()
	wake    chan struct{} // there is something
	hurry   chan struct{} // somebody waits for it
	closed  bool
	done    chan struct{}
	failure error
}

const (
	// maxBehind bounds what waits to be written; more is lost.
	maxBehind = 16384
	// gather is how long a change waits for others that nobody is in a hurry
	// for: a flush of its own would be in the way of the journal's.
	gather = 40 * time.Millisecond
	// retry is how long a disk that was full is left alone.
	retry = time.Second
)

func newBehind(update func(context.Context, func(*bolt.Tx) error) error, log *slog.Logger, c *counters) *behind {
	b := &behind{update: update, log: log, c: c, wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), done: make(chan struct{})}
	go b.run()
	return b
}

// add has a change written soon. A change that does not fit is lost, and with it
// what it would have saved over a restart: never a number, never a key.
func (b *behind) add(f func(*bolt.Tx) error) {
	b.mu.Lock()
	fits := len(b.work)+len(b.held) < maxBehind
	if fits {
		b.work = append(b.work, f)
	}
	b.mu.Unlock()
	if !fits {
		b.c.storage.Add(1)
	}
	signal(b.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// after has f called, in another goroutine, when all that was added before is
// durable, or the disk has not taken it.
func (b *behind) after(f func()) {
	b.mu.Lock()
	b.then = append(b.then, f)
	b.mu.Unlock()
	signal(b.hurry)
	signal(b.wake)
}

func (b *behind) run() {
	defer close(b.done)
	for {
		b.turn.Lock()
		b.mu.Lock()
		work, then, closed := append(b.held, b.work...), b.then, b.closed
		b.work, b.then, b.held = nil, nil, work
		b.mu.Unlock()
		held := b.write(work)
		b.mu.Lock()
		b.held = held
		b.mu.Unlock()
		b.turn.Unlock()
		for _, f := range then {
			f()
		}
		switch {
		case closed:
			if len(held) > 0 || len(work)+len(then) == 0 {
				return
			}
		case len(held) > 0:
			select {
			case <-b.hurry:
			case <-time.After(retry):
			}
		default:
			<-b.wake
			select {
			case <-b.hurry:
			case <-time.After(gather):
			}
		}
	}
}

// join makes a change that somebody waits for, and with it, before it, what waits
// to be written: a transfer in blocks costs one transaction a block, which holds
// the answer to the block before.
func (b *behind) join(f func(*bolt.Tx) error) error {
	if !b.turn.TryLock() {
		return b.update(context.Background(), f)
	}
	defer b.turn.Unlock()
	b.mu.Lock()
	var work []func(*bolt.Tx) error
	if len(b.held)+len(b.then) == 0 {
		work, b.work, b.held = b.work, nil, b.work
	}
	b.mu.Unlock()
	if len(work) == 0 {
		return b.update(context.Background(), f)
	}
	var bad error
	err := b.update(context.Background(), func(tx *bolt.Tx) error {
		if bad = perform(tx, work); bad != nil {
			return bad
		}
		return f(tx)
	})
	b.mu.Lock()
	b.held = nil
	if err != nil {
		b.work = append(work, b.work...) // by itself
	}
	b.mu.Unlock()
	signal(b.wake)
	if bad != nil {
		return b.update(context.Background(), f)
	}
	return err
}

// perform makes changes; one that cannot be made takes no other with it.
func perform(tx *bolt.Tx, work []func(*bolt.Tx) error) (bad error) {
	for _, f := range work {
		if err := f(tx); err != nil && !errors.Is(err, bolt.ErrNotBegun) && !errors.Is(err, bolt.ErrTooLong) {
			bad = err
		}
	}
	return bad
}

// write writes changes, and returns them if they are to be tried again.
func (b *behind) write(work []func(*bolt.Tx) error) (held []func(*bolt.Tx) error) {
	if len(work) == 0 {
		return nil
	}
	var bad error
	err := b.update(context.Background(), func(tx *bolt.Tx) error {
		bad = perform(tx, work)
		return nil
	})
	before := b.failure
	b.failure = err
	switch {
	case err == nil && before != nil:
		b.log.Info("the store takes changes again: what waited is written", "changes", len(work))
	case err != nil:
		b.c.storage.Add(1)
		if before == nil {
			b.log.Error("the store takes no changes: addresses, registrations and observations of now would not survive a restart", "error", err)
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
			return work
		}
	}
	if err == nil && bad != nil {
		b.c.storage.Add(1)
		b.log.Error("a change cannot be written: what it was about will not survive a restart", "error", bad)
	}
	return nil
}

func (b *behind) close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	signal(b.hurry)
	signal(b.wake)
	<-b.done
	return b.failure
}

// fact is the key of a fact of this route's.
func (g *Gateway) fact(key string) string { return key + "@" + g.cfg.Name }

// put keeps a fact of a device, unless its context was removed meanwhile: the
// next one of that name begins without.
func (g *Gateway) put(d *device, key string, data []byte) {
	g.keepOf(d, func(tx *bolt.Tx) error { return tx.PutFact(d.name, g.fact(key), data) })
}

func (g *Gateway) keepOf(d *device, f func(tx *bolt.Tx) error) {
	name, index := d.name, d.index
	g.db.add(func(tx *bolt.Tx) error {
		if now, ok := tx.Index(name); !ok || now != index {
			return nil
		}
		return f(tx)
	})
}

// locationFact is a registration's location as it is kept. Under another endpoint
// name it is none.
func (d *device) locationFact() []byte { return []byte(d.location + "\x00" + d.endpoint) }

// appendAddress appends how and where the device was last heard.
func (d *device) appendAddress(b []byte) []byte {
	how := "sealed"
	switch {
	case d.plain && d.sealed:
		how = "both"
	case d.plain:
		how = "plain"
	}
	return fmt.Appendf(b, "%s %s %s", how, d.at.remote, d.at.local)
}

func (d *device) parseAddress(b []byte) error {
	how, rest, _ := strings.Cut(string(b), " ")
	remote, local, _ := strings.Cut(rest, " ")
	addr, err := netip.ParseAddrPort(remote)
	if err != nil {
		return err
	}
	d.at.remote = addr
	d.at.local, _ = netip.ParseAddr(local) // none: the kernel's choice
	d.plain, d.sealed = how != "sealed", how != "plain"
	return nil
}

// read fills in what the store knows of a device.
func (g *Gateway) readDevice(tx *bolt.Tx, d *device) (kept []bolt.Observation, err error) {
	index, ok := tx.Index(d.name)
	if !ok {
		return nil, errNoDevice
	}
	d.index = index
	if b, ok, err := tx.Fact(d.name, g.fact(factAddress)); err != nil {
		return nil, err
	} else if ok {
		if err := d.parseAddress(b); err != nil {
			return nil, fmt.Errorf("address of %q: %w", d.name, err)
		}
	}
	if b, ok, err := tx.Fact(d.name, g.fact(factLocation)); err != nil {
		return nil, err
	} else if location, endpoint, named := strings.Cut(string(b), "\x00"); ok && named && endpoint == d.endpoint {
		d.location = location
	}
	err = tx.Observations(d.name, func(o bolt.Observation) error {
		kept = append(kept, o)
		return nil
	})
	return kept, err
}

// loadSeed reads what message IDs begin from, or makes it anew.
func (g *Gateway) loadSeed() error {
	return g.cfg.Store.Update(g.ctx, func(tx *bolt.Tx) error {
		b, ok, err := tx.Fact(gatewayName, g.fact(factSeed))
		if err != nil {
			return err
		}
		// An old state counts starts that there were already.
		if !ok || len(b) != len(g.seed) || g.cfg.Store.Taint() != "" {
			b = make([]byte, len(g.seed))
			_, _ = rand.Read(b) // never fails
			if err := tx.PutFact(gatewayName, g.fact(factSeed), b); err != nil {
				return err
			}
		}
		copy(g.seed[:], b)
		return nil
	})
}

// loadStart takes up what an earlier process left: observations, and unsafe
// requests under way.
func (g *Gateway) loadStart(now time.Time) error {
	names := map[string]bool{}
	var begun []journalled
	err := g.cfg.Store.View(g.ctx, func(tx *bolt.Tx) error {
		err := tx.Observations("", func(o bolt.Observation) error {
			if _, ours := g.parseObservation(o); ours {
				names[o.Peer] = true
			}
			return nil
		})
		if err != nil {
			return err
		}
		// A backend finds nobody at a port that is closed, and a device without
		// OSCORE is known by its address.
		if plain := g.policy() != PlainRefuse; plain || g.cfg.UpstreamPorts > 0 {
			address, location := g.fact(factAddress), g.fact(factLocation)
			err := tx.Facts("", func(name, key string, data []byte) error {
				if g.cfg.UpstreamPorts > 0 && key == location || plain && key == address && !strings.HasPrefix(string(data), "sealed ") {
					names[name] = true
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return tx.Journal(func(x bolt.Exchange, o bolt.Outcome) error {
			index, route, ok := parsePeer(x.Peer)
			if !ok || route != g.cfg.Name {
				return nil
			}
			name, ok := tx.ByIndex(index)
			if ok {
				begun = append(begun, journalled{name, x, o})
				names[name] = true
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for name := range names {
		if _, has := g.cfg.Keyring.Peer(name); !has || !g.cfg.Accepts(name) {
			continue // another route's, or removed
		}
		d, err := g.load(name)
		if err != nil && !errors.Is(err, errNoDevice) {
			return err
		}
		if d != nil {
			g.mu.Lock()
			g.queueDormant(d)
			g.mu.Unlock()
		}
	}
	g.takeUp(now, begun)
	return nil
}
