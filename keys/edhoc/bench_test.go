package edhoc

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkHandshake runs handshakes without message_4, credentials by kid, and
// reports the µs of each side, and the share of its public-key operations, each
// timed where it happens: the fresh key, the check of the peer's point, the
// exchanges, signature and verification. What the two clocks of an operation
// cost counts as not inside it. handshakes/s is of a Responder on one core.
func BenchmarkHandshake(b *testing.B) {
	for cell := range 4 * 3 { // a suite for each curve
		m, s := Method(cell%4), []Suite{0, 2, 24}[cell/4]
		b.Run(fmt.Sprintf("method=%d/suite=%d", m, s), func(b *testing.B) {
			measure(b, newExchange(b, m, s, "ccs by kid", "ccs by kid"))
		})
	}
}

// measure runs handshakes and reports them; it returns the median of the
// Responder's side in µs.
func measure(b *testing.B, x *exchange) float64 {
	var sideI, sideR, pkI, pkR samples
	x.i.began, x.r.began = pkI.began, pkR.began
	initiator := must[*Initiator](b)(NewInitiator(x.i))
	responder := must[*Responder](b)(NewResponder(x.r))
	timed := func(d *samples, f func() error) {
		start := time.Now()
		err := f()
		d.now += time.Since(start)
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		var m1, m2, m3 []byte
		var wait2 *WaitMessage2
		var wait3 *WaitMessage3
		timed(&sideI, func() (err error) {
			m1, wait2, err = initiator.Message1(Start{ConnectionID: []byte{1}})
			return err
		})
		timed(&sideR, func() error {
			got, err := responder.Message1(m1)
			if err == nil {
				m2, wait3, err = got.Message2(Reply{ConnectionID: []byte{2}})
			}
			return err
		})
		timed(&sideI, func() error {
			got, err := wait2.Message2(m2)
			if err != nil {
				return err
			}
			verified, err := got.Authenticate(x.trustI)
			if err != nil {
				return err
			}
			var done *InitiatorDone
			if m3, done, err = verified.Message3(); err != nil {
				return err
			}
			_, err = done.Session().Exported()
			return err
		})
		timed(&sideR, func() error {
			got, err := wait3.Message3(m3)
			if err != nil {
				return err
			}
			done, err := got.Authenticate(x.trustR)
			if err != nil {
				return err
			}
			_, err = done.Session().Exported()
			return err
		})
		for _, d := range []*samples{&sideI, &sideR, &pkI, &pkR} {
			d.next()
		}
	}
	// The shares first: median sorts.
	shareI, shareR := share(&pkI, &sideI), share(&pkR, &sideR)
	b.ReportMetric(sideI.median(), "initiator-µs")
	b.ReportMetric(sideR.median(), "responder-µs")
	b.ReportMetric(shareI, "initiator-pk-%")
	b.ReportMetric(shareR, "responder-pk-%")
	b.ReportMetric(1e6/sideR.median(), "handshakes/s")
	return sideR.median()
}

// samples are durations, of which the median is little moved by whatever else
// the machine does.
type samples struct {
	now time.Duration
	all []time.Duration
}

func (s *samples) next() { s.all, s.now = append(s.all, s.now), 0 }

// began times a public-key operation.
func (s *samples) began() (ended func()) {
	start := time.Now()
	return func() { s.now += time.Since(start) }
}

// median returns µs.
func (s *samples) median() float64 {
	slices.Sort(s.all)
	return float64(s.all[len(s.all)/2]) / float64(time.Microsecond)
}

// share returns the median over the handshakes of the part in the whole, in
// percent.
func share(part, whole *samples) float64 {
	all := make([]float64, len(part.all))
	for i := range all {
		all[i] = 100 * float64(part.all[i]) / float64(whole.all[i])
	}
	slices.Sort(all)
	return all[len(all)/2]
}
