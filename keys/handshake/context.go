package handshake

import (
	"container/list"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/edhoc"
)

// Prefix begins the names of peers that come from handshakes.
const Prefix = "edhoc:"

// contextAge is a context that a handshake made.
type contextAge struct {
	name  string
	until time.Time // zero: no end
}

// PeerName returns the name in the keyring of the peer with a credential.
func (s *Service) PeerName(c *edhoc.Credential) string {
	name := s.cfg.Name(c)
	fits := name != "" && len(Prefix)+len(name) <= keys.MaxName && !strings.ContainsFunc(name, func(r rune) bool {
		return !unicode.IsPrint(r) || r == unicode.ReplacementChar || r == '/' || r == '\\'
	})
	if !fits {
		f := c.Fingerprint()
		name = hex.EncodeToString(f[:16])
	}
	return Prefix + name
}

// entry makes the keyring's entry of a session (RFC 9528 Appendix A.1).
func (s *Service) entry(session *edhoc.Session) (keys.Entry, error) {
	exported, err := session.Exported()
	if err != nil {
		return keys.Entry{}, err
	}
	params, err := exported.Params()
	if err != nil {
		return keys.Entry{}, err
	}
	return keys.Entry{Name: s.PeerName(session.Peer()), Params: params, Notes: "EDHOC: " + session.Peer().String()}, nil
}

// entered is a context in the ring.
type entered struct {
	name  string
	at    *list.Element  // its note; another one is of another context
	old   *keys.Replaced // whose place it took
	until time.Time      // when that one ends; zero: never
}

// enter puts a session's context into the ring, in place of an earlier one of
// the same peer, and has it made durable if told to. What one name goes through
// is in order; other names do not wait for a slow disk.
func (s *Service) enter(now time.Time, source string, session *edhoc.Session, durable bool) (in entered, err error) {
	ci, cr := session.ConnectionIDs()
	own := cr
	if session.Role() == edhoc.RoleInitiator {
		own = ci
	}
	e, err := s.entry(session)
	if err != nil {
		s.cfg.Ring.ReleaseID(own)
		return in, localError{err}
	}
	defer clear(e.Params.MasterSecret)
	if in, err = s.enterEntry(now, own, e, durable); err != nil {
		return in, localError{err}
	}
	s.tell(e.Name)
	s.prune(now)
	s.event("established", e.Name, source, nil)
	return in, nil
}

func (s *Service) enterEntry(now time.Time, own []byte, e keys.Entry, durable bool) (in entered, err error) {
	defer s.names.lock(e.Name)()
	_, old, err := s.cfg.Ring.ReplaceSession(context.Background(), e)
	if err != nil {
		s.cfg.Ring.ReleaseID(own)
		return in, err
	}
	in = entered{name: e.Name, old: old}
	in.until, in.at = s.note(e.Name, s.lifetime(now))
	if !durable {
		return in, nil
	}
	if s.cfg.Established != nil {
		if err := s.cfg.Established(e.Clone()); err != nil {
			if !s.restore(in) {
				s.takeOut(e.Name, nil)
			}
			return in, fmt.Errorf("handshake: making the context durable: %w", err)
		}
	}
	s.forget(old)
	return in, nil
}

// forget lets the store forget the numbers of a context that is gone for good:
// when nothing durable names it any more. A crash before leaves 100 bytes.
func (s *Service) forget(old *keys.Replaced) {
	if err := old.Forget(context.Background()); err != nil {
		s.event("storage", old.Name(), "", err)
	}
}

// undo takes a context out that came to nothing, and puts the one back whose
// place it took, unless another has come meanwhile.
func (s *Service) undo(in entered) {
	defer s.names.lock(in.name)()
	s.ctxMu.Lock()
	now := s.contexts[in.name]
	s.ctxMu.Unlock()
	switch {
	case now != in.at:
		s.forget(in.old)
	case !s.restore(in):
		s.takeOut(in.name, s.cfg.Removed)
	}
}

// restore puts back the context whose place another took. The name is locked.
func (s *Service) restore(in entered) bool {
	failed, _ := s.cfg.Ring.Get(in.name)
	if _, err := in.old.Restore(context.Background()); err != nil {
		return false
	}
	s.note(in.name, in.until)
	if failed != nil {
		if err := failed.Forget(context.Background()); err != nil {
			s.event("storage", in.name, "", err)
		}
	}
	s.tell(in.name)
	return true
}

