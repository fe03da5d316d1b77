package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/oscorelay/oscorelay/oscore"
)

// Keyring finds peers and keeps their state in a store. It implements
// [oscore.Keyring] and is safe for concurrent use.
type Keyring struct {
	store    SSNStore
	ctx      context.Context
	cancel   context.CancelFunc
	inFlight sync.WaitGroup // reservations and notes under way
	cold     *cold          // nil without a Directory

	mu      sync.RWMutex
	closed  bool
	names   map[string]*Peer
	kids    map[string]*sharers
	pairs   map[pair]*Peer
	senders map[Identity]*Peer
	readers map[Identity]*Peer  // by the recipient's identity
	held    map[string]struct{} // identifiers of EDHOC sessions
}

var _ oscore.Keyring = (*Keyring)(nil)

// pair is a kid with a kid context as it travels.
type pair struct{ kid, kidContext string }

// sharers are the peers with one kid.
type sharers struct {
	bare     []*Peer // send no kid context: MaxCandidates at most
	named    []*Peer // told apart by their kid context
	rederive []*Peer // of both, those that may begin Appendix B.2: MaxCandidates at most
	complete uint64  // the Directory has no more of them than these, as of that cold.changes
}

// New returns an empty keyring on a store. What the store can do beside
// reserving numbers it finds out by itself. A store serves one keyring at a time:
// two would each accept a message that the other accepted.
func New(store SSNStore) *Keyring {
	ctx, cancel := context.WithCancel(context.Background())
	return &Keyring{
		store: store, ctx: ctx, cancel: cancel,
		names: map[string]*Peer{}, kids: map[string]*sharers{}, pairs: map[pair]*Peer{}, senders: map[Identity]*Peer{}, readers: map[Identity]*Peer{}, held: map[string]struct{}{},
	}
}

// Find implements [oscore.Keyring]. A kid context that nobody has never falls
// back to the kid alone, except as a message of Appendix B.2 to peers that
// answer those.
func (r *Keyring) Find(dst []oscore.Peer, kid, kidContext []byte) ([]oscore.Peer, oscore.Match) {
	r.mu.RLock()
	out, match, sure := r.findHot(dst, kid, kidContext)
	r.mu.RUnlock()
	if !sure {
		return r.findCold(dst, kid, kidContext)
	}
	return out, match
}

// findHot is Find among the peers in memory. sure says that the Directory, if
// there is one, has no other answer. The caller holds r.mu.
func (r *Keyring) findHot(dst []oscore.Peer, kid, kidContext []byte) (_ []oscore.Peer, _ oscore.Match, sure bool) {
	sure = r.cold == nil
	s := r.kids[string(kid)]
	if kidContext != nil {
		if p, ok := r.pairs[pair{string(kid), string(kidContext)}]; ok {
			return append(dst, p), oscore.MatchExact, true
		}
		if s == nil || len(s.rederive) == 0 {
			return dst, oscore.MatchNone, sure
		}
		if _, err := oscore.UnwrapBstr(kidContext); err != nil {
			return dst, oscore.MatchNone, sure
		}
		for _, p := range s.rederive {
			dst = append(dst, p)
		}
		return dst, oscore.MatchRederive, sure
	}
	if s != nil {
		n := oscore.MaxCandidates
		for _, p := range s.bare {
			dst, n = append(dst, p), n-1
		}
		for _, p := range s.named[:min(n, len(s.named))] {
			dst = append(dst, p)
		}
		return dst, oscore.MatchKID, sure || s.complete == r.cold.changes
	}
	if _, ok := r.held[string(kid)]; ok {
		return dst, oscore.MatchSession, true // no entry has it
	}
	return dst, oscore.MatchNone, sure
}

// Peer implements [oscore.Keyring].
func (r *Keyring) Peer(name string) (oscore.Peer, bool) {
	p, ok := r.Get(name)
	if !ok {
		return nil, false // no nil *Peer in an interface
	}
	return p, true
}

// Get returns the peer of that name as its own type. ok is false too if a
// [Directory] fails, which [DirectoryOptions].OnError is told.
func (r *Keyring) Get(name string) (p *Peer, ok bool) {
	r.mu.RLock()
	p, ok = r.names[name]
	r.mu.RUnlock()
	if ok || r.cold == nil {
		return p, ok
	}
	p, err := r.bring(name, nil)
	if err != nil {
		r.failed(fmt.Errorf("keys: looking up %q: %w", name, err))
		return nil, false
	}
	return p, p != nil
}

