package oscore

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// TestHKDFAtTheBlockSize: a salt above one block is hashed first (RFC 2104 §2).
func TestHKDFAtTheBlockSize(t *testing.T) {
	for _, n := range []int{0, 1, 31, 32, 33, 63, 64, 65, 66, 127, 128, 129} {
		p := testParams()
		p.MasterSalt = bytes.Repeat([]byte{0xa5}, n)
		var d derived
		p.deriveSHA256(&d, aeads[AESCCM16_64_128])
		prk := must(hkdf.Extract(sha256.New, p.MasterSecret, p.MasterSalt))(t)
		wanted := must(hkdf.Expand(sha256.New, prk, string(p.appendInfo(nil, p.SenderID, "Key", 16)), 16))(t)
		equal(t, fmt.Sprintf("salt of %d bytes", n), d.senderKey[:16], wanted)
	}
}

// TestHKDFAgainstTheStandardLibrary holds the derivation on the stack to
// crypto/hkdf.
func TestHKDFAgainstTheStandardLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		alg := rapid.SampledFrom(AEADs()).Draw(t, "AEAD")
		bytesOf := func(name string, least, most int) []byte {
			return rapid.SliceOfN(rapid.Byte(), least, most).Draw(t, name)
		}
		p := Params{
			AEAD: alg, MasterSecret: bytesOf("secret", 1, 600), MasterSalt: bytesOf("salt", 0, 200),
			SenderID: bytesOf("sender", 0, alg.MaxIDLen()), RecipientID: bytesOf("recipient", 0, alg.MaxIDLen()),
		}
		if rapid.Bool().Draw(t, "has ID Context") {
			p.IDContext = bytesOf("ID Context", 0, MaxIDContext)
		}
		var d derived
		p.deriveSHA256(&d, aeads[alg])
		prk, err := hkdf.Extract(sha256.New, p.MasterSecret, p.MasterSalt)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range []struct {
			got, id []byte
			typ     string
		}{
			{d.senderKey[:alg.KeyLen()], p.SenderID, "Key"},
			{d.recipientKey[:alg.KeyLen()], p.RecipientID, "Key"},
			{d.commonIV[:alg.NonceLen()], nil, "IV"},
		} {
			wanted, err := hkdf.Expand(sha256.New, prk, string(p.appendInfo(nil, o.id, o.typ, len(o.got))), len(o.got))
			if err != nil || string(wanted) != string(o.got) {
				t.Fatalf("%s of %x: %x, want %x, %v", o.typ, o.id, o.got, wanted, err)
			}
		}
	})
}
