package handshake

import (
	"errors"
	"time"

	"github.com/oscorelay/oscorelay/keys/edhoc"
)

// message1 answers message_1 with message_2 (RFC 9528 Appendix A.2.1).
func (s *Service) message1(in inbound, message1 []byte) {
	if s.responder == nil {
		s.refuse(in, edhoc.ErrMethod)
		return
	}
	got, err := s.responder.Message1(message1)
	if err != nil {
		s.refuse(in, err)
		return
	}
	cr, err := s.cfg.Ring.ReserveFreeID(got.Message().CI)
	if err != nil {
		got.Abort()
		s.busy(in, "busy")
		return
	}
	message2, wait3, err := got.Message2(edhoc.Reply{ConnectionID: cr})
	if err != nil {
		s.cfg.Ring.ReleaseID(cr)
		s.refuse(in, err)
		return
	}
	s.keep(in.now, &session{id: string(cr), host: hostOf(in.source), wait3: wait3})
	in.changed(message2)
}

// message3 ends the forward flow, with message_4 if the profile has it.
func (s *Service) message3(in inbound, x *session, message3 []byte) {
	done, err := s.finish(in.now, in.source, x, message3)
	if err != nil {
		s.refuse(in, err)
		return
	}
	defer end(done)
	if !s.cfg.Message4 && !s.cfg.OfferMessage4 {
		in.changed(nil)
		return
	}
	message4, err := done.Message4()
	if err != nil {
		s.refuse(in, err)
		return
	}
	in.changed(message4)
}

// end wipes what is left of a handshake whose context is entered: nobody asks
// the server's side for more keys.
func end(done interface {
	Abort()
	Session() *edhoc.Session
},
) {
	done.Abort()
	done.Session().Wipe()
}

// finish processes message_3 and enters the context. The session is over,
// except after a forgery that was put aside.
func (s *Service) finish(now time.Time, source string, x *session, message3 []byte) (*edhoc.ResponderDone, error) {
	got, err := x.wait3.Message3(message3)
	if errors.Is(err, edhoc.ErrIgnored) {
		s.keep(now, x)
		return nil, err
	}
	var done *edhoc.ResponderDone
	if err == nil {
		done, err = got.Authenticate(s.trust)
	}
	if err != nil {
		s.cfg.Ring.ReleaseID([]byte(x.id))
		return nil, err
	}
	s.pool.aside(func() { _, err = s.enter(now, source, done.Session(), true) })
	if err != nil {
		end(done)
		return nil, err
	}
	return done, nil
}