// failed tells that a Directory failed where there is no other way to tell.
func (r *Keyring) failed(err error) {
	if r.cold.onError != nil {
		r.cold.onError(err)
	}
}

// Len returns the number of peers.
func (r *Keyring) Len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.cold == nil {
		return len(r.names)
	}
	n := len(r.names) - len(r.cold.clock) + r.cold.dir.Len()
	for name := range r.cold.hidden {
		if _, ok, err := r.cold.dir.Load(r.ctx, name); ok && err == nil {
			n--
		}
	}
	return n
}

// Peers iterates over the peers, in the order of their names: as they are now, or
// those of a [Directory] one after the other, until it fails.
func (r *Keyring) Peers() iter.Seq[*Peer] {
	r.mu.RLock()
	all := make([]*Peer, 0, len(r.names))
	for _, p := range r.names {
		if !p.cold {
			all = append(all, p)
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(all, func(a, b *Peer) int { return strings.Compare(a.entry.Name, b.entry.Name) })
	if r.cold == nil {
		return slices.Values(all)
	}
	return func(yield func(*Peer) bool) {
		if err := r.each(all, yield); err != nil {
			r.failed(err)
		}
	}
}

// Add adds a peer. If the store does not know its material the peer is tainted;
// if Appendix B.2 gave it another context before, it comes back with that one.
//
// Errors: what [Entry.Check] finds; ErrDuplicate for a name, a key or a pair of
// kid and kid context that another peer has, and for more peers on one kid than
// can be tried in turn; what the store says.
func (r *Keyring) Add(ctx context.Context, e Entry) (*Peer, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	return r.add(ctx, e, false)
}

// add adds a peer. The window of fresh material is open from the beginning.
func (r *Keyring) add(ctx context.Context, e Entry, fresh bool) (*Peer, error) {
	p, err := r.newPeer(ctx, e.Clone())
	if err != nil {
		return nil, err
	}
	if fresh && p.taint == nil && p.derived == nil {
		p.ctx.SetWindow(oscore.Fresh(e.Params.WindowSize))
	}
	r.mu.Lock()
	if err = r.apart(ctx, &p.entry); err == nil {
		err = r.insert(p)
	}
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if fresh {
		return p, nil
	}
	if err := p.takeWindow(ctx); err != nil {
		return nil, errors.Join(err, r.Remove(ctx, e.Name))
	}
	return p, nil
}

// AddNew adds a peer whose material was never used anywhere, neither here nor
// by the other end: a key just agreed on. The store remembers it from now on;
// material that it knows already keeps its numbers. On material that was used
// it repeats nonces.
func (r *Keyring) AddNew(ctx context.Context, e Entry) (*Peer, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	created, _, err := declare(ctx, r.store, &e.Params)
	if err != nil {
		return nil, fmt.Errorf("keys: entry %q: %w", e.Name, err)
	}
	return r.add(ctx, e, created)
}

// DeclareNew tells a store that material was never used anywhere, as a tool
// does that makes or imports keys for a keyring to use later. A store without
// [History] needs no telling.
func DeclareNew(ctx context.Context, store SSNStore, p *oscore.Params) error {
	created, recipient, err := declare(ctx, store, p)
	if err != nil || !created {
		return err
	}
	if w, ok := store.(WindowStore); ok {
		// Nothing was received either: the window may begin open, once.
		fresh := oscore.Fresh(p.WindowSize)
		s, _ := fresh.State()
		return w.PutWindows(ctx, []Window{{recipient, s}})
	}
	return nil
}

// declare makes material known to a store, and reports whether it is new there.
func declare(ctx context.Context, store SSNStore, p *oscore.Params) (created bool, recipient Identity, err error) {
	h, ok := store.(History)
	if !ok {
		return false, recipient, nil
	}
	sender, recipient, err := Identities(p)
	if err != nil {
		return false, recipient, err
	}
	created, err = h.Declare(ctx, sender[:], 0)
	return created, recipient, err
}

// apart returns ErrDuplicate if the Directory has an entry that e cannot stand
// beside. The caller holds r.mu.
func (r *Keyring) apart(ctx context.Context, e *Entry) error {
	if r.cold == nil {
		return nil
	}
	if _, ok := r.cold.hidden[e.Name]; !ok {
		if _, ok, err := r.cold.dir.Load(ctx, e.Name); err != nil {
			return err
		} else if ok {
			return fmt.Errorf("%w: there is already an entry named %q", ErrDuplicate, e.Name)
		}
	}
	return r.cold.dir.Clash(ctx, e)
}

// insert enters p into every index, or none. The caller holds r.mu.
func (r *Keyring) insert(p *Peer) error {
	if r.closed {
		return ErrClosed
	}
	if err := r.clash(p, nil); err != nil {
		return err
	}
	kid := string(p.entry.Params.RecipientID)
	s := r.kids[kid]
	if s == nil {
		s = &sharers{}
		r.kids[kid] = s
	}
	if p.bare() {
		s.bare = append(s.bare, p)
	} else {
		p.slot = len(s.named)
		s.named = append(s.named, p)
	}
	if p.answersRederive() {
		s.rederive = append(s.rederive, p)
	}
	for _, k := range p.pairKeys() {
		r.pairs[k] = p
	}
	r.names[p.entry.Name] = p
	r.senders[p.base], r.senders[p.id] = p, p
	r.readers[p.recipient] = p
	return nil
}

// clash returns ErrDuplicate if p cannot stand beside the peers that are there,
// apart from those that other is false for. The caller holds r.mu.
func (r *Keyring) clash(p *Peer, other func(*Peer) bool) error {
	e := &p.entry
	counts := func(q *Peer, ok bool) bool { return ok && (other == nil || other(q)) }
	if q, ok := r.names[e.Name]; counts(q, ok) {
		return fmt.Errorf("%w: there is already a peer named %q", ErrDuplicate, e.Name)
	}
	for _, id := range []Identity{p.base, p.id} {
		if q, ok := r.senders[id]; counts(q, ok) {
			return fmt.Errorf("%w: entries %q and %q have one sender key (same master secret, salt, ID context and sender ID)",
				ErrDuplicate, q.entry.Name, e.Name)
		}
	}
	if q, ok := r.readers[p.recipient]; counts(q, ok) {
		// Each would accept what the other accepted: a replay.
		return fmt.Errorf("%w: entries %q and %q have one recipient key (same master secret, salt, ID context and recipient ID)",
			ErrDuplicate, q.entry.Name, e.Name)
	}
	kid := string(e.Params.RecipientID)
	if _, ok := r.held[kid]; ok {
		return fmt.Errorf("%w: entry %q: recipient ID %x belongs to an EDHOC session", ErrDuplicate, e.Name, kid)
	}
	for _, k := range p.pairKeys() {
		if q, ok := r.pairs[k]; counts(q, ok) {
			return fmt.Errorf("%w: entries %q and %q have one recipient ID %x and one ID context %x: give one another ID",
				ErrDuplicate, q.entry.Name, e.Name, kid, e.Params.IDContext)
		}
	}
	s := r.kids[kid]
	if s == nil {
		return nil
	}
	number := func(all []*Peer) (n int) {
		for _, q := range all {
			if counts(q, true) {
				n++
			}
		}
		return n
	}
	if p.bare() && number(s.bare) >= oscore.MaxCandidates {
		return fmt.Errorf("%w: entry %q: recipient ID %x is shared by %d entries without kid context already (%q is one): give it another ID or an ID context",
			ErrDuplicate, e.Name, kid, len(s.bare), s.bare[0].entry.Name)
	}
	if p.answersRederive() && number(s.rederive) >= oscore.MaxCandidates {
		return fmt.Errorf("%w: entry %q: recipient ID %x is shared by %d entries that answer Appendix B.2 already (%q is one): give it another ID",
			ErrDuplicate, e.Name, kid, len(s.rederive), s.rederive[0].entry.Name)
	}
	return nil
}

// remove undoes insert. The caller holds r.mu.
func (r *Keyring) remove(p *Peer) {
	kid := string(p.entry.Params.RecipientID)
	s := r.kids[kid]
	s.complete = 0
	same := func(q *Peer) bool { return q == p }
	if p.bare() {
		s.bare = slices.DeleteFunc(s.bare, same)
	} else {
		last := s.named[len(s.named)-1]
		s.named[p.slot], last.slot = last, p.slot
		s.named = s.named[:len(s.named)-1]
	}
	s.rederive = slices.DeleteFunc(s.rederive, same)
	if len(s.bare)+len(s.named) == 0 {
		delete(r.kids, kid)
	}
	for _, k := range p.pairKeys() {
		delete(r.pairs, k)
	}
	delete(r.names, p.entry.Name)
	delete(r.senders, p.base)
	delete(r.senders, p.id)
	delete(r.readers, p.recipient)
}

// bare reports whether the peer is found by its kid alone.
func (p *Peer) bare() bool {
	return p.entry.Params.IDContext == nil || p.entry.Params.OmitKIDContext
}

// answersRederive reports whether the peer may send request #1 of Appendix B.2.
func (p *Peer) answersRederive() bool { return p.entry.Settings.Rederive&oscore.RoleServer != 0 }

// pairKeys returns what names the peer together with its kid: its ID Context,
// and the wrapped form if the context comes from Appendix B.2. The caller
// holds r.mu.
func (p *Peer) pairKeys() []pair {
	kid := string(p.entry.Params.RecipientID)
	if p.derived != nil {
		return []pair{{kid, string(p.derived)}, {kid, string(oscore.WrapBstr(p.derived))}}
	}
	if c := p.entry.Params.IDContext; c != nil {
		return []pair{{kid, string(c)}}
	}
	return nil
}

// Remove removes a peer and saves its window. The store keeps its numbers, so
// that the same material added again goes on where it stopped. An entry in a
// [Directory] stays there: it is the Directory's to remove, and is found again
// when it is written anew, or by the next keyring.
func (r *Keyring) Remove(ctx context.Context, name string) error {
	_, err := r.end(ctx, name, true)
	return err
}

// Forget removes a peer whose keys are gone for good, such as those of an EDHOC
// session, and lets the store forget its numbers. The same material added again
// is tainted.
func (r *Keyring) Forget(ctx context.Context, name string) error {
	p, err := r.end(ctx, name, false)
	if err != nil {
		return err
	}
	return r.forget(ctx, p)
}

// forget has the store forget the numbers of a peer that was taken out.
func (r *Keyring) forget(ctx context.Context, p *Peer) error {
	h, ok := r.store.(History)
	if !ok {
		return nil
	}
	err := h.Forget(ctx, p.base[:])
	if err == nil && p.id != p.base {
		err = h.Forget(ctx, p.id[:])
	}
	return err
}

// end takes a peer out of the indexes and ends it.
func (r *Keyring) end(ctx context.Context, name string, save bool) (*Peer, error) {
	if _, ok := r.Get(name); !ok { // which brings it in
		return nil, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	r.mu.Lock()
	if r.cold != nil {
		if err := r.enter(ctx, name); err != nil {
			r.mu.Unlock()
			return nil, err
		}
		defer func() {
			r.mu.Lock()
			r.leave(name)
			r.mu.Unlock()
		}()
	}
	p, ok := r.names[name]
	if ok {
		if p.cold {
			r.leaveClock(p)
			r.cold.hidden[name] = struct{}{}
			r.cold.changes++
		}
		r.remove(p)
	}
	r.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	var h handOver
	p.close(&h)
	if !save {
		return p, nil
	}
	return p, r.save(ctx, &h)
}

// Close ends every peer and hands their replay windows over to the store. It
// does not close the store.
func (r *Keyring) Close(ctx context.Context) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	all := make([]*Peer, 0, len(r.names))
	for _, p := range r.names {
		all = append(all, p)
	}
	r.mu.Unlock()
	r.cancel()
	var h handOver
	for _, p := range all {
		p.close(&h)
	}
	landed := make(chan struct{})
	go func() {
		r.inFlight.Wait()
		close(landed)
	}()
	select {
	case <-landed:
	case <-ctx.Done():
		return ctx.Err() // the store hangs
	}
	slices.SortFunc(h.windows, func(a, b Window) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	if err := r.save(ctx, &h); err != nil {
		return err
	}
	if r.cold == nil {
		return nil
	}
	return r.leaveAll(ctx)
}
