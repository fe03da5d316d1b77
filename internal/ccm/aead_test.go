package ccm

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
)

var (
	keySizes   = []int{16, 24, 32}
	nonceSizes = []int{7, 8, 9, 10, 11, 12, 13}
	tagSizes   = []int{4, 6, 8, 10, 12, 14, 16}
)

// noise returns n bytes that depend on the seed alone.
func noise(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(n)})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

func TestInitRefuses(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		for _, c := range []struct {
			key, nonce, tag int
			want            error
		}{
			{0, 13, 8, ErrKeySize},
			{15, 13, 8, ErrKeySize},
			{17, 13, 8, ErrKeySize},
			{64, 13, 8, ErrKeySize},
			{16, 6, 8, ErrNonceSize},
			{16, 14, 8, ErrNonceSize},
			{16, 0, 8, ErrNonceSize},
			{16, -1, 8, ErrNonceSize},
			{16, 13, 2, ErrTagSize},
			{16, 13, 5, ErrTagSize},
			{16, 13, 0, ErrTagSize},
			{16, 13, 18, ErrTagSize},
			{16, 13, -4, ErrTagSize},
		} {
			k := im.key(t, noise(1, 16), 13, 8)
			if err := im.init(k, make([]byte, c.key), c.nonce, c.tag); !errors.Is(err, c.want) {
				t.Errorf("Init(%d, %d, %d) = %v, want %v", c.key, c.nonce, c.tag, err, c.want)
			}
			if *k != (Key{}) {
				t.Errorf("Init(%d, %d, %d) failed and left a usable key", c.key, c.nonce, c.tag)
			}
			if im.name != "portable twin" {
				if _, err := New(make([]byte, c.key), c.nonce, c.tag); !errors.Is(err, c.want) {
					t.Errorf("New(%d, %d, %d) = %v, want %v", c.key, c.nonce, c.tag, err, c.want)
				}
			}
		}
	})
}

// The zero Key and a wiped one refuse, whatever the nonce's length.
func TestUnusableKey(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		wiped := im.key(t, noise(1, 16), 13, 8)
		wiped.Wipe()
		for name, k := range map[string]*Key{"zero": {}, "wiped": wiped} {
			for n := range 16 {
				if out, err := k.Seal(nil, make([]byte, n), []byte("x"), nil); !errors.Is(err, ErrNoKey) || out != nil {
					t.Errorf("%s: Seal with a %d-byte nonce = %x, %v, want %v", name, n, out, err, ErrNoKey)
				}
				if out, err := k.Open(nil, make([]byte, n), make([]byte, 20), nil); !errors.Is(err, ErrNoKey) || out != nil {
					t.Errorf("%s: Open with a %d-byte nonce = %x, %v, want %v", name, n, out, err, ErrNoKey)
				}
			}
		}
	})
}

func TestNonceLength(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		for _, size := range nonceSizes {
			k := im.key(t, noise(1, 16), size, 8)
			for n := range 20 {
				if n == size {
					continue
				}
				if _, err := k.Seal(nil, make([]byte, n), nil, nil); !errors.Is(err, ErrNonceSize) {
					t.Errorf("Seal, key for %d, nonce of %d: %v, want %v", size, n, err, ErrNonceSize)
				}
				if _, err := k.Open(nil, make([]byte, n), make([]byte, 20), nil); !errors.Is(err, ErrNonceSize) {
					t.Errorf("Open, key for %d, nonce of %d: %v, want %v", size, n, err, ErrNonceSize)
				}
			}
		}
	})
}

