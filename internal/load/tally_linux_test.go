package load

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// tally is what became of requests, under the lock of their turns.
type tally struct {
	offered, good []int // by device
	codes         map[coap.Code]int
	hasty         int // 5.03 whose Max-Age does not say when to come again
	closed        bool
	took          latencies
	refused       latencies
}

func (y *tally) sent(device int) { y.offered[device]++ }

func (y *tally) answered(device int, d coap.Datagram, after time.Duration) {
	y.codes[d.Code]++
	if d.Code.IsSuccess() {
		y.good[device]++
		y.took.add(after)
		return
	}
	y.refused.add(after)
	if d.Code == coap.ServiceUnavailable {
		if _, ok := coap.Find(d.Body, coap.MaxAge); !ok {
			y.hasty++
		}
	}
}

// String names how many were answered with which code.
func (y *tally) String() string {
	var s []string
	for _, c := range slices.Sorted(maps.Keys(y.codes)) {
		s = append(s, fmt.Sprintf("%v ×%d", c, y.codes[c]))
	}
	return strings.Join(s, ", ")
}

func sum(n []int) (s int) {
	for _, v := range n {
		s += v
	}
	return s
}

// least is the smallest share of good answers to requests that a device has,
// beside the share of all; without the first device, if that is greedy.
func (y *tally) least(greedy bool) float64 {
	offered, good := y.offered, y.good
	if greedy {
		offered, good = offered[1:], good[1:]
	}
	all, least := float64(sum(good))/float64(max(1, sum(offered))), math.Inf(1)
	for n := range offered {
		if offered[n] > 0 {
			least = min(least, float64(good[n])/float64(offered[n])/all)
		}
	}
	return least
}

// latencies is a histogram with eight steps to a doubling, from 1 µs on.
type latencies struct {
	n   [30 * 8]int
	all int
}

func (l *latencies) add(d time.Duration) {
	us := uint64(max(8, d.Microseconds()))
	e := bits.Len64(us) - 4 // us>>e is 8 to 15
	l.n[min(e*8+int(us>>e)-8, len(l.n)-1)]++
	l.all++
}

// quantile returns an upper bound of a share of them, 0 if there are none.
func (l *latencies) quantile(q float64) time.Duration {
	left := int(math.Ceil(q * float64(l.all)))
	if left == 0 {
		return 0
	}
	for i, n := range l.n {
		if left -= n; left <= 0 {
			return time.Duration(i%8+9) << (i / 8) * time.Microsecond
		}
	}
	return math.MaxInt64
}
