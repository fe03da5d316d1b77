package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"weak"

	"github.com/oscorelay/oscorelay/oscore"
)

// DirectoryOptions say how a keyring on a [Directory] behaves.
type DirectoryOptions struct {
	// Hot is how many peers may stay ready to use, each with about 1.6 kB; zero means
	// [DefaultHot]. More of them do while all are in the middle of something. Beyond
	// 8192 those stay that verified or sealed a message in the last minute or two.
	Hot int
	// OnError is called when [Keyring.Find] found nobody because the store failed
	// or an entry cannot be used. It must not call the keyring.
	OnError func(error)
}

// DefaultHot is how many peers of a Directory may stay ready to use.
const DefaultHot = 16384

// cold is what a keyring has for the peers that are in its Directory.
//
//	Find ──► hot? ──► Peer
//	          │ no
//	          ▼
//	   Directory.Lookup ──► Load ──► Peer ◄── parked window, lease, counts
//	                                   │            ▲
//	                                   └─ evicted ──┘
//
// A peer is parked, not written: the state that replay and nonces hang on stays
// in memory, about 80 bytes, and a crash voids it as it voids what a hot peer
// knows. So an eviction cannot fail, and a forged message that names a peer at
// random costs a look-up and no write. The store has the windows handed over by a
// clean stop; each is taken from there when its peer is first asked for.
//
// Whoever holds a peer that is evicted, for an exchange or an observation, goes on
// with it: each operation brings it back first, and the look-up finds the same
// Peer as long as anybody holds it.
//
// The guards: a peer changes between hot and evicted with r.mu and its own mu
// held. Whoever holds r.mu takes the mu of a peer only by TryLock, or if the peer
// is evicted: nobody who has that one waits for r.mu.
type cold struct {
	dir     Directory
	most    int
	onError func(error)

	// Guarded by Keyring.mu.
	clock   []*Peer // those that are hot
	hand    int     // where in clock the next victim is looked for
	parking parking
	left    map[uint32]weak.Pointer[Peer] // evicted, and perhaps held by somebody yet
	ages    *time.Timer                   // looks for peers at rest; nil while there are few
	sweep   int                           // look for dead ones among left at that length
	gates   map[string]chan struct{}      // entries being brought in or changed; closed at the end
	hidden  map[string]struct{}           // entries that were removed from the keyring alone
	changes uint64                        // counts what may have changed an answer of the Directory
}

// NewDirectory returns a keyring with the peers of a Directory. It holds those
// that were used of late and looks up the others when they are asked for; peers
// that are added to it, such as those of EDHOC sessions, it holds all the time.
// A store serves one keyring at a time.
func NewDirectory(dir Directory, o DirectoryOptions) *Keyring {
	if o.Hot <= 0 {
		o.Hot = DefaultHot
	}
	r := New(dir)
	r.cold = &cold{
		dir: dir, most: o.Hot, onError: o.OnError, changes: 1, sweep: 1024,
		left: map[uint32]weak.Pointer[Peer]{}, gates: map[string]chan struct{}{}, hidden: map[string]struct{}{},
	}
	return r
}

// errGone: what a peer was brought back for is not there any more.
var errGone = fmt.Errorf("%w: its entry was removed or replaced", ErrClosed)