// A plaintext of 2^(8L) - 1 bytes is the longest; one byte more is refused by
// Seal before anything is written and by Open as no message of this key.
func TestTooLong(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		for _, c := range []struct{ nonceSize, longest int }{{13, 1<<16 - 1}, {12, 1<<24 - 1}} {
			k := im.key(t, noise(1, 16), c.nonceSize, 8)
			nonce := noise(2, c.nonceSize)
			plaintext := make([]byte, c.longest+1)
			sealed, err := k.Seal(nil, nonce, plaintext[:c.longest], nil)
			if err != nil {
				t.Fatalf("nonce of %d: longest plaintext: %v", c.nonceSize, err)
			}
			if _, err := k.Open(nil, nonce, sealed, nil); err != nil {
				t.Errorf("nonce of %d: longest ciphertext: %v", c.nonceSize, err)
			}
			dst := []byte("unchanged")
			if out, err := k.Seal(dst[:0], nonce, plaintext, nil); !errors.Is(err, ErrTooLong) || out != nil {
				t.Errorf("nonce of %d: one byte too long: %v, want %v", c.nonceSize, err, ErrTooLong)
			}
			if string(dst) != "unchanged" {
				t.Error("a refused Seal wrote to dst")
			}
			if _, err := k.Open(nil, nonce, append(sealed, 0), nil); !errors.Is(err, ErrOpen) {
				t.Errorf("nonce of %d: ciphertext too long: %v, want %v", c.nonceSize, err, ErrOpen)
			}
		}
	})
}

// Every legal combination round-trips, appends to dst, and leaves its inputs
// and dst's front alone.
func TestRoundTrip(t *testing.T) {
	lengths := []int{0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 127, 128, 129, 511, 512, 513, 1024}
	if testing.Short() {
		lengths = []int{0, 1, 15, 16, 17, 128, 513}
	}
	each(t, func(t *testing.T, im implementation) {
		for _, keySize := range keySizes {
			for _, nonceSize := range nonceSizes {
				for _, tagSize := range tagSizes {
					k := im.key(t, noise(uint64(keySize), keySize), nonceSize, tagSize)
					if k.NonceSize() != nonceSize || k.Overhead() != tagSize {
						t.Fatalf("sizes %d, %d, want %d, %d", k.NonceSize(), k.Overhead(), nonceSize, tagSize)
					}
					nonce := noise(3, nonceSize)
					for i, n := range lengths {
						plaintext, aad := noise(4, n), noise(5, lengths[len(lengths)-1-i])
						before := bytes.Clone(plaintext)
						prefix := []byte("front")
						sealed, err := k.Seal(prefix, nonce, plaintext, aad)
						if err != nil {
							t.Fatal(err)
						}
						if !bytes.Equal(plaintext, before) {
							t.Fatal("Seal changed the plaintext")
						}
						if string(sealed[:5]) != "front" || len(sealed) != 5+n+tagSize {
							t.Fatalf("Seal did not append: %d bytes", len(sealed))
						}
						if n >= 8 && bytes.Contains(sealed, plaintext[:8]) {
							t.Fatal("the plaintext stands in the ciphertext")
						}
						before = bytes.Clone(sealed)
						opened, err := k.Open(prefix, nonce, sealed[5:], aad)
						if err != nil {
							t.Fatalf("key %d, nonce %d, tag %d, %d bytes: %v", keySize, nonceSize, tagSize, n, err)
						}
						if !bytes.Equal(opened, append([]byte("front"), plaintext...)) {
							t.Fatalf("key %d, nonce %d, tag %d: opened %x", keySize, nonceSize, tagSize, opened)
						}
						if !bytes.Equal(sealed, before) {
							t.Fatal("Open changed the ciphertext")
						}
					}
				}
			}
		}
	})
}

// In place, with and without something before the message in the same array.
func TestInPlace(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		k := im.key(t, noise(1, 16), 13, 8)
		nonce, aad := noise(2, 13), noise(3, 24)
		for n := range 300 {
			plaintext := noise(4, n)
			want, err := k.Seal(nil, nonce, plaintext, aad)
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, n+3, n+3+8)
			copy(buf[3:], plaintext)
			sealed, err := k.Seal(buf[:3], nonce, buf[3:], aad)
			if err != nil || !bytes.Equal(sealed[3:], want) {
				t.Fatalf("%d bytes sealed in place: %x, %v, want %x", n, sealed, err, want)
			}
			if n > 0 && &sealed[0] != &buf[0] {
				t.Fatalf("%d bytes: not in place", n)
			}
			opened, err := k.Open(sealed[:3], nonce, sealed[3:], aad)
			if err != nil || !bytes.Equal(opened[3:], plaintext) {
				t.Fatalf("%d bytes opened in place: %x, %v", n, opened, err)
			}
		}
	})
}

