package ccm

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// batchOf makes n messages of mixed keys, sizes and lengths, each with its
// sealed form by Key.Seal.
func batchOf(t testing.TB, im implementation, r *rand.Rand, n int) (msgs []Message, sealed [][]byte) {
	t.Helper()
	var shared *Key
	for range n {
		keySize := 16
		if r.IntN(8) == 0 {
			keySize = keySizes[r.IntN(3)]
		}
		k := im.key(t, noise(r.Uint64(), keySize), nonceSizes[r.IntN(7)], tagSizes[r.IntN(7)])
		if shared != nil && r.IntN(4) == 0 {
			k = shared
		}
		shared = k
		var length int
		switch r.IntN(4) {
		case 0:
			length = r.IntN(60)
		case 1:
			length = 16 * r.IntN(20)
		case 2:
			length = 40 + r.IntN(200)
		default:
			length = r.IntN(2100)
		}
		aad := r.IntN(60)
		if r.IntN(6) == 0 {
			aad = r.IntN(200)
		}
		m := Message{
			Key: k, Nonce: noise(r.Uint64(), k.NonceSize()), In: noise(r.Uint64(), length),
			AAD: noise(r.Uint64(), aad), Out: []byte("stale"), Err: errors.New("stale"),
		}
		want, err := k.Seal(nil, m.Nonce, m.In, m.AAD)
		if err != nil {
			t.Fatal(err)
		}
		msgs, sealed = append(msgs, m), append(sealed, want)
	}
	return msgs, sealed
}

// A batch yields for every message what Seal and Open yield for it alone,
// whatever its neighbours are, in place or not, with forgeries among them.
func TestBatchAgreesWithSingles(t *testing.T) {
	rounds := 400
	if testing.Short() {
		rounds = 40
	}
	each(t, func(t *testing.T, im implementation) {
		r := rand.New(rand.NewPCG(1, 2))
		for range rounds {
			msgs, sealed := batchOf(t, im, r, r.IntN(14))
			plain := make([][]byte, len(msgs))
			for i := range msgs {
				m := &msgs[i]
				plain[i] = bytes.Clone(m.In)
				switch r.IntN(3) {
				case 0:
					m.In = append(make([]byte, 0, len(m.In)+16), m.In...)
					m.Dst = m.In[:0]
				case 1:
					m.Dst = append(make([]byte, 0, len(m.In)+40), "front"...)
				}
			}
			SealBatch(msgs)
			for i := range msgs {
				m := &msgs[i]
				want := append(append([]byte{}, m.Dst...), sealed[i]...)
				if m.Err != nil || !bytes.Equal(m.Out, want) {
					t.Fatalf("message %d of %d (%d bytes, %d additional): sealed %x, %v, want %x",
						i, len(msgs), len(plain[i]), len(m.AAD), m.Out, m.Err, want)
				}
			}
			forged := make([]bool, len(msgs))
			for i := range msgs {
				m := &msgs[i]
				m.In, m.Dst = bytes.Clone(sealed[i]), nil
				if forged[i] = r.IntN(4) == 0; forged[i] {
					m.In[r.IntN(len(m.In))] ^= 1 << r.IntN(8)
				}
				if r.IntN(2) == 0 {
					m.Dst = m.In[:0]
				}
			}
			OpenBatch(msgs)
			for i := range msgs {
				m := &msgs[i]
				if forged[i] {
					if !errors.Is(m.Err, ErrOpen) || m.Out != nil {
						t.Fatalf("forged message %d of %d: %x, %v, want %v", i, len(msgs), m.Out, m.Err, ErrOpen)
					}
					if m.Dst != nil && !bytes.Equal(m.In[:len(plain[i])], make([]byte, len(plain[i]))) {
						t.Fatalf("forged message %d of %d left plaintext behind", i, len(msgs))
					}
				} else if m.Err != nil || !bytes.Equal(m.Out, plain[i]) {
					t.Fatalf("message %d of %d: opened %x, %v, want %x", i, len(msgs), m.Out, m.Err, plain[i])
				}
			}
		}
	})
}

