package handshake

import (
	"container/list"
	"time"

	"github.com/oscorelay/oscorelay/keys/edhoc"
)

// session is a handshake that waits for the client's next message. One of the
// states is set.
type session struct {
	id       string // C_R in the forward flow, C_I in the reverse one
	host     string // that began it
	deadline time.Time
	at       *list.Element // nil: taken out, a worker has it

	wait3 *edhoc.WaitMessage3  // forward: message_3
	wait2 *edhoc.WaitMessage2  // reverse: message_2
	wait4 *edhoc.InitiatorDone // reverse: message_4
}

func (x *session) abort() {
	switch {
	case x.wait3 != nil:
		x.wait3.Abort()
	case x.wait2 != nil:
		x.wait2.Abort()
	case x.wait4 != nil:
		x.wait4.Abort()
		x.wait4.Session().Wipe()
	}
}

// keep enters a session, for which the oldest may have to make room.
func (s *Service) keep(now time.Time, x *session) {
	s.mu.Lock()
	var gone []*session
	for len(s.sessions) >= s.cfg.MaxSessions && s.byAge.Len() > 0 {
		gone = append(gone, s.takeLocked(s.byAge.Front().Value.(*session)))
	}
	if x.deadline.IsZero() {
		x.deadline = now.Add(s.cfg.SessionLifetime)
		x.at = s.byAge.PushBack(x)
	} else {
		s.putBack(x)
	}
	s.sessions[x.id] = x
	s.mu.Unlock()
	s.drop(gone, "evicted")
}

// putBack gives a session its place again: what is sent to it makes it no
// younger.
func (s *Service) putBack(x *session) {
	older := s.byAge.Back()
	for older != nil && !older.Value.(*session).deadline.Before(x.deadline) {
		older = older.Prev()
	}
	if older == nil {
		x.at = s.byAge.PushFront(x)
		return
	}
	x.at = s.byAge.InsertAfter(x, older)
}

// take takes a session out for its next message: nobody else finds it, so that
// no message is processed twice. From another host than the one that began it
// nobody finds it either: identifiers are short, and whoever guesses one could
// end the session (RFC 9528 §9.7).
func (s *Service) take(now time.Time, source string, id []byte) *session {
	s.expire(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[string(id)]
	if x == nil || x.host != hostOf(source) && !s.cfg.Roaming {
		return nil
	}
	return s.takeLocked(x)
}

func (s *Service) takeLocked(x *session) *session {
	s.byAge.Remove(x.at)
	x.at = nil
	delete(s.sessions, x.id)
	return x
}

// expire ends the sessions that went no further.
func (s *Service) expire(now time.Time) {
	s.mu.Lock()
	var gone []*session
	for e := s.byAge.Front(); e != nil; {
		next := e.Next()
		if x := e.Value.(*session); !now.Before(x.deadline) {
			gone = append(gone, s.takeLocked(x))
		} else {
			break // the others are younger
		}
		e = next
	}
	s.mu.Unlock()
	s.drop(gone, "expired")
}

// drop ends sessions and gives their identifiers back.
func (s *Service) drop(gone []*session, reason string) {
	for _, x := range gone {
		x.abort()
		s.cfg.Ring.ReleaseID([]byte(x.id))
		s.event(reason, "", "", nil)
	}
}

// Sessions returns the number of half-open sessions.
func (s *Service) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}
