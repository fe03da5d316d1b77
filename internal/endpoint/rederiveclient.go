package endpoint

import (
	"errors"
	"slices"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// derivation is a client's run of Appendix B.2, between request #1 and
// response #1.
type derivation struct {
	id1     []byte
	pending oscore.Pending
}

// mustDerive decides whether an exchange begins with Appendix B.2, and claims
// the peer for it.
func (x *Exchange) mustDerive(asked bool) (bool, error) {
	settings, tainted := x.peer.Settings(), x.peer.Tainted()
	able := settings.Rederive&oscore.RoleClient != 0
	if !able {
		switch {
		case tainted:
			return false, ErrTainted
		case asked:
			return false, ErrRederive
		}
		return false, nil
	}
	if x.e.find(x.peer.Name()) == nil && !asked && !tainted && !settings.RederiveOnStart {
		return false, nil
	}
	s := x.e.state(x.peer.Name())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deriving != nil {
		return false, &BusyError{s.deriving}
	}
	if !asked && !tainted && !(settings.RederiveOnStart && !s.started) && s.failures < x.e.cfg.RederiveAfter {
		return false, nil
	}
	x.startDeriving(s)
	return true, nil
}

// startDeriving claims the peer for the exchange. s.mu is held.
func (x *Exchange) startDeriving(s *peerState) {
	s.deriving = make(chan struct{})
	x.deriving = s
}

// stopDeriving releases the peer after a run of Appendix B.2.
func (x *Exchange) stopDeriving() {
	s := x.deriving
	if s == nil {
		return
	}
	x.deriving = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.deriving)
	s.deriving = nil
}

// startDerivation returns request #1. It asks for nothing: the server does not
// act on it.
func (x *Exchange) startDerivation() (oscore.Message, error) {
	d := &derivation{id1: make([]byte, saltLen)}
	if err := x.e.random(d.id1); err != nil {
		return oscore.Message{}, err
	}
	first, err := x.peer.Derive(d.id1, oscore.WrapBstr(d.id1))
	if err != nil {
		return oscore.Message{}, err
	}
	first.Begin()
	m, err := first.SealRequest(nil, &d.pending, oscore.Message{Code: byte(coap.GET)})
	x.derivation = d
	return m, err
}

// receiveFirst processes response #1 to a request whose ID Context is id1, and
// goes on with request #2, which is the application's own (step 3).
func (x *Exchange) receiveFirst(p *oscore.Pending, id1 []byte, opt oscore.Option, m oscore.Message) Step {
	if opt.KIDContext == nil {
		return x.wait(oscore.ErrDecrypt) // response #1 has R2 there
	}
	r2, err := oscore.UnwrapBstr(opt.KIDContext)
	if err != nil || len(r2) == 0 || len(r2)+max(len(id1), saltLen) > oscore.MaxIDContext {
		return x.wait(oscore.ErrDecode)
	}
	second, err := x.peer.Derive(slices.Concat(r2, id1), nil)
	if err != nil {
		return x.wait(err)
	}
	inner, err := p.OpenUnder(nil, second, m)
	if err != nil {
		return x.wait(err)
	}
	if coap.Code(inner.Code) != coap.Unauthorized {
		return x.fail(ErrRederive)
	}
	if err := x.joinRun(); err != nil {
		return x.fail(err)
	}
	id3 := make([]byte, len(r2)+saltLen)
	copy(id3, r2)
	if err := x.e.random(id3[len(r2):]); err != nil {
		return x.fail(err)
	}
	third, err := x.peer.Derive(id3, oscore.WrapBstr(id3))
	if err != nil {
		return x.fail(err)
	}
	third.Begin()
	x.derivation, x.third = nil, third
	return x.resend()
}

// joinRun claims the peer for a run that the server initiated. Of several
// requests that it answered so one goes on; the others fail with BusyError,
// to be begun again under the context to come.
func (x *Exchange) joinRun() error {
	if x.deriving != nil {
		return nil
	}
	s := x.e.state(x.peer.Name())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deriving != nil {
		return &BusyError{s.deriving}
	}
	x.startDeriving(s)
	return nil
}

// adopt makes the third context the peer's own once response #2 has verified
// (step 5). Others may send only then.
func (x *Exchange) adopt() error {
	if x.third == nil {
		return nil
	}
	third := x.third
	x.third = nil
	if err := x.peer.Adopt(third); err != nil {
		return errors.Join(ErrRederive, err)
	}
	x.e.adopted(x.peer.Name())
	x.stopDeriving()
	x.e.event(Event{Reason: ReasonRederived, Peer: x.peer.Name()})
	return nil
}
