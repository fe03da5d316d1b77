package load

import (
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/terminate"
)

// refusals are what a gateway counts of the floods, beside garbage.
var refusals = []string{"malformed", "decode_error", "no_context", "decrypt_error", "replay", "unprotected", "plain_refused", "unmatched"}

// Nothing that is forged leaves anything behind: no exchange, no device.
func TestForgedDatagramsLeaveNothing(t *testing.T) {
	const devices, each = 50, 2000
	c := contend(t, "gateway", sealed, devices, settings{Kind: "gateway"})
	before := c.usage(true)
	for i := range floods {
		f := newFlooder(t, c.at, c.fleet)
		t.Run(floods[i].name, func(t *testing.T) {
			for range each / burst {
				f.burst(&floods[i], burst)
				if lost := c.fleet.up.closed(burst, burst, c.fleet.updates(c.at)); lost > 0 {
					t.Errorf("%d genuine requests were lost", lost)
				}
			}
			u := c.usage(true)
			for _, gauge := range []string{"devices", "devices_plain", "observations"} {
				if u.Gauges[gauge] != before.Gauges[gauge] {
					t.Errorf("%s: %d, was %d", gauge, u.Gauges[gauge], before.Gauges[gauge])
				}
			}
			if u.Gauges["exchanges"] != 0 {
				t.Errorf("%d exchanges", u.Gauges["exchanges"])
			}
			if got, most := c.backend.got.Load(), c.fleet.up.sent.Load(); got > most {
				t.Errorf("the server got %d requests of %d", got, most)
			}
		})
	}
	u := c.usage(true)
	var refused uint64
	for _, name := range refusals {
		refused += u.Counters[name] - before.Counters[name]
	}
	if least := uint64(len(floods) * each / burst * burst / 2); refused < least {
		t.Errorf("only %d datagrams were refused: %v", refused, u.Counters)
	}
}

// Requests whose device never answers are bounded for a device and in all, what is
// too much is refused at once and told when to come again, and there is room left
// for the requests of devices.
func TestHalfOpenExchangesAreBounded(t *testing.T) {
	const devices, most, each = 100, 200, 8
	c := contend(t, "gateway", sealed, devices, settings{Kind: "gateway", MaxExchanges: most, DeviceExchanges: each, Timeout: 2 * time.Second})
	c.backend.method = coap.GET
	c.fleet.mute.Store(true)
	asked := c.backend.asked.watch(devices)
	send := c.backend.questions()
	for range 40 {
		send(burst)
	}
	refusedAtLeast := int64(40*burst - most)
	eventually(t, "what is too much is refused", c, func(u usage) bool {
		if u.Gauges["exchanges"] > most {
			t.Errorf("%d exchanges, %d allowed", u.Gauges["exchanges"], most)
		}
		return c.backend.asked.answered.Load() >= refusedAtLeast
	})
	c.backend.asked.over(asked, 0)
	if n := asked.codes[coap.ServiceUnavailable]; int64(n) < refusedAtLeast || asked.hasty > 0 {
		t.Errorf("%d are refused, of whom %d are not told when to come again", n, asked.hasty)
	}
	if u := c.usage(true); u.Counters["queue_full"] < uint64(refusedAtLeast) {
		t.Errorf("queue_full %d, %d are refused", u.Counters["queue_full"], refusedAtLeast)
	}
	up := c.fleet.up.watch(devices)
	c.fleet.up.closed(20*burst, burst, c.fleet.updates(c.at))
	c.fleet.up.over(up, 0)
	if n := up.codes[coap.Changed]; n != 20*burst {
		t.Errorf("%d of %d requests of devices are answered: %v", n, 20*burst, up)
	}
	c.fleet.mute.Store(false)
	eventually(t, "the exchanges end", c, func(u usage) bool { return u.Gauges["exchanges"] == 0 })
	if lost := c.backend.asked.closed(burst, burst, send); lost > 0 {
		t.Errorf("%d requests were lost when all was over", lost)
	}
}

// eventually waits until the gateway's counters are as wanted.
func eventually(t *testing.T, what string, c *contender, ok func(usage) bool) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for !ok(c.usage(true)) {
		if time.Now().After(end) {
			t.Fatalf("never: %s\n%+v", what, c.usage(true))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Plain requests of a gateway that watches a migration are its devices' alone.
func TestPlainFloodMakesNoDevices(t *testing.T) {
	const devices = 20
	c := contend(t, "gateway", plain, devices, settings{Kind: "gateway", Plain: terminate.PlainObserve})
	f := newFlooder(t, c.at, &fleet{devices: make([]device, 10*devices)})
	for range 50 {
		f.burst(&floods[4], burst)
		c.fleet.up.closed(burst, burst, c.fleet.updates(c.at))
	}
	if u := c.usage(true); u.Gauges["devices"] != devices || u.Gauges["devices_plain"] > devices {
		t.Errorf("%v, of %d devices", u.Gauges, devices)
	}
}