// enter waits until it has the gate of a name: nobody else brings its peer in or
// changes its entry until leave. The caller holds r.mu, which is given up meanwhile.
func (r *Keyring) enter(ctx context.Context, name string) error {
	for {
		gate, ok := r.cold.gates[name]
		if !ok {
			r.cold.gates[name] = make(chan struct{})
			return nil
		}
		r.mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
		}
		r.mu.Lock()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// leave gives a gate back. The caller holds r.mu.
func (r *Keyring) leave(name string) {
	close(r.cold.gates[name])
	delete(r.cold.gates, name)
}

// bring returns the peer of a name, from memory or from the Directory; it is nil
// if there is none. back is an evicted peer to bring back, or nil.
func (r *Keyring) bring(name string, back *Peer) (*Peer, error) {
	ctx, cancel := context.WithTimeout(r.ctx, reserveTimeout)
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.names[name]; ok {
		return p, nil
	}
	if r.closed {
		return nil, ErrClosed
	}
	if err := r.enter(ctx, name); err != nil {
		return nil, err
	}
	defer r.leave(name)
	if p, ok := r.names[name]; ok {
		return p, nil
	}
	if _, ok := r.cold.hidden[name]; ok || r.closed {
		return nil, nil
	}
	if back != nil {
		if back.closed {
			return nil, nil
		}
		return back, r.wake(back)
	}
	r.mu.Unlock()
	rec, ok, err := r.cold.dir.Load(ctx, name)
	r.mu.Lock()
	if err != nil || !ok {
		return nil, err
	}
	if p := r.cold.left[rec.Index].Value(); p != nil {
		return p, r.wake(p)
	}
	handed := !r.cold.parking.holds(rec.Index)
	r.mu.Unlock()
	p, err := r.load(ctx, rec, handed)
	r.mu.Lock()
	if err != nil {
		return nil, err
	}
	if r.closed {
		err = ErrClosed
	} else {
		err = r.wake(p)
	}
	if err != nil && handed {
		// What was taken from the store is to be handed on.
		v, large := p.park()
		r.cold.parking.put(p.place, v, large)
	}
	return p, err
}

// load makes a peer of a record. handed says that its window, if there is one, is in
// the store.
func (r *Keyring) load(ctx context.Context, rec Record, handed bool) (*Peer, error) {
	p := &Peer{ring: r, entry: rec.Entry, base: rec.Sender, id: rec.Sender, recipient: rec.Recipient, place: rec.Index, cold: true, block: firstBlock}
	err := p.derive(rec.Derived)
	if err == nil && rec.Taint != nil {
		if p.taint = rec.Taint; !isTaint(rec.Taint) {
			err = rec.Taint
		}
	}
	p.encrypted, p.noted = rec.Encrypted, rec.Encrypted
	if err == nil && handed {
		err = p.takeWindow(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("keys: entry %q: %w", rec.Entry.Name, err)
	}
	return p, nil
}

// wake makes a peer hot that is new or evicted. The caller holds r.mu.
func (r *Keyring) wake(p *Peer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := r.insert(p); err != nil {
		return err
	}
	if v, large, ok := r.cold.parking.take(p.place); ok {
		p.unpark(&v, large)
	}
	delete(r.cold.left, p.place)
	p.evicted = false
	p.clock = len(r.cold.clock)
	r.cold.clock = append(r.cold.clock, p)
	r.evict(p)
	if r.cold.ages == nil && len(r.cold.clock) > restHot {
		r.cold.ages = time.AfterFunc(ageStep, r.age)
	}
	return nil
}

// lock locks p for an operation, and brings it back if it is evicted.
func (p *Peer) lock() error {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return ErrClosed
		}
		if !p.evicted {
			return nil
		}
		p.mu.Unlock()
		q, err := p.ring.bring(p.entry.Name, p)
		if err != nil {
			return err
		}
		if q != p {
			return errGone
		}
	}
}

// findCold is Find for what memory does not answer.
func (r *Keyring) findCold(dst []oscore.Peer, kid, kidContext []byte) ([]oscore.Peer, oscore.Match) {
	out, match, err := r.lookup(dst, kid, kidContext)
	if err != nil {
		r.failed(fmt.Errorf("keys: looking up kid %x: %w", kid, err))
	}
	return out, match
}

