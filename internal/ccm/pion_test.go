package ccm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"testing"

	pion "github.com/pion/dtls/v3/pkg/crypto/ccm"
)

// newPion is the second implementation that ours is held against.
func newPion(t testing.TB, key []byte, nonceSize, tagSize int) cipher.AEAD {
	t.Helper()
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := pion.NewCCM(b, tagSize, nonceSize)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// agree seals and opens one message with every implementation of this build
// and with pion's, in place and not.
func agree(t *testing.T, key []byte, nonceSize, tagSize int, nonce, plaintext, aad []byte) {
	t.Helper()
	want := newPion(t, key, nonceSize, tagSize).Seal(nil, nonce, plaintext, aad)
	for _, im := range implementations() {
		k := im.key(t, key, nonceSize, tagSize)
		got, err := k.Seal(nil, nonce, plaintext, aad)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: key %d, nonce %d, tag %d, plaintext %d, aad %d:\nSeal = %x, %v\nwant   %x",
				im.name, len(key), nonceSize, tagSize, len(plaintext), len(aad), got, err, want)
		}
		inPlace := append(make([]byte, 0, len(want)), plaintext...)
		if got, err := k.Seal(inPlace[:0], nonce, inPlace, aad); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: in place: Seal = %x, %v, want %x", im.name, got, err, want)
		}
		opened, err := k.Open(nil, nonce, want, aad)
		if err != nil || !bytes.Equal(opened, plaintext) {
			t.Fatalf("%s: key %d, nonce %d, tag %d, plaintext %d, aad %d: Open = %x, %v",
				im.name, len(key), nonceSize, tagSize, len(plaintext), len(aad), opened, err)
		}
		forged := bytes.Clone(want)
		forged[(len(plaintext)+int(nonce[0]))%len(forged)] ^= 1 << (nonce[1] % 8)
		if opened, err := k.Open(forged[:0], nonce, forged, aad); !errors.Is(err, ErrOpen) || opened != nil {
			t.Fatalf("%s: forged: Open = %x, %v, want %v", im.name, opened, err, ErrOpen)
		}
		if !bytes.Equal(forged[:len(plaintext)], make([]byte, len(plaintext))) {
			t.Fatalf("%s: a forged message left plaintext behind", im.name)
		}
	}
}

// All lengths up to 2100 bytes, walking through every combination of key,
// nonce and tag length.
func TestAgreesWithPion(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 13
	}
	for n := 0; n <= 2100; n += step {
		keySize := keySizes[n%len(keySizes)]
		nonceSize := nonceSizes[n/3%len(nonceSizes)]
		tagSize := tagSizes[n/21%len(tagSizes)]
		seed := uint64(n)
		agree(t, noise(seed, keySize), nonceSize, tagSize, noise(seed+1, nonceSize), noise(seed+2, n), noise(seed+3, n*7%131))
	}
	for n := range 300 { // short messages under every length of additional data
		agree(t, noise(1, 16), 13, 8, noise(uint64(n), 13), noise(3, n%40), noise(4, n))
	}
}

// The three encodings of the additional data's length (RFC 3610 §2.2), at
// their borders; the last needs 2^32 bytes and is checked as an encoding only.
func TestAADLengths(t *testing.T) {
	for _, n := range []int{1<<16 - 1<<8 - 1, 1<<16 - 1<<8, 1<<16 - 1<<8 + 1, 1 << 16, 1<<16 + 5, 1 << 20} {
		agree(t, noise(1, 16), 13, 8, noise(2, 13), noise(3, 20), noise(4, n))
	}
	for _, c := range []struct {
		n    uint64
		want []byte
	}{
		{1, []byte{0, 1}},
		{0xfeff, []byte{0xfe, 0xff}},
		{0xff00, []byte{0xff, 0xfe, 0, 0, 0xff, 0}},
		{1<<32 - 1, []byte{0xff, 0xfe, 0xff, 0xff, 0xff, 0xff}},
		{1 << 32, []byte{0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0}},
	} {
		var b [blockSize]byte
		if n := putAADLength(&b, c.n); !bytes.Equal(b[:n], c.want) {
			t.Errorf("length %#x = %x, want %x", c.n, b[:n], c.want)
		}
	}
}

func FuzzAgreesWithPion(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), uint8(6), uint8(2), []byte("nonce nonce 1"), []byte("hello"), []byte("aad"))
	f.Add(noise(1, 32), uint8(0), uint8(6), []byte("1234567"), noise(2, 200), noise(3, 40))
	f.Fuzz(func(t *testing.T, key []byte, nonceChoice, tagChoice uint8, nonce, plaintext, aad []byte) {
		size := keySizes[len(key)%len(keySizes)]
		nonceSize := nonceSizes[int(nonceChoice)%len(nonceSizes)]
		tagSize := tagSizes[int(tagChoice)%len(tagSizes)]
		if len(plaintext) > 1<<16-1 {
			plaintext = plaintext[:1<<16-1]
		}
		pad := func(b []byte, n int) []byte { return append(bytes.Clone(b), make([]byte, n)...)[:n] }
		agree(t, pad(key, size), nonceSize, tagSize, pad(nonce, nonceSize), plaintext, aad)
	})
}

// Open of foreign bytes answers with ErrOpen and nothing else.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(noise(1, 40), noise(2, 20))
	f.Fuzz(func(t *testing.T, ciphertext, aad []byte) {
		for _, im := range implementations() {
			k := im.key(t, noise(9, 16), 13, 16)
			if out, err := k.Open(nil, make([]byte, 13), ciphertext, aad); !errors.Is(err, ErrOpen) || out != nil {
				t.Fatalf("%s: Open = %x, %v, want %v", im.name, out, err, ErrOpen)
			}
		}
	})
}
