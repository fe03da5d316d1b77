package oscore

import (
	"bytes"
	"crypto/cipher"
	"slices"
	"sync/atomic"

	"github.com/oscorelay/oscorelay/internal/ccm"
)

// keyset is what a derivation yields, and never changes afterwards. Context,
// Request and Pending point to it, so that an answer to an old request is
// sealed and opened under the keys of that request, whatever became of the
// context meanwhile.
type keyset struct {
	sender    side
	recipient side
	idContext []byte
	maxPlain  uint32 // longest plaintext, in bytes
	alg       uint8  // AEAD, in a byte
	nonceLen  uint8
	tagLen    uint8

	failed atomic.Uint64 // messages that the Recipient Key refused
	lent   atomic.Bool   // a response was sealed under another keyset's nonce
}

const (
	maxNonce = 13
	maxID    = maxNonce - 6
)

// side is one direction: its AEAD, and the templates of nonce and AAD with
// holes for the Partial IV.
type side struct {
	ccm    ccm.Key
	std    cipher.AEAD    // in place of ccm for the other algorithms
	nonce  [maxNonce]byte // §5.2 with a Partial IV of 0
	aad    [maxAAD]byte   // §5.4 up to the request_piv, for requests of this side
	aadLen uint8          // how much of aad is template
	id     [maxID]byte
	idLen  uint8
}

// kid returns the side's ID, never nil.
func (s *side) kid() []byte { return s.id[:s.idLen:s.idLen] }

// maxAAD bounds the Enc_structure: 12 bytes of head, then the array [1, [alg],
// request_kid, request_piv, h”].
const maxAAD = 12 + 5 + (1 + maxID) + (1 + maxPIVLen) + 1

// newKeyset derives and expands the keys of the parameters.
func newKeyset(p *Params) (*keyset, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	var d derived
	defer func() { d = derived{} }()
	if err := p.derive(&d); err != nil {
		return nil, err
	}
	k := &keyset{idContext: slices.Clone(p.IDContext)}
	if err := k.expand(p.AEAD.orDefault(), &d, p.SenderID, p.RecipientID); err != nil {
		return nil, err
	}
	return k, nil
}

// expand fills in k from what was derived: key schedules and templates.
func (k *keyset) expand(alg AEAD, d *derived, senderID, recipientID []byte) error {
	info := aeads[alg]
	k.alg, k.nonceLen, k.tagLen, k.maxPlain = uint8(alg), uint8(info.nonce), uint8(info.tag), maxPlaintext
	if info.ccm && info.nonce == 13 {
		k.maxPlain = 1<<16 - 1 // the length field of AES-CCM-16-* has 2 bytes (RFC 3610 §2.1)
	}
	if err := k.sender.init(alg, info, d.senderKey[:info.key], senderID, &d.commonIV); err != nil {
		return err
	}
	return k.recipient.init(alg, info, d.recipientKey[:info.key], recipientID, &d.commonIV)
}

// maxPlaintext bounds a plaintext where the AEAD does not; no CoAP transport
// carries more in one message than a stream frame's four-byte length.
const maxPlaintext = 1<<31 - 1

func (s *side) init(alg AEAD, info aeadInfo, key, id []byte, commonIV *[maxNonce]byte) (err error) {
	if info.ccm {
		err = s.ccm.Init(key, info.nonce, info.tag)
	} else {
		s.std, err = newAEAD(alg, key)
	}
	if err != nil {
		return err
	}
	s.idLen = uint8(copy(s.id[:], id))
	// §5.2: the ID's length, the ID padded to nonce length - 6, five bytes of
	// Partial IV; all of it XORed with the Common IV.
	n := info.nonce
	s.nonce[0] = byte(len(id))
	copy(s.nonce[n-5-len(id):n-5], id)
	for i := range n {
		s.nonce[i] ^= commonIV[i]
	}
	// §5.4: Enc_structure = ["Encrypt0", h'', external_aad] up to request_piv.
	b := append(s.aad[:0], 0x83, 0x68)
	b = append(b, "Encrypt0"...)
	b = append(b, 0x40, 0x40) // the second byte becomes the head of external_aad
	b = append(b, 0x85, 0x01, 0x81)
	b = appendHead(b, 0, uint64(alg))
	b = appendBstr(b, id)
	s.aadLen = uint8(len(b))
	return nil
}

func (s *side) wipe() {
	s.ccm.Wipe()
	s.std = nil
	clear(s.nonce[:])
}

// aadHead is where the head of external_aad stands in the Enc_structure.
const aadHead = 11

// exchange writes the nonce and the AAD of a request of this side with the
// given Partial IV.
func (s *side) exchange(x *exchange, nonceLen int, piv []byte) {
	x.nonce, x.aad = s.nonce, s.aad
	xorPIV(&x.nonce, nonceLen, piv)
	n := int(s.aadLen)
	b := append(x.aad[:n], 0x40|byte(len(piv)))
	b = append(b, piv...)
	b = append(b, 0x40) // options: no Class I option exists
	b[aadHead] = 0x40 | byte(len(b)-aadHead-1)
	x.aadLen = uint8(len(b))
}

// xorPIV completes a nonce template with a Partial IV, right-aligned (§5.2).
func xorPIV(nonce *[maxNonce]byte, nonceLen int, piv []byte) {
	at := nonceLen - len(piv)
	for i, b := range piv {
		nonce[at+i] ^= b
	}
}

// seal encrypts plaintext in place at the end of dst.
func (k *keyset) seal(dst, nonce, plaintext, aad []byte) ([]byte, error) {
	if k.sender.std != nil {
		return k.sender.std.Seal(dst, nonce, plaintext, aad), nil
	}
	return k.sender.ccm.Seal(dst, nonce, plaintext, aad)
}

// open decrypts and counts a failure.
func (k *keyset) open(dst, nonce, ciphertext, aad []byte) (out []byte, err error) {
	if k.recipient.std != nil {
		out, err = k.recipient.std.Open(dst, nonce, ciphertext, aad)
	} else {
		out, err = k.recipient.ccm.Open(dst, nonce, ciphertext, aad)
	}
	if err != nil {
		k.failed.Add(1)
		return nil, ErrDecrypt
	}
	return out, nil
}

// matches reports whether a kid and a kid context name this keyset. A kid
// context may come as the ID Context itself or wrapped in a CBOR byte string,
// as Appendix B.2 has it.
func (k *keyset) matches(o *Option) bool {
	if !bytes.Equal(o.KID, k.recipient.kid()) {
		return false
	}
	if o.KIDContext == nil {
		return true
	}
	if k.idContext == nil {
		return false
	}
	if bytes.Equal(o.KIDContext, k.idContext) {
		return true
	}
	wrapped, err := UnwrapBstr(o.KIDContext)
	return err == nil && bytes.Equal(wrapped, k.idContext)
}
