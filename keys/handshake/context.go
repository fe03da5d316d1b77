package handshake

import (
	"container/list"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
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

// enter puts a session's context into the ring, in place of an earlier one of
// the same peer, and has it made durable if told to.
func (s *Service) enter(now time.Time, source string, session *edhoc.Session, durable bool) (string, error) {
	ci, cr := session.ConnectionIDs()
	own := cr
	if session.Role() == edhoc.RoleInitiator {
		own = ci
	}
	e, err := s.entry(session)
	if err != nil {
		s.cfg.Ring.ReleaseID(own)
		return "", localError{err}
	}
	defer clear(e.Params.MasterSecret)
	s.ctxMu.Lock()
	defer s.ctxMu.Unlock()
	if _, err := s.cfg.Ring.AddSession(context.Background(), e); err != nil {
		s.cfg.Ring.ReleaseID(own)
		return "", localError{err}
	}
	s.note(now, e.Name)
	if durable && s.cfg.Established != nil {
		if err := s.cfg.Established(e.Clone()); err != nil {
			s.removeLocked(e.Name)
			return "", localError{fmt.Errorf("handshake: making the context durable: %w", err)}
		}
	}
	s.tell(e.Name)
	s.prune(now)
	s.event("established", e.Name, source, nil)
	return e.Name, nil
}

// note remembers when a context was made. ctxMu is held.
func (s *Service) note(now time.Time, name string) {
	if e := s.contexts[name]; e != nil {
		s.ctxAge.Remove(e)
	}
	c := contextAge{name: name}
	if s.cfg.ContextLifetime > 0 {
		c.until = now.Add(s.cfg.ContextLifetime)
	}
	s.contexts[name] = s.ctxAge.PushBack(c)
}

// prune takes out what is too old or too many. ctxMu is held.
func (s *Service) prune(now time.Time) {
	var next *list.Element
	for e := s.ctxAge.Front(); e != nil; e = next {
		next = e.Next()
		c := e.Value.(contextAge)
		if s.ctxAge.Len() <= s.cfg.MaxContexts && (c.until.IsZero() || now.Before(c.until)) {
			return // the others are younger
		}
		s.removeLocked(c.name)
		s.event("expired", c.name, "", nil)
		if s.cfg.Removed != nil {
			s.cfg.Removed(c.name)
		}
	}
}

// Adopt counts a peer whose context an earlier process made among those that
// MaxContexts and ContextLifetime bound, as if made now.
func (s *Service) Adopt(now time.Time, name string) {
	s.ctxMu.Lock()
	defer s.ctxMu.Unlock()
	s.note(now, name)
	s.prune(now)
}

// Expire ends sessions and contexts whose time is over. Call it now and then;
// traffic does it, too.
func (s *Service) Expire(now time.Time) {
	s.expire(now)
	s.ctxMu.Lock()
	defer s.ctxMu.Unlock()
	s.prune(now)
}

// Remove takes out the context of a peer.
func (s *Service) Remove(name string) {
	s.ctxMu.Lock()
	defer s.ctxMu.Unlock()
	s.removeLocked(name)
	if s.cfg.Removed != nil {
		s.cfg.Removed(name)
	}
}

func (s *Service) removeLocked(name string) {
	if e := s.contexts[name]; e != nil {
		s.ctxAge.Remove(e)
		delete(s.contexts, name)
	}
	_ = s.cfg.Ring.Remove(context.Background(), name) // gone already is as good
	s.tell(name)
}

func (s *Service) tell(name string) {
	for _, f := range s.watchers {
		f(name)
	}
}
