package rate

import (
	"strconv"
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	var b Bucket
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, c := range []struct {
		after time.Duration
		n     float64
		want  bool
	}{
		{0, 4, true},
		{0, 1, true},
		{0, 1, false}, // five are spent
		{200 * time.Millisecond, 1, true},
		{400 * time.Millisecond, 3, false}, // which takes none
		{0, 2, true},
		{time.Hour, 6, false}, // it holds five
		{0, 5, true},
		{-time.Hour, 1, false}, // a clock that went back gives none
	} {
		now = now.Add(c.after)
		if got := b.Take(now, c.n, 5); got != c.want {
			t.Errorf("step %d: %v", i+1, got)
		}
	}
	var slow Bucket
	if !slow.Take(now, 1, 0.1) || slow.Take(now.Add(9*time.Second), 1, 0.1) || !slow.Take(now.Add(20*time.Second), 1, 0.1) {
		t.Error("one in ten seconds")
	}
}

// TestTable: one source has one bucket, and any number of them no more than
// there are.
func TestTable(t *testing.T) {
	var table Table
	seen := map[*Bucket]bool{}
	for i := range 100 * buckets {
		s := strconv.Itoa(i)
		b := Of(&table, s)
		if b != Of(&table, s) {
			t.Fatal("two buckets for one source")
		}
		seen[b] = true
	}
	if len(seen) != buckets {
		t.Errorf("%d buckets are in use", len(seen))
	}
}
