package lab

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
)

// chainTraffic is what a plain server and a sealed device do all day.
var chainTraffic = []step[*chain]{
	{"register", (*chain).registers},
	{"read", func(c *chain) (string, error) {
		return "1 value", c.reads("/3/0/0", manufacturer)
	}},
	{"write", func(c *chain) (string, error) { return "1 value, read back", c.writes() }},
	{"execute", func(c *chain) (string, error) { return "ran 1 time", c.executes()() }},
	{"observe", func(c *chain) (string, error) {
		var err error
		if c.single, err = c.observes(sim.Command{Cmd: "observe", Path: sensor, Format: formatText}); err != nil {
			return "", err
		}
		for range 3 {
			if err := c.notifies(); err != nil {
				return "", err
			}
		}
		return "3 changes, 3 notifications", nil
	}},
	{"composite read", func(c *chain) (string, error) {
		x, err := want(c.ask(c.server, sim.Command{Cmd: "read-composite", Paths: []string{"/3/0/0", "/3/0/14"}}), "2.05")
		if err == nil && !(bytes.Contains(x.Payload, []byte(manufacturer)) && bytes.Contains(x.Payload, []byte(offset))) {
			err = fmt.Errorf("%d bytes without the values", len(x.Payload))
		}
		return "2 values in 1 answer", err
	}},
	{"composite observe", func(c *chain) (string, error) {
		var err error
		if c.many, err = c.observes(sim.Command{Cmd: "observe-composite", Paths: []string{"/3/0/9", "/6/0/0"}}); err != nil {
			return "", err
		}
		return "2 changes, 2 notifications", errors.Join(c.notifiesMany(), c.notifiesMany())
	}},
	{"Send", func(c *chain) (string, error) { return "arrived 1 time", c.sendsNow()() }},
	{"update", func(c *chain) (string, error) {
		if _, err := c.ask(c.device, sim.Command{Cmd: "update"})(); err != nil {
			return "", err
		}
		return "same registration", c.unmoved()
	}},
	{"20 KB to the device", func(c *chain) (string, error) { return "byte-identical, 1 package", c.writesLarge()() }},
	{"20 KB from the device", func(c *chain) (string, error) { return "byte-identical", c.readsLarge()() }},
}

const (
	manufacturer = "Open Mobile Device" // what /3/0/0 holds
	offset       = "+05:45"             // what is written to /3/0/14
	sensor       = "/3303/0/5700"
	largeSize    = lwm2m.Large
)

var formatText = ptr(lwm2m.Text)

func ptr[T any](v T) *T { return &v }

// registers has the device register and notes what the server has of it.
func (c *chain) registers() (string, error) {
	from := c.server.mark()
	if _, err := c.ask(c.device, sim.Command{Cmd: "register"})(); err != nil {
		return "", err
	}
	x, err := c.server.wait(5*time.Second, from, named("registered"))
	if err != nil {
		return "", err
	}
	if x.Endpoint != endpointName {
		return "", fmt.Errorf("the server has it as %q", x.Endpoint)
	}
	c.same = x.Location + " " + x.Addr
	// The relay before the server knows the address that stands for the device.
	packets := c.plain.Capture()
	return "as " + packets[0].Client, nil
}

// unmoved checks that the latest update was of the registration that the server
// has, from the address that it knows.
func (c *chain) unmoved() error {
	last := ""
	for _, x := range c.server.since(0) {
		switch x.Event {
		case "registered":
			last = x.Location + " " + x.Addr
		case "updated":
			last = x.Path + " " + x.Addr
		}
	}
	if last != c.same {
		return fmt.Errorf("the server knows the device as %s, before as %s", last, c.same)
	}
	return nil
}

// observes has the server observe and returns the id of that.
func (c *chain) observes(cmd sim.Command) (id int, err error) {
	x, err := want(c.ask(c.server, cmd), "2.05")
	return x.ID, err
}

// notifies changes the sensor and waits until the server is notified of that.
func (c *chain) notifies() error {
	c.value++
	text := quarters(c.value)
	return c.notified(c.single, sensor, text, func(x line) bool { return x.Text == text })
}

// quarters is a value of the sensor as text.
func quarters(n int) string { return strconv.FormatFloat(float64(n)/4, 'f', -1, 64) }

// notifiesMany does so with the battery level, which the composite observation
// is of: its value is not looked for, a composite payload is SenML.
func (c *chain) notifiesMany() error {
	c.value++
	return c.notified(c.many, "/3/0/9", strconv.Itoa(c.value%100), func(x line) bool { return x.Bytes > 0 })
}

func (c *chain) notified(id int, path, value string, ok func(line) bool) error {
	from := c.server.mark()
	if _, err := c.ask(c.device, sim.Command{Cmd: "set", Path: path, Value: &value})(); err != nil {
		return err
	}
	_, err := c.server.wait(10*time.Second, from, func(x line) bool { return x.Event == "notification" && x.ID == id && ok(x) })
	if err != nil {
		err = fmt.Errorf("no notification of %s = %s: %w", path, value, err)
	}
	return err
}

// writes has the server write the device's offset, and read it.
func (c *chain) writes() error {
	_, err := want(c.ask(c.server, sim.Command{Cmd: "write", Path: "/3/0/14", Value: ptr(offset)}), "2.04")
	return errors.Join(err, c.reads("/3/0/14", offset))
}

// writesLarge has the server write a package of 20 KB that nobody wrote before.
func (c *chain) writesLarge() (wait func() error) {
	body := make([]byte, largeSize)
	if _, err := rand.Read(body); err != nil {
		return func() error { return err }
	}
	sum := sha256.Sum256(body)
	from := c.device.mark()
	answer := c.ask(c.server, sim.Command{Cmd: "write", Path: "/5/0/0", Format: ptr(lwm2m.Octets), Payload: body})
	return func() error {
		if _, err := want(answer, "2.04"); err != nil {
			return err
		}
		packages := func(ok func(sum string) bool) int {
			n := 0
			for _, x := range c.device.since(from) {
				if x.Event == "package" && ok(x.Sum) {
					n++
				}
			}
			return n
		}
		right := hex.EncodeToString(sum[:])
		n := settled(1, func() int { return packages(func(string) bool { return true }) })
		if wrong := packages(func(s string) bool { return s != right }); wrong > 0 {
			return fmt.Errorf("%d packages with other bytes arrived", wrong)
		}
		if n != 1 {
			return fmt.Errorf("the package arrived %d times", n)
		}
		return nil
	}
}

func (c *chain) readsLarge() (wait func() error) {
	answer := c.ask(c.server, sim.Command{Cmd: "read", Path: "/19/0/0/0", Format: ptr(lwm2m.Octets)})
	return func() error {
		x, err := want(answer, "2.05")
		if err == nil && !bytes.Equal(x.Payload, lwm2m.LargeBody()) {
			err = fmt.Errorf("%d bytes, not those of the device", len(x.Payload))
		}
		return err
	}
}
