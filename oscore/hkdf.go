package oscore

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"hash"
)

// derived are the outputs of §3.2.1, of the lengths that the AEAD asks for.
type derived struct {
	senderKey    [maxKey]byte
	recipientKey [maxKey]byte
	commonIV     [maxNonce]byte
}

const maxKey = 32

// derive fills d from parameters that Check has passed.
func (p *Params) derive(d *derived) error {
	info := aeads[p.AEAD.orDefault()]
	if p.HKDF.orDefault() == HKDFSHA256 {
		p.deriveSHA256(d, info)
		return nil
	}
	h := p.HKDF.hash()
	prk, err := hkdf.Extract(h, p.MasterSecret, p.MasterSalt)
	if err != nil {
		return fmt.Errorf("oscore: key derivation: %w", err)
	}
	defer clear(prk)
	for _, o := range []struct {
		out []byte
		id  []byte
		typ string
	}{
		{d.senderKey[:info.key], p.SenderID, "Key"},
		{d.recipientKey[:info.key], p.RecipientID, "Key"},
		{d.commonIV[:info.nonce], nil, "IV"},
	} {
		if err := p.expand(o.out, h, prk, o.id, o.typ); err != nil {
			return err
		}
	}
	return nil
}

// expand is the HKDF-Expand of §3.2.1 for one output parameter.
func (p *Params) expand(out []byte, h func() hash.Hash, prk, id []byte, typ string) error {
	key, err := hkdf.Expand(h, prk, string(p.appendInfo(nil, id, typ, len(out))), len(out))
	if err != nil {
		return fmt.Errorf("oscore: key derivation: %w", err)
	}
	copy(out, key)
	clear(key)
	return nil
}

// deriveSHA256 does the same for the default hash on the stack. No output is
// longer than the hash, so that HKDF-Expand is a single HMAC (RFC 5869 §2.3).
func (p *Params) deriveSHA256(d *derived, info aeadInfo) {
	var mac hmacSHA256
	var sum [sha256.Size]byte
	mac.init(p.MasterSalt) // an empty salt is a key of zeros (RFC 5869 §2.2)
	mac.sum(&sum, p.MasterSecret)
	mac.init(sum[:])
	var buf [maxInfo]byte
	one := func(out, id []byte, typ string) {
		b := p.appendInfo(buf[:0], id, typ, len(out))
		mac.sum(&sum, append(b, 1))
		copy(out, sum[:])
	}
	one(d.senderKey[:info.key], p.SenderID, "Key")
	one(d.recipientKey[:info.key], p.RecipientID, "Key")
	one(d.commonIV[:info.nonce], nil, "IV")
	mac, sum = hmacSHA256{}, [sha256.Size]byte{}
}

// maxInfo bounds §3.2.1's info and HKDF-Expand's counter behind it: array,
// id, id_context, alg_aead, type, L.
const maxInfo = 1 + (1 + 7) + (2 + MaxIDContext) + 2 + 4 + 2 + 1

// hmacSHA256 is HMAC-SHA-256 (RFC 2104) under one key, without allocation for
// messages up to maxInfo bytes.
type hmacSHA256 struct {
	inner, outer [sha256.BlockSize]byte
}

func (h *hmacSHA256) init(key []byte) {
	var block [sha256.BlockSize]byte
	if len(key) > len(block) {
		sum := sha256.Sum256(key)
		copy(block[:], sum[:])
	} else {
		copy(block[:], key)
	}
	for i, b := range block {
		h.inner[i], h.outer[i] = b^0x36, b^0x5c
	}
	clear(block[:])
}

func (h *hmacSHA256) sum(out *[sha256.Size]byte, message []byte) {
	var buf [sha256.BlockSize + maxInfo]byte
	b := append(append(buf[:0], h.inner[:]...), message...)
	inner := sha256.Sum256(b)
	n := copy(buf[:], h.outer[:])
	n += copy(buf[n:], inner[:])
	*out = sha256.Sum256(buf[:n])
	clear(b)
	clear(buf[:])
}
