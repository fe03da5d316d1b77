package edhoc

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"fmt"
	"hash"
	"slices"
)

// info_label of the derivations (RFC 9528 §4.1.2 figure 6, Appendix H).
const (
	labelKeystream2  = 0
	labelSalt3e2m    = 1
	labelMAC2        = 2
	labelK3          = 3
	labelIV3         = 4
	labelSalt4e3m    = 5
	labelMAC3        = 6
	labelPRKOut      = 7
	labelK4          = 8
	labelIV4         = 9
	labelPRKExporter = 10
	labelKeyUpdate   = 11
)

// prk is a pseudorandom key with the HMAC that is keyed by it, once for all
// that is derived from it.
type prk struct {
	hash *hashParams
	key  []byte
	mac  hash.Hash
	info []byte // scratch
}

func newPRK(h *hashParams, key []byte) *prk {
	return &prk{hash: h, key: key, mac: hmac.New(h.new, key)}
}

// clone returns a copy that outlives the original's wipe.
func (p *prk) clone() *prk { return &prk{hash: p.hash, key: bytes.Clone(p.key), mac: p.mac} }

// wipe clears the key and lets go of the HMAC, whose state crypto/hmac does
// not give out. On a nil prk it does nothing.
func (p *prk) wipe() {
	if p != nil {
		clear(p.key)
		clear(p.info[:cap(p.info)])
		p.mac, p.info = nil, nil
	}
}

// extract is EDHOC_Extract (RFC 9528 §4.1.1).
func (h *hashParams) extract(salt, ikm []byte) (*prk, error) {
	key, err := hkdf.Extract(h.new, ikm, salt)
	if err != nil {
		return nil, fmt.Errorf("edhoc: HKDF-Extract: %w", err)
	}
	return newPRK(h, key), nil
}

// kdf is EDHOC_KDF (RFC 9528 §4.1.2), with HKDF-Expand (RFC 5869 §2.3) on the
// HMAC at hand. The length is at most 255 hash lengths.
func (p *prk) kdf(label int, context []byte, length int) ([]byte, error) {
	if p.mac == nil || length > 255*p.hash.size {
		return nil, fmt.Errorf("edhoc: HKDF-Expand: %w: %d bytes", ErrConfig, length)
	}
	p.info = slices.Grow(p.info[:0], len(context)+16)
	info := append(appendInfo(p.info, label, context, length), 0)
	p.info = info
	counter := &info[len(info)-1]
	okm := make([]byte, 0, length+p.hash.size)
	for len(okm) < length {
		p.mac.Reset()
		if *counter > 0 {
			p.mac.Write(okm[len(okm)-p.hash.size:])
		}
		*counter++
		p.mac.Write(info)
		okm = p.mac.Sum(okm)
	}
	clear(okm[length:])
	return okm[:length:length], nil
}

// appendInfo appends info = (info_label, context, length).
func appendInfo(dst []byte, label int, context []byte, length int) []byte {
	return appendInt(appendBytes(appendInt(dst, label), context), length)
}

// keystream2 derives KEYSTREAM_2: of one piece, or for a longer plaintext of
// pieces with info_labels 0, -1, -2 … (RFC 9528 Appendix G).
func (p *prk) keystream2(th2 []byte, length int) ([]byte, error) {
	stream := make([]byte, 0, length)
	most := 255 * p.hash.size
	for i := 0; len(stream) < length; i++ {
		piece, err := p.kdf(labelKeystream2-i, th2, min(most, length-len(stream)))
		if err != nil {
			return nil, err
		}
		stream = append(stream, piece...)
		wipe(piece)
	}
	return stream, nil
}

// transcript hashes.

// th2 is TH_2 = H( G_Y, H(message_1) ) (RFC 9528 §5.3.2).
func (h *hashParams) th2(gy, hashMessage1 []byte) []byte {
	return h.sum(appendBytes(appendBytes(make([]byte, 0, len(gy)+len(hashMessage1)+4), gy), hashMessage1))
}

// next is TH_3 = H( TH_2, PLAINTEXT_2, CRED_R ) and TH_4 = H( TH_3,
// PLAINTEXT_3, CRED_I ) (RFC 9528 §5.4.2).
func (h *hashParams) next(th, plaintext, cred []byte) []byte {
	return h.sum(appendBytes(make([]byte, 0, len(th)+2), th), plaintext, cred)
}
