//go:build interop

package interop

import (
	"slices"
	"testing"

	"github.com/oscorelay/oscorelay/interop/ours"
	"github.com/oscorelay/oscorelay/interop/peer"
)

// TestExchanges plays every exchange of the interop specification, and
// block-wise transfer, between this library and each opponent.
func TestExchanges(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o opponent, direction string) {
		ctx := peer.Interop(false)
		o.meet(t, direction, ctx, ctx, ours.Config{}).run(t, exchanges)
	})
}

// TestIDContext is case 2: the same with a kid context in every request.
func TestIDContext(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o opponent, direction string) {
		ctx := peer.Interop(true)
		m := o.meet(t, direction, ctx, ctx, ours.Config{})
		m.run(t, slices.DeleteFunc(slices.Clone(exchanges), func(x exchange) bool {
			return !slices.Contains([]string{"1", "3", "7", "8"}, x.id)
		}))
		for _, q := range m.relay.Capture().Requests(t) {
			v, _ := q.Option(peer.OptOSCORE)
			if option, err := peer.ParseOSCOREOption(v); err != nil || string(option.KIDContext) != string(ctx.IDContext) {
				t.Errorf("kid context %x, %v: %s", option.KIDContext, err, q)
			}
		}
		o.record(t, direction, "ID Context, sent as kid context")
	})
}
