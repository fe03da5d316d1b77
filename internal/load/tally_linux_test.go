package load

import (
	"fmt"
	"maps"
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