func (r *Keyring) lookup(dst []oscore.Peer, kid, kidContext []byte) (_ []oscore.Peer, match oscore.Match, err error) {
	r.mu.RLock()
	changes := r.cold.changes
	r.mu.RUnlock()
	ctx, cancel := context.WithTimeout(r.ctx, reserveTimeout)
	defer cancel()
	c, err := r.cold.dir.Lookup(ctx, kid, kidContext)
	if err != nil {
		r.mu.RLock()
		defer r.mu.RUnlock()
		dst, match, _ = r.findHot(dst, kid, kidContext) // those go on while their numbers last
		return dst, match, err
	}
	if c.Exact != "" {
		p, err := r.bring(c.Exact, nil)
		if err != nil {
			return dst, oscore.MatchNone, err
		}
		if p != nil {
			r.mu.RLock()
			ok := slices.Contains(p.pairKeys(), pair{string(kid), string(kidContext)})
			r.mu.RUnlock()
			if ok {
				return append(dst, p), oscore.MatchExact, nil
			}
		}
	}
	names := c.KID
	if kidContext != nil {
		if _, err := oscore.UnwrapBstr(kidContext); err == nil {
			names = c.Rederive
		}
	}
	var found []*Peer
	var failed error
	for _, name := range names {
		p, err := r.bring(name, nil)
		if err != nil {
			failed = errors.Join(failed, err)
		} else if p != nil && string(p.entry.Params.RecipientID) == string(kid) {
			found = append(found, p)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// What is in memory now, and what was found and has gone again.
	hot, match, _ := r.findHot(nil, kid, kidContext)
	if match == oscore.MatchExact {
		return append(dst, hot...), match, nil
	}
	gone := slices.ContainsFunc(found, func(p *Peer) bool { return r.names[p.entry.Name] != p })
	// Of a name that is another peer by now the old one is closed.
	all := slices.DeleteFunc(found, func(p *Peer) bool {
		now, ok := r.names[p.entry.Name]
		return ok && now != p
	})
	for _, p := range hot {
		if p := p.(*Peer); !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	if len(all) > 0 {
		match = oscore.MatchRederive
		if kidContext == nil {
			match = oscore.MatchKID
		}
	}
	if kidContext == nil {
		slices.SortStableFunc(all, func(a, b *Peer) int { return rank(a) - rank(b) })
		if s := r.kids[string(kid)]; s != nil && failed == nil && changes == r.cold.changes && !gone {
			s.complete = changes
		}
	}
	for _, p := range all[:min(len(all), oscore.MaxCandidates)] {
		dst = append(dst, p)
	}
	return dst, match, failed
}

// rank orders peers with one kid: those that send no kid context come first.
func rank(p *Peer) int {
	if p.bare() {
		return 0
	}
	return 1
}

// Suspend takes the peers of some names out, saves their windows and keeps them
// out until resume is called. It is for a [Directory], around a change of their
// entries: two peers of one key at a time would each accept what the other
// accepted. Whoever asks for one of them waits meanwhile, for some seconds at
// most, and whoever holds one finds it closed.
func (r *Keyring) Suspend(ctx context.Context, names []string) (resume func(), err error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	var h handOver
	entered := 0
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return func() {}, nil
	}
	resume = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, name := range names[:entered] {
			r.leave(name)
			if _, added := r.names[name]; added {
				r.cold.hidden[name] = struct{}{}
			} else {
				delete(r.cold.hidden, name)
			}
		}
		r.cold.changes++
	}
	for _, name := range names {
		if err = r.enter(ctx, name); err != nil {
			break
		}
		entered++
		err = r.takeOut(ctx, name, &h)
		if err != nil {
			break
		}
	}
	r.mu.Unlock()
	if e := r.save(ctx, &h); err == nil {
		err = e
	}
	if err != nil {
		resume()
		return nil, err
	}
	return resume, nil
}

// takeOut ends the peer of a name that a Directory has, hot or not. The caller
// holds r.mu and the name's gate.
func (r *Keyring) takeOut(ctx context.Context, name string, h *handOver) error {
	if p, ok := r.names[name]; ok {
		if !p.cold {
			return nil // the entry's own is hidden
		}
		r.leaveClock(p)
		r.remove(p)
		r.mu.Unlock() // nobody waits for r.mu with the gate
		p.close(h)
		r.mu.Lock()
		return nil
	}
	if len(r.cold.left) == 0 && r.cold.parking.n == 0 {
		return nil
	}
	r.mu.Unlock()
	rec, ok, err := r.cold.dir.Load(ctx, name)
	r.mu.Lock()
	if err != nil || !ok {
		return err
	}
	if v, large, ok := r.cold.parking.take(rec.Index); ok {
		v.handOver(h, large)
	}
	if p := r.cold.left[rec.Index].Value(); p != nil {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
	}
	delete(r.cold.left, rec.Index)
	return nil
}

// Hides reports whether the entry of that name is in the Directory and was taken
// out of the keyring, by [Keyring.Remove] or by a session of its name.
func (r *Keyring) Hides(name string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.cold == nil {
		return false
	}
	_, ok := r.cold.hidden[name]
	return ok
}

// Hot returns the peers that are ready to use, in no order: all of them, but for
// those of a [Directory] that nobody asked for of late. It brings none in.
func (r *Keyring) Hot() []*Peer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]*Peer, 0, len(r.names))
	for _, p := range r.names {
		all = append(all, p)
	}
	return all
}

