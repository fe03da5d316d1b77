package coap_test

import (
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// newer is the comparison of RFC 7641 §3.4, for two notifications within 128 s.
func newer(v2, v1 uint64) bool {
	v1, v2 = v1&0xffffff, v2&0xffffff
	return v1 < v2 && v2-v1 < 1<<23 || v1 > v2 && v1-v2 > 1<<23
}

// A process that is back within a tenth of a second goes on above the numbers of
// the one that was killed, though that had sent a burst: at every phase of the
// clock, and where the value of 24 bits wraps.
func TestNextObserveGrowsOverRestarts(t *testing.T) {
	wrap := time.UnixMilli(1 << 41)
	for _, start := range []time.Time{time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), wrap.Add(-30 * time.Millisecond), wrap} {
		for phase := range 40 {
			now := start.Add(time.Duration(phase) * time.Millisecond)
			seq := coap.NextObserve(0, now.UnixMilli())
			for range 60 { // in 3 ms
				last := seq
				now = now.Add(50 * time.Microsecond)
				if seq = coap.NextObserve(seq, now.UnixMilli()); !newer(seq, last) {
					t.Fatalf("%d after %d", seq, last)
				}
			}
			if again := coap.NextObserve(0, now.Add(80*time.Millisecond).UnixMilli()); !newer(again, seq) {
				t.Fatalf("%v: %d after a restart, the last before it was %d", start, again, seq)
			}
		}
	}
	if v := coap.NextObserve(7, -5000); v != 8 {
		t.Errorf("%d with a clock before 1970", v)
	}
	if opts, _, err := coap.Split(coap.AppendBody(nil, coap.Options(nil).AddObserve(1<<40|0xfffffe), nil)); err != nil || len(opts) != 1 || opts[0].Number != coap.Observe || string(opts[0].Value) != "\xff\xff\xfe" {
		t.Errorf("%+v, %v", opts, err)
	}
}