func TestOverlapPanics(t *testing.T) {
	panics := func(f func()) (text string) {
		defer func() { text, _ = recover().(string) }()
		f()
		return ""
	}
	each(t, func(t *testing.T, im implementation) {
		k := im.key(t, noise(1, 16), 13, 8)
		nonce := noise(2, 13)
		buf := make([]byte, 200)
		for name, f := range map[string]func(){
			"seal ahead":  func() { _, _ = k.Seal(buf[1:1], nonce, buf[:50], nil) },
			"seal behind": func() { _, _ = k.Seal(buf[:0], nonce, buf[1:50], nil) },
			"seal tag": func() {
				_, _ = k.Seal(buf[:0], nonce, buf[50:100][:43], buf[0:0])
				_, _ = k.Seal(buf[:0], nonce, buf[43:86], nil)
			},
			"seal over aad":  func() { _, _ = k.Seal(buf[:0], nonce, buf[100:150], buf[57:60]) },
			"open ahead":     func() { _, _ = k.Open(buf[1:1], nonce, buf[:50], nil) },
			"open behind":    func() { _, _ = k.Open(buf[:0], nonce, buf[1:50], nil) },
			"open over aad":  func() { _, _ = k.Open(buf[:0], nonce, buf[100:150], buf[41:60]) },
			"open over tail": func() { _, _ = k.Open(buf[:0], nonce, buf[41:91], nil) },
		} {
			if text := panics(f); !strings.HasPrefix(text, "ccm: invalid buffer overlap") {
				t.Errorf("%s: panic %q", name, text)
			}
		}
		// Adjacent is not overlapping.
		if text := panics(func() { _, _ = k.Seal(buf[:0:58], nonce, buf[58:108], buf[108:120]) }); text != "" {
			t.Errorf("adjacent buffers: panic %q", text)
		}
	})
}

// Every single bit of ciphertext, tag, additional data and nonce matters, as
// does every truncation; the output region is zero after a failure.
func TestEveryBitMatters(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		for _, c := range []struct{ n, aad, tag int }{{0, 0, 8}, {0, 24, 8}, {1, 0, 16}, {20, 24, 8}, {32, 14, 4}, {150, 33, 16}, {17, 16, 10}} {
			k := im.key(t, noise(1, 16), 13, c.tag)
			nonce, aad := noise(2, 13), noise(3, c.aad)
			sealed, err := k.Seal(nil, nonce, noise(4, c.n), aad)
			if err != nil {
				t.Fatal(err)
			}
			out := make([]byte, c.n+8)
			refuse := func(what string) {
				t.Helper()
				for i := range out {
					out[i] = 0xa5
				}
				got, err := k.Open(out[:0], nonce, sealed, aad)
				if !errors.Is(err, ErrOpen) || got != nil {
					t.Fatalf("%d bytes: %s: Open = %x, %v, want %v", c.n, what, got, err, ErrOpen)
				}
				for i, b := range out {
					if i < c.n && b != 0 || i >= c.n && b != 0xa5 {
						t.Fatalf("%d bytes: %s: output byte %d is %#x", c.n, what, i, b)
					}
				}
			}
			flip := func(what string, b []byte) {
				t.Helper()
				for i := range 8 * len(b) {
					b[i/8] ^= 1 << (i % 8)
					refuse(fmt.Sprintf("bit %d of the %s", i, what))
					b[i/8] ^= 1 << (i % 8)
				}
			}
			flip("ciphertext", sealed)
			flip("additional data", aad)
			flip("nonce", nonce)

			whole := sealed
			for n := range whole {
				if got, err := k.Open(nil, nonce, whole[:n], aad); !errors.Is(err, ErrOpen) || got != nil {
					t.Fatalf("truncated to %d: Open = %x, %v, want %v", n, got, err, ErrOpen)
				}
			}
			for n := range aad {
				if _, err := k.Open(nil, nonce, whole, aad[:n]); !errors.Is(err, ErrOpen) {
					t.Fatalf("additional data truncated to %d: %v, want %v", n, err, ErrOpen)
				}
			}
			if _, err := k.Open(nil, nonce, append(bytes.Clone(whole), 0), aad); !errors.Is(err, ErrOpen) {
				t.Fatalf("one byte more: %v, want %v", err, ErrOpen)
			}
			if _, err := k.Open(nil, nonce, whole, append(bytes.Clone(aad), 0)); !errors.Is(err, ErrOpen) {
				t.Fatalf("one byte of additional data more: %v, want %v", err, ErrOpen)
			}
			if _, err := k.Open(nil, nonce, whole, aad); err != nil {
				t.Fatalf("the untouched message: %v", err)
			}
		}
	})
}

