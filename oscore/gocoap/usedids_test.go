package gocoap

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A counter that is moved by half the range at random, as go-coap's is by its
// peer's messages, hands out no ID twice within EXCHANGE_LIFETIME; without the
// memory it does.
func TestUsedIDs(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, guarded := range []bool{false, true} {
		rng := rand.New(rand.NewPCG(seed, 1))
		var u usedIDs
		var counter uint16
		drawn, most := 0, 0
		draw := func() int32 {
			counter++
			drawn++
			return int32(counter)
		}
		used, again := map[int32]time.Time{}, 0
		start := time.Now()
		now := start
		for now.Sub(start) < 20*time.Minute {
			now = now.Add(time.Duration(rng.IntN(100)) * time.Millisecond) // 20 a second
			for range rng.IntN(4) {
				counter += 0xffff / 2
			}
			counter += uint16(rng.IntN(3)) // go-coap's own messages
			drawn = 0
			id := draw()
			if guarded {
				counter--
				id = u.next(now, draw)
			}
			most = max(most, drawn)
			if at, was := used[id]; was && now.Sub(at) < exchangeLifetime {
				again++
			}
			used[id] = now
		}
		switch {
		case guarded && again > 0:
			t.Errorf("%d IDs were used again", again)
		case !guarded && again == 0:
			t.Error("no ID was used again without the memory: this test proves nothing")
		}
		t.Logf("guarded %v: %d used again, %d drawn at most, %d runs", guarded, again, most, len(u.runs))
		if len(u.runs) > maxIDRuns {
			t.Errorf("%d runs", len(u.runs))
		}
	}
}

// After EXCHANGE_LIFETIME an ID is free again, and where all are used, a message
// goes out all the same.
func TestUsedIDsExpire(t *testing.T) {
	var u usedIDs
	now := time.Now()
	for id := range uint16(100) {
		if !u.take(now, id) || u.take(now, id) {
			t.Fatal(id)
		}
	}
	if now = now.Add(exchangeLifetime); !u.take(now, 50) || u.take(now, 50) || !u.take(now, 49) {
		t.Error("IDs are not free after EXCHANGE_LIFETIME")
	}
	if id := u.next(now, func() int32 { return 50 }); id != 50 {
		t.Errorf("%d", id)
	}
}