// Conflict returns ErrDuplicate if an entry that a [Directory] is about to write
// cannot stand beside a peer that was added to the keyring, or beside an EDHOC
// session. A peer of its own name hides it.
func (r *Keyring) Conflict(e *Entry) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if _, ok := r.held[string(e.Params.RecipientID)]; ok {
		return fmt.Errorf("%w: entry %q: recipient ID %x belongs to an EDHOC session", ErrDuplicate, e.Name, e.Params.RecipientID)
	}
	if r.cold == nil || len(r.names) == len(r.cold.clock) {
		return nil
	}
	p, err := r.blank(*e)
	if err != nil {
		return err
	}
	return r.clash(p, func(q *Peer) bool { return !q.cold && q.entry.Name != e.Name })
}

// each calls fn for each peer, those added and those in the Directory, in the order
// of their names, while it returns true.
func (r *Keyring) each(added []*Peer, fn func(*Peer) bool) error {
	last := ""
	for {
		names, err := r.cold.dir.Names(r.ctx, last, 1000)
		if err != nil {
			return err
		}
		for _, name := range names {
			for len(added) > 0 && added[0].entry.Name <= name {
				if !fn(added[0]) {
					return nil
				}
				added = added[1:]
			}
			p, err := r.bring(name, nil)
			if err != nil {
				return err
			}
			if p != nil && p.cold && !fn(p) {
				return nil
			}
		}
		if len(names) == 0 {
			break
		}
		last = names[len(names)-1]
	}
	for _, p := range added {
		if !fn(p) {
			return nil
		}
	}
	return nil
}

// leaveAll hands over what is parked, a part at a time, in the order in which a store
// has it: neighbours share its pages. The keyring is closed.
func (r *Keyring) leaveAll(ctx context.Context) error {
	const part = 100_000
	r.mu.Lock()
	for name, gate := range r.cold.gates {
		// Somebody is bringing it in, and will find the keyring closed.
		r.mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
			return fmt.Errorf("keys: entry %q: %w", name, ctx.Err())
		}
		r.mu.Lock()
	}
	defer r.mu.Unlock()
	k := &r.cold.parking
	windows := k.inOrder(func(v *parked) (*Identity, bool) { return &v.recipient, v.size != 0 })
	for some := range slices.Chunk(windows, part) {
		h := handOver{windows: make([]Window, 0, len(some))}
		for _, index := range some {
			v := k.at(index)
			s, _ := v.window(k.large[index])
			h.windows = append(h.windows, Window{v.recipient, s})
		}
		if err := r.save(ctx, &h); err != nil {
			return err
		}
	}
	used := k.inOrder(func(v *parked) (*Identity, bool) { return &v.id, v.encrypted != v.noted })
	for some := range slices.Chunk(used, part) {
		h := handOver{used: make([]Used, 0, len(some))}
		for _, index := range some {
			v := k.at(index)
			h.used = append(h.used, Used{v.id, uint64(v.encrypted)})
		}
		if err := r.save(ctx, &h); err != nil {
			return err
		}
	}
	*k = parking{}
	return nil
}