// The same bytes under another nonce or tag length are another message: both
// lengths are authenticated (RFC 3610 §2.2, flags).
func TestParametersAreAuthenticated(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		key := noise(1, 16)
		sealed, err := im.key(t, key, 13, 16).Seal(nil, make([]byte, 13), []byte("hello"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := im.key(t, key, 13, 8).Open(nil, make([]byte, 13), sealed[:13], nil); !errors.Is(err, ErrOpen) {
			t.Errorf("shortened tag: %v, want %v", err, ErrOpen)
		}
		if _, err := im.key(t, key, 12, 16).Open(nil, make([]byte, 12), sealed, nil); !errors.Is(err, ErrOpen) {
			t.Errorf("shortened nonce: %v, want %v", err, ErrOpen)
		}
	})
}

// New has the shape and the panics of crypto/cipher.
func TestStandardShape(t *testing.T) {
	a, err := New(noise(1, 16), 13, 8)
	if err != nil {
		t.Fatal(err)
	}
	if a.NonceSize() != 13 || a.Overhead() != 8 {
		t.Errorf("sizes %d, %d", a.NonceSize(), a.Overhead())
	}
	nonce := noise(2, 13)
	sealed := a.Seal([]byte("x"), nonce, []byte("hello"), []byte("aad"))
	opened, err := a.Open(nil, nonce, sealed[1:], []byte("aad"))
	if err != nil || string(opened) != "hello" {
		t.Errorf("Open = %q, %v", opened, err)
	}
	sealed[3] ^= 1
	if _, err := a.Open(nil, nonce, sealed[1:], []byte("aad")); !errors.Is(err, ErrOpen) {
		t.Errorf("Open = %v, want %v", err, ErrOpen)
	}
	for name, c := range map[string]struct {
		f    func()
		want error
	}{
		"Seal, short nonce": {func() { a.Seal(nil, nonce[:12], nil, nil) }, ErrNonceSize},
		"Open, short nonce": {func() { _, _ = a.Open(nil, nonce[:12], sealed, nil) }, ErrNonceSize},
		"Seal, too long":    {func() { a.Seal(nil, nonce, make([]byte, 1<<16), nil) }, ErrTooLong},
	} {
		func() {
			defer func() {
				if err, _ := recover().(error); !errors.Is(err, c.want) {
					t.Errorf("%s: panic %v, want %v", name, err, c.want)
				}
			}()
			c.f()
		}()
	}
}

// A Key's secret shows in no format.
func TestKeyRedactsItself(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		k := im.key(t, bytes.Repeat([]byte{0x5a}, 16), 13, 8)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			for _, v := range []any{k, *k, struct{ K Key }{*k}} {
				if text := fmt.Sprintf(verb, v); strings.Contains(text, "5a5a") || strings.Contains(text, "90 90") || strings.Contains(text, "ZZ") || !strings.Contains(text, "redacted") {
					t.Errorf("%s of %T shows %s", verb, v, text)
				}
			}
		}
	})
}

// Any number of goroutines may use one Key.
func TestConcurrentUse(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		k := im.key(t, noise(1, 16), 13, 8)
		var wg sync.WaitGroup
		for g := range 4 * runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				nonce, plaintext := noise(uint64(g), 13), noise(uint64(g), 40*g+1)
				want, _ := k.Seal(nil, nonce, plaintext, nil)
				for range 50 {
					got, err := k.Seal(nil, nonce, plaintext, nil)
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("goroutine %d: another result", g)
						return
					}
					if _, err := k.Open(nil, nonce, got, nil); err != nil {
						t.Errorf("goroutine %d: %v", g, err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}
