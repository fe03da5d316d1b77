package oscore

import (
	"bytes"
	"crypto/hkdf"
	"errors"
	"fmt"
	"hash"
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

// MaxIDContext is the longest ID Context that fits the OSCORE option, in
// bytes: the option holds 255 (§6.1).
const MaxIDContext = 230

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
	for _, id := range []struct {
		name string
		id   []byte
	}{{"sender", p.SenderID}, {"recipient", p.RecipientID}} {
		if len(id.id) > info.nonce-6 {
			return fmt.Errorf("oscore: %s ID %x of %d bytes is too long: %s takes up to %d", id.name, id.id, len(id.id), info.name, info.nonce-6)
		}
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
	h, info := p.HKDF.hash(), aeads[p.AEAD.orDefault()]
	prk, err := hkdf.Extract(h, p.MasterSecret, p.MasterSalt)
	if err != nil {
		return Keys{}, fmt.Errorf("oscore: key derivation: %w", err)
	}
	defer clear(prk)
	var k Keys
	if k.SenderKey, err = p.expand(h, prk, p.SenderID, "Key", info.key); err != nil {
		return Keys{}, err
	}
	if k.RecipientKey, err = p.expand(h, prk, p.RecipientID, "Key", info.key); err != nil {
		return Keys{}, err
	}
	if k.CommonIV, err = p.expand(h, prk, nil, "IV", info.nonce); err != nil {
		return Keys{}, err
	}
	return k, nil
}

// expand is the HKDF-Expand of §3.2.1 for one output parameter.
func (p *Params) expand(h func() hash.Hash, prk, id []byte, typ string, n int) ([]byte, error) {
	out, err := hkdf.Expand(h, prk, string(p.appendInfo(nil, id, typ, n)), n)
	if err != nil {
		return nil, fmt.Errorf("oscore: key derivation: %w", err)
	}
	return out, nil
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
