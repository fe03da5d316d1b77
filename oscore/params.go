package oscore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// Params are the input parameters of a security context (§3.2). The two IDs
// are seen from the endpoint that owns the context: the peer's context has
// them the other way round.
type Params struct {
	MasterSecret Secret
	MasterSalt   []byte // default: empty
	// IDContext identifies the Common Context (§5.1). nil means absent, which
	// derives other keys than an empty one that is present (§3.2.1).
	IDContext   []byte
	SenderID    []byte
	RecipientID []byte
	AEAD        AEAD // zero: AES-CCM-16-64-128
	HKDF        HKDF // zero: HKDF SHA-256
	// WindowSize is the size of the replay window in sequence numbers, 1 to
	// 1024; zero means 32 (§3.2.2).
	WindowSize int
	// OmitKIDContext leaves the kid context out of requests although there is
	// an ID Context (§5.1); peers that know no kid context need it.
	OmitKIDContext bool
}

// The OSCORE option holds 255 bytes (§2): flags, 5 of Partial IV, a length
// byte, the kid context and 7 of kid (§6.1).
const (
	// MaxKIDContext is the longest kid context that fits the option, in bytes.
	MaxKIDContext = maxOption - 1 - maxPIVLen - 1 - maxID
	// MaxIDContext is the longest ID Context, in bytes. It leaves room for what
	// Appendix B.2 wraps around it.
	MaxIDContext = 230
)

// Errors of Params.
var (
	errNoSecret  = errors.New("oscore: master secret is missing")
	errEqualIDs  = errors.New("oscore: sender ID and recipient ID are equal (RFC 8613 section 3.3)")
	errWindow    = errors.New("oscore: replay window size must be 1 to 1024")
	errIDContext = fmt.Errorf("oscore: ID context longer than %d bytes", MaxIDContext)
)

// Check returns an error that names the parameter which RFC 8613 §3.3 or this
// package refuses, or nil.
func (p *Params) Check() error {
	info, ok := aeads[p.AEAD.orDefault()]
	if !ok {
		return fmt.Errorf("oscore: unknown AEAD algorithm %d", int(p.AEAD))
	}
	if p.HKDF.hash() == nil {
		return fmt.Errorf("oscore: unknown HKDF algorithm %d", int(p.HKDF))
	}
	if len(p.MasterSecret) == 0 {
		return errNoSecret
	}
	if err := checkID("sender", p.SenderID, info); err != nil {
		return err
	}
	if err := checkID("recipient", p.RecipientID, info); err != nil {
		return err
	}
	if bytes.Equal(p.SenderID, p.RecipientID) {
		return errEqualIDs
	}
	if len(p.IDContext) > MaxIDContext {
		return errIDContext
	}
	if p.WindowSize < 0 || p.WindowSize > maxWindow {
		return errWindow
	}
	return nil
}

func checkID(name string, id []byte, info aeadInfo) error {
	if len(id) > info.nonce-6 {
		return fmt.Errorf("oscore: %s ID %x of %d bytes is too long: %s takes up to %d", name, id, len(id), info.name, info.nonce-6)
	}
	return nil
}

// Swap returns the parameters as the peer holds them: the IDs change places.
func (p Params) Swap() Params {
	p.SenderID, p.RecipientID = p.RecipientID, p.SenderID
	return p
}

// Clone returns a deep copy.
func (p Params) Clone() Params {
	p.MasterSecret = slices.Clone(p.MasterSecret)
	p.MasterSalt = slices.Clone(p.MasterSalt)
	p.IDContext = slices.Clone(p.IDContext)
	p.SenderID = slices.Clone(p.SenderID)
	p.RecipientID = slices.Clone(p.RecipientID)
	return p
}

// Keys are what §3.2.1 derives from Params.
type Keys struct {
	SenderKey    Secret
	RecipientKey Secret
	CommonIV     []byte
}

// Derive returns the Sender Key, the Recipient Key and the Common IV
// (§3.2.1). Most programs want [New].
func (p *Params) Derive() (Keys, error) {
	if err := p.Check(); err != nil {
		return Keys{}, err
	}
	var d derived
	defer func() { d = derived{} }()
	if err := p.derive(&d); err != nil {
		return Keys{}, err
	}
	info := aeads[p.AEAD.orDefault()]
	return Keys{
		SenderKey:    slices.Clone(d.senderKey[:info.key]),
		RecipientKey: slices.Clone(d.recipientKey[:info.key]),
		CommonIV:     slices.Clone(d.commonIV[:info.nonce]),
	}, nil
}

// appendInfo appends §3.2.1's info: [id, id_context / nil, alg_aead, type, L].
func (p *Params) appendInfo(dst, id []byte, typ string, n int) []byte {
	dst = append(dst, 0x85)
	dst = appendBstr(dst, id)
	if p.IDContext == nil {
		dst = append(dst, 0xf6)
	} else {
		dst = appendBstr(dst, p.IDContext)
	}
	dst = appendHead(dst, 0, uint64(p.AEAD.orDefault()))
	dst = appendHead(dst, 3, uint64(len(typ)))
	dst = append(dst, typ...)
	return appendHead(dst, 0, uint64(n))
}
