package handshake

import (
	"errors"

	"github.com/oscorelay/oscorelay/keys/edhoc"
)

// trigger answers an empty POST with message_1 (RFC 9528 Appendix A.2.2).
func (s *Service) trigger(in inbound) {
	ci, err := s.cfg.Ring.ReserveFreeID()
	if err != nil {
		s.busy(in, "busy")
		return
	}
	message1, wait2, err := s.initiator.Message1(edhoc.Start{ConnectionID: ci})
	if err != nil {
		s.cfg.Ring.ReleaseID(ci)
		s.refuse(in, localError{err})
		return
	}
	s.keep(in.now, &session{id: string(ci), host: hostOf(in.source), wait2: wait2})
	in.changed(message1)
}

// message2 answers message_2 with message_3 and enters the context. With
// message_4 to come the session waits for it first: until then the peer may not
// have the keys, and an earlier context keeps its place.
func (s *Service) message2(in inbound, x *session, message2 []byte) {
	message3, done, err := s.answer2(x, message2)
	if err != nil {
		s.cfg.Ring.ReleaseID([]byte(x.id))
		s.refuse(in, err)
		return
	}
	if s.cfg.Message4 {
		s.keep(in.now, &session{id: x.id, host: x.host, wait4: done})
		in.changed(message3)
		return
	}
	if !s.established(in, done) {
		return
	}
	in.changed(message3)
}

// established enters the context, or says why that fails.
func (s *Service) established(in inbound, done *edhoc.InitiatorDone) bool {
	var err error
	s.pool.aside(func() { _, err = s.enter(in.now, in.source, done.Session(), true) })
	end(done)
	if err != nil {
		s.refuse(in, err)
	}
	return err == nil
}

func (s *Service) answer2(x *session, message2 []byte) ([]byte, *edhoc.InitiatorDone, error) {
	got, err := x.wait2.Message2(message2)
	if err != nil {
		return nil, nil, err
	}
	verified, err := got.Authenticate(s.trust)
	if err != nil {
		return nil, nil, err
	}
	return verified.Message3()
}

// message4 ends the reverse flow where the profile has message_4.
func (s *Service) message4(in inbound, x *session, message4 []byte) {
	if _, err := x.wait4.Message4(message4); err != nil {
		if errors.Is(err, edhoc.ErrIgnored) {
			s.keep(in.now, x)
		} else {
			s.cfg.Ring.ReleaseID([]byte(x.id))
		}
		s.refuse(in, err)
		return
	}
	if s.established(in, x.wait4) {
		in.changed(nil)
	}
}
