package object5

import (
	"errors"

	"github.com/oscorelay/oscorelay/fragment"
)

// Block is one block of a write to /5/0/0 (RFC 7959 §2.3). A write that is not
// block-wise is one block at offset 0.
type Block struct {
	Offset int64
	Data   []byte
	More   bool
	// Sealed says that the block came through OSCORE, so that nobody but the
	// server can have written it.
	Sealed bool
}

// push is a transfer that is coming in.
type push struct {
	receiver *fragment.Receiver
	failed   error // by the device or the policy, while the header was opened
}

// plainHeaders is how many headers that do not verify are taken for forgeries
// over plain CoAP before the package itself is.
const plainHeaders = 4

// WritePackage writes a block of /5/0/0. A single zero byte resets the
// machine. In a sealed transfer a bad page means that the sender lies: it ends
// the transfer. In a plain one anybody can have sent it: [NoAnswer], as if it
// had not come.
func (m *Machine) WritePackage(b Block) Code {
	defer m.run()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.r.State == Updating:
		return MethodNotAllowed
	case b.Offset == 0 && !b.More && (len(b.Data) == 0 || len(b.Data) == 1 && b.Data[0] == 0):
		return m.reset(Initial)
	case m.r.URI != "" || m.r.State == Downloaded:
		return MethodNotAllowed
	}
	if m.push == nil || b.Offset == 0 && m.push.receiver.Offset() > int64(len(b.Data)) {
		if b.Offset != 0 {
			return Incomplete
		}
		m.push = m.newPush()
	}
	p := m.push
	switch at := p.receiver.Offset(); {
	case b.Offset+int64(len(b.Data)) <= at:
		return Continue // a block that was taken already
	case b.Offset != at:
		return Incomplete // RFC 7959 §2.9.2: the sender begins anew
	}
	if _, err := p.receiver.Write(b.Data); err != nil {
		return m.refuse(err, b.Sealed)
	}
	if !p.receiver.Complete() {
		if b.More {
			return Continue
		}
		// The M bit ends what is not whole.
		if b.Sealed {
			return m.fail(IntegrityFailure, BadRequest)
		}
		return Incomplete
	}
	if err := p.receiver.Verifier().Image().Finish(); err != nil {
		return m.fail(ResultOf(err), InternalError)
	}
	return codeOf(m.downloaded(), Changed)
}

func (m *Machine) newPush() *push {
	p := &push{}
	p.receiver = fragment.NewReceiver(func(h fragment.Header) (*fragment.Verifier, error) {
		s, err := fragment.Open(h.Sign1, m.c.Keys...)
		if err != nil {
			return nil, err
		}
		v, err := m.open(s, h)
		p.failed = err
		return v, err
	})
	return p
}

// open prepares flash for a manifest whose signature has verified.
func (m *Machine) open(s *fragment.Signed, h fragment.Header) (*fragment.Verifier, error) {
	if err := m.policy().Check(s); err != nil {
		return nil, err
	}
	g, err := s.Geometry(h.Layout, h.Base)
	if err != nil {
		return nil, err
	}
	flash, journal, err := m.c.Device.Open(s)
	if err != nil {
		return nil, err
	}
	im, err := fragment.OpenImage(s, fragment.ImageConfig{Flash: flash, Journal: journal})
	if err != nil {
		return nil, err
	}
	v, err := fragment.NewVerifier(im, g, fragment.VerifierConfig{})
	if err != nil {
		return nil, err
	}
	return v, m.accept(s)
}

// refuse answers a block that could not be taken.
func (m *Machine) refuse(err error, sealed bool) Code {
	switch {
	case m.push.failed != nil:
		return m.fail(ResultOf(err), BadRequest)
	case errors.Is(err, fragment.ErrFlash) || errors.Is(err, fragment.ErrJournal):
		return m.fail(ResultOf(err), InternalError)
	case sealed:
		return m.fail(ResultOf(err), BadRequest)
	case errors.Is(err, fragment.ErrForged):
		return NoAnswer
	}
	// A header that does not verify is dropped whole; the sender begins anew.
	m.headers++
	m.push = nil
	if m.headers < plainHeaders {
		return NoAnswer
	}
	return m.fail(ResultOf(err), BadRequest)
}

// fail ends a push.
func (m *Machine) fail(r Result, c Code) Code {
	m.headers = 0
	if m.reset(r) != Changed {
		return InternalError
	}
	return c
}
