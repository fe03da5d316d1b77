//go:build interop

package interop

import (
	"fmt"
	"testing"

	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/oscore"
)

// TestAlgorithms exchanges a message under every AEAD and HKDF that the
// opponent has.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o opponent, direction string) {
		try := func(t *testing.T, aead, hkdf int, feature string) {
			t.Parallel()
			ctx := peer.Interop(false)
			ctx.AEAD, ctx.HKDF = aead, hkdf
			m := o.meet(t, direction, ctx, ctx, ours.Config{})
			r := m.client.Do(t, post)
			if r.Answer.Code != "2.04" || !r.Answer.Sealed || string(r.Answer.Payload) != string(post.Payload) {
				t.Errorf("%+v", r)
			}
			m.relay.Capture().Sealed(t)
			o.record(t, direction, feature)
		}
		for _, aead := range o.aeads {
			t.Run(fmt.Sprintf("aead%d", aead), func(t *testing.T) {
				try(t, aead, -10, "AEAD "+oscore.AEAD(aead).String())
			})
		}
		for _, hkdf := range o.hkdfs {
			t.Run(fmt.Sprintf("hkdf%d", hkdf), func(t *testing.T) {
				h, err := oscore.ParseHKDF(fmt.Sprint(hkdf))
				if err != nil {
					t.Fatal(err)
				}
				try(t, 10, hkdf, h.String())
			})
		}
	})
}

// TestKIDContextOmitted has an ID Context on both sides that travels in no
// message.
func TestKIDContextOmitted(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o opponent, direction string) {
		if o.component == "aiocoap" {
			t.Skip("its client always sends an ID Context as kid context, and its server wants it")
		}
		ctx := peer.Interop(true)
		ctx.OmitKIDContext = true
		m := o.meet(t, direction, ctx, ctx, ours.Config{OmitKIDContext: true})
		r := m.client.Do(t, post)
		if r.Answer.Code != "2.04" || !r.Answer.Sealed {
			t.Errorf("%+v", r)
		}
		m.relay.Capture().Sealed(t)
		for _, q := range m.relay.Capture().Requests(t) {
			v, _ := q.Option(peer.OptOSCORE)
			if option, err := peer.ParseOSCOREOption(v); err != nil || option.KIDContext != nil {
				t.Errorf("a kid context, or %v: %s", err, q)
			}
		}
		o.record(t, direction, "ID Context, not sent")
	})
}
