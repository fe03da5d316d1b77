package terminate

import (
	"fmt"
	"testing"
	"time"
)

// All devices are shown while some come and go, and the sums agree with them.
func TestDevicesInSlices(t *testing.T) {
	g := &Gateway{devices: map[string]*device{}, byIndex: map[uint32]*device{}, back: &ports{sockets: nil, g: &Gateway{}}}
	add := func(i int) {
		d := &device{name: fmt.Sprint(i), index: uint32(i), place: len(g.all)}
		g.devices[d.name], g.byIndex[d.index] = d, d
		g.all = append(g.all, d)
	}
	const n = 10 * someDevices
	for i := range n {
		add(i)
	}
	seen := map[string]int{}
	g.Devices(func(d Device) bool {
		seen[d.Context]++
		if k := len(seen); k%3 == 0 && k < n/4 { // the lock is free meanwhile
			g.mu.Lock()
			g.remove(g.devices[d.Context]) // one that was seen
			add(n + k)
			g.mu.Unlock()
		}
		return true
	})
	for i := range n {
		if seen[fmt.Sprint(i)] == 0 {
			t.Fatalf("device %d is not shown", i)
		}
	}
	if len(g.all) != len(g.devices) {
		t.Errorf("%d and %d", len(g.all), len(g.devices))
	}
	for i, d := range g.all {
		if d.place != i {
			t.Errorf("%s has place %d, stands at %d", d.name, d.place, i)
		}
	}
}

// A gateway that is stuck says so, and no longer when it moves again.
func TestStalled(t *testing.T) {
	g, _ := plainGateway(t, newBackend(t))
	until := func(what string, ok func(time.Duration) bool) {
		t.Helper()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(20 * time.Second); !ok(g.Stalled(time.Now())); <-tick.C {
			if time.Now().After(end) {
				t.Error("never:", what)
				return
			}
		}
	}
	g.mu.Lock() // perhaps before the first tick: that is stuck too
	until("stalled", func(d time.Duration) bool { return d > 500*time.Millisecond })
	g.mu.Unlock()
	until("moves", func(d time.Duration) bool { return d < 200*time.Millisecond })
}
