package lab

import (
	"errors"
	"fmt"
	"time"

	"github.com/oscorelay/oscorelay/internal/mallory"
	"github.com/oscorelay/oscorelay/internal/sim"
)

// chainKills is what goes on over kill -9 and a new start.
var chainKills = []step[*chain]{
	{"in an execute, going out", func(c *chain) (string, error) {
		err := c.killAmid(mallory.ToClient, 1, c.executes)
		return "ran 1 time", errors.Join(err, c.counted("journal_resumed", 1))
	}},
	{"in an execute, its answer", func(c *chain) (string, error) {
		err := c.killAmid(mallory.ToServer, 1, c.executes)
		return "ran 1 time", errors.Join(err, c.counted("journal_resumed", 1))
	}},
	{"in 20 KB to the device", func(c *chain) (string, error) {
		return "byte-identical, 1 package", c.killAmid(mallory.ToServer, 8, c.writesLarge)
	}},
	{"in 20 KB from the device", func(c *chain) (string, error) {
		return "byte-identical", c.killAmid(mallory.ToServer, 8, c.readsLarge)
	}},
	{"in a Send", func(c *chain) (string, error) {
		return "arrived 1 time, 1 Echo", errors.Join(c.killAmid(mallory.ToServer, 1, c.sendsNow), c.counted("echo_challenge", 1))
	}},
	{"under 2 observations", killUnderObservations},
	{"of the keyless proxy", killProxy},
	{"of the device", killDevice},
}

// killAmid kills the gateway when the hostile proxy has kept back the n-th sealed
// message of a direction, and all after it.
func (c *chain) killAmid(d mallory.Direction, n int, begin func() (wait func() error)) error {
	select {
	// What was answered before is in the store by then; else it would be repeated
	// after the start, which is as right and takes longer.
	case <-time.After(100 * time.Millisecond):
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	held := c.cut(d, n)
	wait := begin()
	if _, err := take(held); err != nil {
		return err
	}
	if err := c.killGateway(); err != nil {
		return err
	}
	if err := wait(); err != nil {
		return err
	}
	return c.unmoved()
}

// counted checks a counter of the gateway's life.
func (c *chain) counted(name string, want uint64) error {
	now, err := c.counters()
	if err == nil && now[name] < want {
		err = fmt.Errorf("oscored counts %d of %s, not %d", now[name], name, want)
	}
	return err
}

func killUnderObservations(c *chain) (string, error) {
	if err := c.until("awake", 2); err != nil {
		return "", err
	}
	if err := c.killGateway(); err != nil {
		return "", err
	}
	// Taken up as soon as the device is heard, on the server's own tokens.
	return "2 taken up, 2 notified", errors.Join(c.until("observation_revived", 2), c.notifies(), c.notifiesMany(), c.unmoved())
}

// killProxy loses the ports by which the gateway knew the device, until it is
// heard through the new ones.
func killProxy(c *chain) (string, error) {
	c.proxy.kill()
	if err := c.startProxy(); err != nil {
		return "", err
	}
	_, err := c.ask(c.device, sim.Command{Cmd: "update"})()
	return "back with the next update", errors.Join(err, c.unmoved(), c.reads("/3/0/0", manufacturer))
}

// killDevice loses the device's observations and registration, not its numbers.
func killDevice(c *chain) (string, error) {
	c.device.kill()
	c.lives = append(c.lives, c.device)
	if err := c.startDevice(); err != nil {
		return "", err
	}
	if _, err := c.registers(); err != nil {
		return "", err
	}
	return "back, no number used twice", errors.Join(c.writes(), c.executes()())
}
