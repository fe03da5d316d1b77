package edhoc

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/veraison/go-cose"
)

// BenchmarkHandshake runs handshakes without message_4, credentials by kid. In
// the same run, turn by turn, it performs the public-key operations of each
// side alone. It reports the µs of each side and the share of the public-key
// operations in them; handshakes/s is of a Responder on one core.
func BenchmarkHandshake(b *testing.B) {
	for _, bench := range []struct {
		m Method
		s Suite
	}{{SignatureSignature, 0}, {StaticStatic, 0}, {SignatureSignature, 2}, {SignatureStatic, 2}, {StaticSignature, 2}, {StaticStatic, 2}, {StaticStatic, 24}} {
		b.Run(fmt.Sprintf("method=%d/suite=%d", bench.m, bench.s), func(b *testing.B) {
			x := newExchange(b, bench.m, bench.s, "ccs by kid", "ccs by kid")
			initiator := must[*Initiator](b)(NewInitiator(x.i))
			responder := must[*Responder](b)(NewResponder(x.r))
			h := &handshake{method: bench.m, suite: suites[bench.s]}
			opsI := publicKeyOperations(b, h, RoleInitiator, &x.i.Identities[0], &x.r.Identities[0])
			opsR := publicKeyOperations(b, h, RoleResponder, &x.r.Identities[0], &x.i.Identities[0])
			var sideI, sideR, pkI, pkR samples
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
				timed(&pkI, opsI)
				timed(&pkR, opsR)
				for _, d := range []*samples{&sideI, &sideR, &pkI, &pkR} {
					d.next()
				}
			}
			b.ReportMetric(sideI.median(), "initiator-µs")
			b.ReportMetric(sideR.median(), "responder-µs")
			b.ReportMetric(100*pkI.median()/sideI.median(), "initiator-pk-%")
			b.ReportMetric(100*pkR.median()/sideR.median(), "responder-pk-%")
			b.ReportMetric(1e6/sideR.median(), "handshakes/s")
		})
	}
}

// samples are durations, of which the median is little moved by whatever else
// the machine does.
type samples struct {
	now time.Duration
	all []time.Duration
}

func (s *samples) next() { s.all, s.now = append(s.all, s.now), 0 }

// median returns µs.
func (s *samples) median() float64 {
	slices.Sort(s.all)
	return float64(s.all[len(s.all)/2]) / float64(time.Microsecond)
}

// publicKeyOperations returns those of one side: a fresh key, the peer's point,
// the ephemeral secret, its own and the peer's authentication.
func publicKeyOperations(b *testing.B, h *handshake, role Role, own, peer *Identity) func() error {
	b.Helper()
	curve := h.suite.curve
	other, err := curve.generate()
	if err != nil {
		b.Fatal(err)
	}
	compact := curve.compact(other.PublicKey())
	content := make([]byte, 200) // about the size of a Sig_structure
	var signer cose.Signer
	var verifier cose.Verifier
	var signature []byte
	if own.Signer != nil {
		signer = must[cose.Signer](b)(cose.NewSigner(h.suite.signature, own.Signer))
	}
	if peer.Signer != nil {
		verifier = must[cose.Verifier](b)(cose.NewVerifier(h.suite.signature, peer.Credential.key.verifier()))
		signature = must[[]byte](b)(must[cose.Signer](b)(cose.NewSigner(h.suite.signature, peer.Signer)).Sign(nil, content))
	}
	return func() error {
		key, err := curve.generate()
		if err != nil {
			return err
		}
		pub, err := curve.expand(compact)
		if err != nil {
			return err
		}
		if _, err := curve.exchange(key, pub); err != nil {
			return err
		}
		if h.method.static(role) {
			_, err = curve.exchange(own.Exchanger, pub)
		} else {
			_, err = signer.Sign(nil, content)
		}
		if err != nil {
			return err
		}
		if h.method.static(role.peer()) {
			_, err = curve.exchange(key, peer.Credential.key.ecdh)
			return err
		}
		return verifier.Verify(content, signature)
	}
}
