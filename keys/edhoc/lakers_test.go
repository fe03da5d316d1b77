//go:build interop

package edhoc

import (
	"crypto/ecdh"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/interop/peer"
)

// BenchmarkBesideLakers runs handshakes of method 3, suite 2, by kid and without
// message_4: ours in this process, as [BenchmarkHandshake] does, then as many of
// the lakers crate's, and gives the medians of both.
func BenchmarkBesideLakers(b *testing.B) {
	x := newExchange(b, StaticStatic, 2, "ccs by kid", "ccs by kid")
	side := func(i Identity) peer.EDHOCSide {
		key, ok := i.Exchanger.(*ecdh.PrivateKey)
		if !ok {
			b.Fatalf("a static key is %T", i.Exchanger)
		}
		return peer.EDHOCSide{Key: key.Bytes(), Credential: i.Credential.Bytes()}
	}
	ours := measure(b, x)
	lakersI, lakersR := peer.LakersBench(b, max(100, b.N/4), side(x.i.Identities[0]), side(x.r.Identities[0]))
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	b.ReportMetric(us(lakersI), "lakers-initiator-µs")
	b.ReportMetric(us(lakersR), "lakers-responder-µs")
	b.ReportMetric(1e6/us(lakersR), "lakers-handshakes/s")
	b.ReportMetric(us(lakersR)/ours, "lakers/ours")
}
