package edhoc

import (
	"crypto/hkdf"
	"fmt"
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

// extract is EDHOC_Extract (RFC 9528 §4.1.1).
func (h *hashParams) extract(salt, ikm []byte) ([]byte, error) {
	prk, err := hkdf.Extract(h.new, ikm, salt)
	if err != nil {
		return nil, fmt.Errorf("edhoc: HKDF-Extract: %w", err)
	}
	return prk, nil
}

// kdf is EDHOC_KDF (RFC 9528 §4.1.2). The length is at most 255 hash lengths.
func (h *hashParams) kdf(prk []byte, label int, context []byte, length int) ([]byte, error) {
	okm, err := hkdf.Expand(h.new, prk, string(appendInfo(nil, label, context, length)), length)
	if err != nil {
		return nil, fmt.Errorf("edhoc: HKDF-Expand: %w", err)
	}
	return okm, nil
}

// appendInfo appends info = (info_label, context, length).
func appendInfo(dst []byte, label int, context []byte, length int) []byte {
	return appendInt(appendBytes(appendInt(dst, label), context), length)
}

// keystream2 derives KEYSTREAM_2: of one piece, or for a longer plaintext of
// pieces with info_labels 0, -1, -2 … (RFC 9528 Appendix G).
func (h *hashParams) keystream2(prk2e, th2 []byte, length int) ([]byte, error) {
	stream := make([]byte, 0, length)
	most := 255 * h.size
	for i := 0; len(stream) < length; i++ {
		piece, err := h.kdf(prk2e, labelKeystream2-i, th2, min(most, length-len(stream)))
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
	return h.sum(appendBytes(appendBytes(nil, gy), hashMessage1))
}

// next is TH_3 = H( TH_2, PLAINTEXT_2, CRED_R ) and TH_4 = H( TH_3,
// PLAINTEXT_3, CRED_I ) (RFC 9528 §5.4.2).
func (h *hashParams) next(th, plaintext, cred []byte) []byte {
	return h.sum(appendBytes(nil, th), plaintext, cred)
}
