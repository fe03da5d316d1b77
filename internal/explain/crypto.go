package explain

import (
	"github.com/oscorelay/oscorelay/oscore"
)

// Crypto is what goes into the AEAD beside the key: shown, so that two
// implementations that disagree can be compared line by line.
type Crypto struct {
	AADArray     Hex `json:"aad_array"`     // §5.4: [1, [alg], request_kid, request_piv, h'']
	EncStructure Hex `json:"enc_structure"` // §5.4: ["Encrypt0", h'', external_aad]
	Nonce        Hex `json:"nonce"`         // §5.2
}

// cryptoOf composes nonce and AAD (§5.2, §5.4). The request's kid and Partial
// IV are in the AAD; pivID and piv are of whom the nonce is made: the request's
// own, or the server's for a response with a Partial IV of its own. A nil
// result means that the parameters are refused.
func cryptoOf(p *oscore.Params, kid, requestPIV, pivID, piv []byte) *Crypto {
	keys, err := p.Derive()
	if err != nil {
		return nil
	}
	clear(keys.SenderKey)
	clear(keys.RecipientKey)
	alg := p.AEAD
	if alg == 0 {
		alg = oscore.AESCCM16_64_128
	}
	array := []byte{0x85, 0x01, 0x81}
	array = appendUint(array, uint(alg))
	array = append(array, oscore.WrapBstr(kid)...)
	array = append(array, oscore.WrapBstr(requestPIV)...)
	array = append(array, 0x40)
	enc := append([]byte{0x83, 0x68}, "Encrypt0"...)
	enc = append(enc, 0x40)
	enc = append(enc, oscore.WrapBstr(array)...)

	n := len(keys.CommonIV)
	nonce := make([]byte, n)
	nonce[0] = byte(len(pivID))
	copy(nonce[n-5-len(pivID):], pivID)
	copy(nonce[n-len(piv):], piv)
	for i := range nonce {
		nonce[i] ^= keys.CommonIV[i]
	}
	return &Crypto{array, enc, nonce}
}

// appendUint appends a CBOR unsigned integer below 256.
func appendUint(dst []byte, v uint) []byte {
	if v < 24 {
		return append(dst, byte(v))
	}
	return append(dst, 24, byte(v))
}
