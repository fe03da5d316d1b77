package bolt

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// TestEvictionsConcurrent lets eight goroutines look devices up, deliver requests
// twice, answer, seal, and change entries, on a keyring that holds two of twelve
// devices: nothing is accepted twice, no number is used twice, and a device whose
// entry nobody changes is never told that it is gone.
func TestEvictionsConcurrent(t *testing.T) {
	const devices, changing = 12, 3
	base := t.TempDir()
	mustClose(t, mustOpen(t, base))
	o := opts(base)
	o.Hot, o.noSync, o.anchors = 2, true, lazy{}
	o.OnError = func(err error) { t.Error(err) }
	st, err := Open(base+"/store", o)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := st.Keyring(ctx)
	if err != nil {
		t.Fatal(err)
	}
	type device struct {
		mu       sync.Mutex
		far      *oscore.Context
		sent     []oscore.Message
		accepted map[uint64]bool
		used     map[uint64]bool
	}
	var all []*device
	for i := range devices {
		e := meter(i)
		if err := st.Put(ctx, true, e); err != nil {
			t.Fatal(err)
		}
		far, err := oscore.New(e.Params.Swap())
		if err != nil {
			t.Fatal(err)
		}
		far.Begin()
		all = append(all, &device{far: far, accepted: map[uint64]bool{}, used: map[uint64]bool{}})
	}
	rounds := 3000
	if testing.Short() {
		rounds = 500
	}
	var accepted atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 7))
			for n := range rounds {
				i := rng.IntN(devices)
				d := all[i]
				if i < changing && rng.IntN(20) == 0 {
					e := meter(i)
					e.Notes = strconv.Itoa(n)
					if err := st.Put(ctx, false, e); err != nil {
						t.Error(err)
					}
					continue
				}
				d.mu.Lock()
				var m oscore.Message
				var err error
				if len(d.sent) > 0 && rng.IntN(3) == 0 {
					m = d.sent[rng.IntN(len(d.sent))]
				} else if m, err = d.far.SealRequest(nil, new(oscore.Pending), oscore.Message{Code: 1}); err != nil {
					t.Error(err)
				} else {
					d.sent = append(d.sent, m)
				}
				d.mu.Unlock()
				spend := func(piv uint64) {
					d.mu.Lock()
					defer d.mu.Unlock()
					if d.used[piv] {
						t.Errorf("device %d: number %d is used twice", i, piv)
					}
					d.used[piv] = true
				}
				gone := func(err error) bool { return i < changing && errors.Is(err, keys.ErrClosed) }
				peers, match := ring.Find(nil, d.far.SenderID(), nil)
				if match != oscore.MatchKID || len(peers) != 1 {
					t.Errorf("device %d: %v, %v", i, peers, match)
					return
				}
				p, q := peers[0], new(oscore.Request)
				if _, err := p.OpenRequest(nil, q, m); err == nil {
					accepted.Add(1)
					d.mu.Lock()
					if d.accepted[q.PartialIV()] {
						t.Errorf("device %d: request %d is accepted twice", i, q.PartialIV())
					}
					d.accepted[q.PartialIV()] = true
					d.mu.Unlock()
					out, err := p.SealResponse(nil, q, oscore.Message{Code: 0x45})
					if err == nil {
						opt, err := oscore.ParseOption(out.Body[1 : 1+out.Body[0]&15])
						if err != nil {
							t.Error(err)
						}
						spend(opt.Sequence())
					} else if !gone(err) {
						t.Errorf("device %d: %v", i, err)
					}
				} else if !errors.Is(err, oscore.ErrReplay) && !gone(err) {
					t.Errorf("device %d: %v", i, err)
				}
				if rng.IntN(4) == 0 {
					q := new(oscore.Pending)
					if _, err := p.SealRequest(nil, q, oscore.Message{Code: 1}); err == nil {
						spend(q.PartialIV())
					} else if !gone(err) {
						t.Errorf("device %d: %v", i, err)
					}
				}
			}
		})
	}
	wg.Wait()
	if accepted.Load() < int64(rounds) {
		t.Errorf("only %d requests were accepted: nothing was tested", accepted.Load())
	}
	if err := ring.Close(ctx); err != nil {
		t.Fatal(err)
	}
	mustClose(t, st)
}