// nameLocks are locks by name, for as long as somebody holds or awaits them.
type nameLocks struct {
	mu    sync.Mutex
	locks map[string]*nameLock
}

type nameLock struct {
	mu    sync.Mutex
	users int
}

// lock locks a name and returns what unlocks it.
func (n *nameLocks) lock(name string) (unlock func()) {
	n.mu.Lock()
	l := n.locks[name]
	if l == nil {
		if n.locks == nil {
			n.locks = map[string]*nameLock{}
		}
		l = new(nameLock)
		n.locks[name] = l
	}
	l.users++
	n.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		n.mu.Lock()
		defer n.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(n.locks, name)
		}
	}
}

// lifetime returns when a context that is made now ends.
func (s *Service) lifetime(now time.Time) (until time.Time) {
	if s.cfg.ContextLifetime > 0 {
		until = now.Add(s.cfg.ContextLifetime)
	}
	return until
}

// note remembers when a context ends, among the others by that time, and
// returns when the one before was to end.
func (s *Service) note(name string, until time.Time) (before time.Time, at *list.Element) {
	s.ctxMu.Lock()
	defer s.ctxMu.Unlock()
	if e := s.contexts[name]; e != nil {
		before = s.ctxAge.Remove(e).(contextAge).until
	}
	at = s.ctxAge.PushBack(contextAge{name, until})
	for older := at.Prev(); older != nil && until.Before(older.Value.(contextAge).until); older = at.Prev() {
		s.ctxAge.MoveBefore(at, older)
	}
	s.contexts[name] = at
	return before, at
}

// prune takes out what is too old or too many.
func (s *Service) prune(now time.Time) {
	for {
		name, at := s.outdated(now)
		if at == nil {
			return
		}
		if s.removeIf(name, at) {
			s.event("expired", name, "", nil)
		}
	}
}

// outdated returns the oldest context if it has to go.
func (s *Service) outdated(now time.Time) (string, *list.Element) {
	s.ctxMu.Lock()
	defer s.ctxMu.Unlock()
	e := s.ctxAge.Front()
	if e == nil {
		return "", nil
	}
	c := e.Value.(contextAge)
	if s.ctxAge.Len() <= s.cfg.MaxContexts && (c.until.IsZero() || now.Before(c.until)) {
		return "", nil // the others are younger
	}
	return c.name, e
}

// Adopt counts a peer whose context an earlier process made among those that
// MaxContexts and ContextLifetime bound, as if made now.
func (s *Service) Adopt(now time.Time, name string) {
	s.note(name, s.lifetime(now))
	s.prune(now)
}

// Expire ends sessions and contexts whose time is over. Call it now and then;
// traffic does it, too.
func (s *Service) Expire(now time.Time) {
	s.expire(now)
	s.prune(now)
}

// Remove takes out the context of a peer.
func (s *Service) Remove(name string) { s.removeIf(name, nil) }

// removeIf takes out the context of a peer for good; with at set, only if it is
// still the one noted there.
func (s *Service) removeIf(name string, at *list.Element) bool {
	defer s.names.lock(name)()
	s.ctxMu.Lock()
	now := s.contexts[name]
	s.ctxMu.Unlock()
	if at != nil && now != at {
		return false
	}
	s.takeOut(name, s.cfg.Removed)
	return true
}

// takeOut takes the context of a name out of what is durable, and then out of
// the ring with its numbers. The name is locked.
func (s *Service) takeOut(name string, removed func(string)) {
	s.ctxMu.Lock()
	if e := s.contexts[name]; e != nil {
		s.ctxAge.Remove(e)
		delete(s.contexts, name)
	}
	s.ctxMu.Unlock()
	if removed != nil {
		removed(name)
	}
	if err := s.cfg.Ring.Forget(context.Background(), name); err != nil && !errors.Is(err, keys.ErrNotFound) {
		s.event("storage", name, "", err)
	}
	s.tell(name)
}

func (s *Service) tell(name string) {
	s.ctxMu.Lock()
	watchers := s.watchers[:len(s.watchers):len(s.watchers)]
	s.ctxMu.Unlock()
	for _, f := range watchers {
		f(name)
	}
}
