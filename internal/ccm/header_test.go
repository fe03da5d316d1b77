package ccm

import (
	"encoding/hex"
	"testing"
)

// B_0 and A_0 of RFC 3610 §8, packet 1, and of the shortest and longest nonce
// (§2.2, §2.3: flags, nonce, length or counter).
func TestHeader(t *testing.T) {
	for _, c := range []struct {
		name      string
		tag       uint8
		nonce     string
		n, aad    int
		b0, a0, a string
	}{
		{
			"packet 1", 8, "00000003020100a0a1a2a3a4a5", 23, 8,
			"5900000003020100a0a1a2a3a4a50017",
			"0100000003020100a0a1a2a3a4a50000",
			"0100000003020100a0a1a2a3a4a50002",
		},
		{
			"7-byte nonce, no additional data", 16, "01020304050607", 1 << 20, 0,
			"3f010203040506070000000000100000",
			"07010203040506070000000000000000",
			"07010203040506070000000000000002",
		},
		{
			"8-byte nonce", 4, "0102030405060708", 0, 1,
			"4e010203040506070800000000000000",
			"06010203040506070800000000000000",
			"06010203040506070800000000000002",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			nonce, err := hex.DecodeString(c.nonce)
			if err != nil {
				t.Fatal(err)
			}
			h := newHeader(c.tag, nonce, c.n, c.aad)
			for _, b := range []struct {
				name   string
				hi, lo uint64
				want   string
			}{
				{"B_0", h.b0Hi, h.b0Lo, c.b0},
				{"A_0", h.a0Hi, h.a0Lo, c.a0},
				{"A_2", h.a0Hi, h.a0Lo + 2, c.a},
			} {
				var got [blockSize]byte
				putBlock(&got, b.hi, b.lo)
				if hex.EncodeToString(got[:]) != b.want {
					t.Errorf("%s = %x, want %s", b.name, got, b.want)
				}
			}
		})
	}
}
