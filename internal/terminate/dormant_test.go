package terminate

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// dormantDevice is a device whose observations were left by an earlier process.
func dormantDevice(g *Gateway, n int) *device {
	dev := &device{name: "dev9", plain: true, at: hop{remote: netip.MustParseAddrPort("127.0.0.1:9")}, asked: map[string]*downlink{}}
	for i := range n {
		d := &downlink{dev: dev, token: []byte(fmt.Sprint(i)), observes: true, relation: dormant, m: oscore.Message{Code: byte(coap.GET)}}
		dev.asked[string(d.token)] = d
		dev.observations++
		dev.asleep++
	}
	return dev
}

// A device that is heard often while its observations wait for their turn is in the
// queue once for each.
func TestDormantOnce(t *testing.T) {
	g := &Gateway{}
	dev := dormantDevice(g, 3)
	for range 1000 {
		g.wake(dev)
	}
	g.queueDormant(dev)
	if n := g.dormant.Len(); n != 3 {
		t.Errorf("%d in the queue, for 3 observations", n)
	}
	if due := g.nextDormant(10); len(due) != 3 || g.dormant.Len() != 0 {
		t.Errorf("%d are due, %d left", len(due), g.dormant.Len())
	}
}

// An observation whose turn comes under full load is taken up later.
func TestDormantUnderLoad(t *testing.T) {
	for _, held := range []bool{false, true} {
		g, _ := plainGateway(t, newBackend(t))
		var out sending
		var dev *device
		var due []*downlink
		g.locked(&out, func() {
			dev = dormantDevice(g, 1)
			dev.plain = !held
			if held {
				dev.settled = make(chan struct{})
			}
			g.cfg.MaxExchanges = 0
			g.queueDormant(dev)
			due = g.nextDormant(10)
		})
		for _, d := range due {
			g.revive(time.Now(), d, &out)
		}
		g.locked(&out, func() {
			if dev.asleep != 1 {
				t.Errorf("held %v: it is lost: state %d, %d asleep", held, due[0].relation, dev.asleep)
			}
		})
	}
}
