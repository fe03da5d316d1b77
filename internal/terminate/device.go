package terminate

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/keys/bolt"
)

// device is what is remembered of a device while the process lives.
type device struct {
	name     string // of its context
	endpoint string
	index    uint32
	place    int // in Gateway.all

	at       hop                            // where it was last heard of; not valid: never
	sealedAt atomic.Pointer[netip.AddrPort] // the same of a device that speaks with OSCORE; nil: none
	plain    bool
	sealed   bool // was heard sealed
	seen     time.Time
	location string // of its registration, as the backend gave it

	up, down     int                  // exchanges under way
	asked        map[string]*downlink // by the backend's token
	observing    map[string]*uplink   // what the device observes, by its token
	observations int                  // in asked
	asleep       int                  // of them those to be taken up
	resuming     int                  // requests taken up from the journal, see holdBack
	settled      chan struct{}        // closed when none is left; nil: none is
	trouble      trouble
}

// trouble is why a device does not get through, for people.
type trouble struct {
	at   time.Time
	what string
}

// load returns a device, read from the store if it is not in memory; only then
// it takes the lock.
func (g *Gateway) load(name string) (*device, error) {
	g.known.RLock()
	d := g.devices[name]
	g.known.RUnlock()
	if d != nil {
		return d, nil
	}
	for {
		g.mu.Lock()
		forgets := g.forgets
		g.mu.Unlock()
		d = &device{name: name, endpoint: g.cfg.Endpoint(name)}
		var kept []bolt.Observation
		err := g.cfg.Store.View(g.ctx, func(tx *bolt.Tx) (err error) {
			kept, err = g.readDevice(tx, d)
			return err
		})
		if err != nil {
			return nil, err
		}
		g.mu.Lock()
		if forgets == g.forgets {
			defer g.mu.Unlock()
			return g.enter(d, kept)
		}
		// A context was removed or replaced meanwhile: perhaps this one, whose
		// index and name then are of the past.
		g.mu.Unlock()
	}
}

// loadIndex is load by the index.
func (g *Gateway) loadIndex(index uint32) (*device, error) {
	g.known.RLock()
	d := g.byIndex[index]
	g.known.RUnlock()
	if d != nil {
		return d, nil
	}
	name, ok, err := g.cfg.Store.ByIndex(g.ctx, index)
	if err != nil {
		return nil, err
	}
	if !ok || !g.cfg.Accepts(name) {
		return nil, errNoDevice
	}
	return g.load(name)
}

// enter puts a device into the tables; another may have been quicker.
func (g *Gateway) enter(d *device, kept []bolt.Observation) (*device, error) {
	if old := g.devices[d.name]; old != nil {
		return old, nil
	}
	if _, ok := g.back.of(d.index); !ok {
		return nil, errNoPlace
	}
	if len(g.devices) >= g.cfg.MaxDevices && !g.dropDevice() {
		return nil, errTooMany
	}
	if err := g.back.enter(d.index); err != nil {
		return nil, err
	}
	d.publish()
	g.known.Lock()
	g.devices[d.name], g.byIndex[d.index] = d, d
	g.known.Unlock()
	d.place = len(g.all)
	g.all = append(g.all, d)
	if d.plain && d.at.remote.IsValid() {
		g.plain[d.at.remote] = d
	}
	for _, o := range kept {
		g.keep(d, o)
	}
	return d, nil
}

// dropDevice forgets a device that nothing is under way with, among a few.
func (g *Gateway) dropDevice() bool {
	var oldest *device
	n := 0
	for _, d := range g.devices {
		if n++; n > 64 {
			break
		}
		if d.up+d.down+len(d.asked)+len(d.observing) == 0 && (oldest == nil || d.seen.Before(oldest.seen)) {
			oldest = d
		}
	}
	if oldest == nil {
		return false
	}
	g.remove(oldest)
	return true
}

func (g *Gateway) remove(d *device) {
	g.known.Lock()
	delete(g.devices, d.name)
	delete(g.byIndex, d.index)
	g.known.Unlock()
	last := len(g.all) - 1
	g.all[d.place] = g.all[last]
	g.all[d.place].place = d.place
	g.all[last] = nil
	g.all = g.all[:last]
	g.back.leave(d.index)
	if g.plain[d.at.remote] == d {
		delete(g.plain, d.at.remote)
	}
}

// Forget ends what is under way with devices whose contexts were removed or
// replaced, or stand for another endpoint; they have to register anew. Call it
// after the contexts have left the keyring.
func (g *Gateway) Forget(contexts ...string) {
	for some := range slices.Chunk(contexts, 1000) {
		g.forgetThese(some)
	}
}

func (g *Gateway) forgetThese(contexts []string) {
	for _, name := range contexts {
		g.e.Forget(name)
		g.forgetLocation(name)
	}
	var out sending
	g.locked(&out, func() { g.forget(contexts) })
	// What was read of them until the store knows it too is of the past.
	known := make(chan struct{})
	g.db.after(func() { close(known) })
	select {
	case <-known:
	case <-g.db.done:
	}
	g.locked(&out, func() {
		g.forgets++
		g.forget(contexts)
	})
}

func (g *Gateway) forget(contexts []string) {
	now := time.Now()
	for _, name := range contexts {
		d := g.devices[name]
		if d == nil {
			continue
		}
		for _, x := range d.asked {
			g.endDownlink(now, x)
		}
		for _, u := range d.observing {
			g.endUplink(now, u)
		}
		if d.up > 0 {
			for _, u := range g.uplinks {
				if u.dev == d {
					g.endUplink(now, u) // its answer is nobody's any more
				}
			}
		}
		g.remove(d)
	}
}

// moved reports whether a device's request comes from elsewhere than its last.
// It is asked of every request, so that it must not wait for the lock.
func (g *Gateway) moved(r *endpoint.Incoming) bool {
	d, err := g.load(r.Peer.Name())
	if err != nil {
		return true
	}
	r.User = d
	at := d.sealedAt.Load()
	return at != nil && *at != r.Addr
}

// publish makes known without the lock where a device is.
func (d *device) publish() {
	var at *netip.AddrPort
	if d.at.remote.IsValid() && !d.plain {
		remote := d.at.remote
		at = &remote
	}
	d.sealedAt.Store(at)
}

// heard notes that a device was heard, by a request that is verified and no
// replay, and fresh if it came from another address (endpoint.Config.Moved).
func (g *Gateway) heard(now time.Time, d *device, from hop, plain bool) {
	d.seen = now
	d.trouble = trouble{}
	if d.at != from || d.plain != plain || !plain && !d.sealed {
		if d.at.remote.IsValid() && d.at.remote != from.remote {
			g.c.moved.Add(1)
		}
		if g.plain[d.at.remote] == d {
			delete(g.plain, d.at.remote)
		}
		turned := d.plain && !plain
		d.at, d.plain = from, plain
		d.sealed = d.sealed || !plain
		if turned {
			g.endPlain(now, d)
		}
		d.publish()
		if plain {
			g.plain[from.remote] = d
		}
		g.put(d, factAddress, d.appendAddress(nil))
	}
	g.wake(d)
}
