package keys_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

const manyPeers = 100_000

// many returns a keyring with that many peers, half of them with an ID Context,
// and what they weigh.
func many(b *testing.B) (*keys.Keyring, float64) {
	b.Helper()
	var before, after runtime.MemStats
	store := keys.NewMemory()
	ring := keys.New(store)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range manyPeers {
		var kid [4]byte
		binary.BigEndian.PutUint32(kid[:], uint32(i))
		e := keys.Entry{Name: fmt.Sprintf("device-%06d", i), Params: oscore.Params{
			MasterSecret: append([]byte("a secret, "), kid[:]...), SenderID: []byte{0xff}, RecipientID: kid[:],
		}}
		if i%2 == 0 {
			e.Params.IDContext = []byte("tenant 1")
		}
		if _, err := ring.Add(context.Background(), e); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	return ring, float64(after.HeapAlloc-before.HeapAlloc) / manyPeers
}

func BenchmarkFind(b *testing.B) {
	ring, weight := many(b)
	for _, c := range []struct {
		name       string
		kidContext []byte
		odd        uint32
	}{{"Exact", []byte("tenant 1"), 0}, {"KID", nil, 1}, {"Unknown", []byte("tenant 2"), 0}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var dst [oscore.MaxCandidates]oscore.Peer
			var kid [4]byte
			i := uint32(0)
			for b.Loop() {
				i = (i + 7919*2) % manyPeers
				binary.BigEndian.PutUint32(kid[:], i|c.odd)
				ring.Find(dst[:0], kid[:], c.kidContext)
			}
			b.ReportMetric(weight, "B/peer")
		})
	}
	runtime.KeepAlive(ring)
}

func BenchmarkPeerSealRequest(b *testing.B) {
	p := mustAdd(b, keys.New(&bare{known: true}), entry("d", []byte{1}, []byte{2}, nil))
	var pending oscore.Pending
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.SealRequest(buf, &pending, get); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkContextSealRequest is the same without keys, for comparison.
func BenchmarkContextSealRequest(b *testing.B) {
	e := entry("d", []byte{1}, []byte{2}, nil)
	c, err := oscore.New(e.Params)
	if err != nil {
		b.Fatal(err)
	}
	c.Begin()
	var pending oscore.Pending
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.SealRequest(buf, &pending, get); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	ring := keys.New(keys.NewMemory())
	i := uint32(0)
	for b.Loop() {
		var kid [4]byte
		binary.BigEndian.PutUint32(kid[:], i)
		e := keys.Entry{Name: fmt.Sprint(i), Params: oscore.Params{
			MasterSecret: append([]byte("a secret, "), kid[:]...), SenderID: []byte{0xff}, RecipientID: kid[:],
		}}
		if _, err := ring.Add(context.Background(), e); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