// Each message of a batch fails for itself.
func TestBatchErrors(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		k := im.key(t, noise(1, 16), 13, 8)
		nonce, aad := make([]byte, 13), noise(2, 24)
		msgs := []Message{
			{Key: k, Nonce: nonce, In: noise(3, 20), AAD: aad},
			{Key: k, Nonce: nonce[:12], In: noise(3, 20), AAD: aad},
			{Key: new(Key), Nonce: nonce, In: noise(3, 20), AAD: aad},
			{Key: k, Nonce: nonce, In: make([]byte, 1<<16), AAD: aad},
			{Key: k, Nonce: nonce, In: noise(4, 20), AAD: aad},
		}
		SealBatch(msgs)
		for i, want := range []error{nil, ErrNonceSize, ErrNoKey, ErrTooLong, nil} {
			if !errors.Is(msgs[i].Err, want) || (msgs[i].Out == nil) != (want != nil) {
				t.Errorf("SealBatch, message %d: %x, %v, want %v", i, msgs[i].Out, msgs[i].Err, want)
			}
		}
		msgs = []Message{
			{Key: k, Nonce: nonce, In: msgs[0].Out, AAD: aad},
			{Key: k, Nonce: nonce, In: msgs[0].Out[:7], AAD: aad},
			{Key: k, Nonce: nonce, AAD: aad},
			{Key: k, Nonce: nonce[:5], In: msgs[0].Out, AAD: aad},
			{Key: new(Key), Nonce: nonce, In: msgs[0].Out, AAD: aad},
			{Key: k, Nonce: nonce, In: make([]byte, 1<<16+8), AAD: aad},
			{Key: k, Nonce: nonce, In: msgs[4].Out, AAD: aad},
		}
		OpenBatch(msgs)
		for i, want := range []error{nil, ErrOpen, ErrOpen, ErrNonceSize, ErrNoKey, ErrOpen, nil} {
			if !errors.Is(msgs[i].Err, want) || (msgs[i].Out == nil) != (want != nil) {
				t.Errorf("OpenBatch, message %d: %x, %v, want %v", i, msgs[i].Out, msgs[i].Err, want)
			}
		}
		SealBatch(nil)
		OpenBatch(nil)
	})
}

func FuzzBatch(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint8(9))
	f.Fuzz(func(t *testing.T, a, b uint64, n uint8) {
		for _, im := range implementations() {
			msgs, sealed := batchOf(t, im, rand.New(rand.NewPCG(a, b)), int(n%20))
			SealBatch(msgs)
			for i := range msgs {
				if msgs[i].Err != nil || !bytes.Equal(msgs[i].Out, sealed[i]) {
					t.Fatalf("%s: message %d: sealed %x, %v, want %x", im.name, i, msgs[i].Out, msgs[i].Err, sealed[i])
				}
				msgs[i].In, msgs[i].Dst = msgs[i].Out, msgs[i].Out[:0]
			}
			OpenBatch(msgs)
			for i := range msgs {
				if msgs[i].Err != nil {
					t.Fatalf("%s: message %d: %v", im.name, i, msgs[i].Err)
				}
			}
		}
	})
}

// BenchmarkSealBatch seals eight messages of eight keys at once; ns/op is for
// one message, to be held against SerialLimit/<n>.
func BenchmarkSealBatch(b *testing.B) { benchBatch(b, true) }

func BenchmarkOpenBatch(b *testing.B) { benchBatch(b, false) }

func benchBatch(b *testing.B, seal bool) {
	const size = 8
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			msgs := make([]Message, size)
			for i := range msgs {
				k := defaultImplementation.key(b, noise(uint64(i), 16), benchNonce, benchTag)
				m := Message{Key: k, Nonce: noise(2, benchNonce), AAD: noise(3, benchAAD), In: noise(4, n)}
				if !seal {
					sealed, err := k.Seal(nil, m.Nonce, m.In, m.AAD)
					if err != nil {
						b.Fatal(err)
					}
					m.In = sealed
				}
				m.Dst = make([]byte, 0, n+benchTag)
				msgs[i] = m
			}
			b.SetBytes(int64(n))
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += size {
				if seal {
					SealBatch(msgs)
				} else {
					OpenBatch(msgs)
				}
			}
			for i := range msgs {
				if msgs[i].Err != nil {
					b.Fatal(msgs[i].Err)
				}
			}
		})
	}
}
