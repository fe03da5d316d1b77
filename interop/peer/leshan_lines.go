package peer

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// Leshan15 starts a server on Leshan 2.0.0-M15 that speaks no OSCORE. more may
// be --awake-ms=N: how long a device in Queue Mode is taken to listen.
func Leshan15(t testing.TB, more ...string) *Leshan {
	t.Helper()
	return leshanLines(t, "leshan", "Leshan M15", "peer.Leshan15", append([]string{"server", "--no-oscore"}, more...)...)
}

// Leshan15Sealed starts one that speaks OSCORE, with a context for each
// endpoint; in them the client is the device.
func Leshan15Sealed(t testing.TB, contexts map[string]Context) *Leshan {
	t.Helper()
	args := []string{"server"}
	for ep, c := range contexts {
		args = append(args, "--oscore:"+ep+"="+c.leshan(false))
	}
	return leshanLines(t, "leshan", "Leshan M15 with OSCORE", "peer.Leshan15", args...)
}

// Leshan18 starts a server on Leshan 2.0.0-M18, which has no OSCORE; more as of
// [Leshan15].
func Leshan18(t testing.TB, more ...string) *Leshan {
	t.Helper()
	return leshanLines(t, "leshan18", "Leshan M18", "peer.Leshan18", more...)
}

func leshanLines(t testing.TB, component, name, class string, args ...string) *Leshan {
	t.Helper()
	port := FreePort(t)
	l := &Leshan{Addr: Loopback(port)}
	spec := javaSpec(t, name, component, quietLogs, class, append(args, "--port="+decimal(port))...)
	l.begin = func() { l.Process, l.events, l.call = startLines(t, spec) }
	l.begin()
	return l
}

// startLines starts a program that takes commands and tells events as JSON
// lines, and waits until it is ready.
func startLines(t testing.TB, s Spec) (*Process, *eventLog, func(LeshanCommand) (LeshanReply, error)) {
	t.Helper()
	p, events := Start(t, s), newEventLog()
	var mu sync.Mutex // of the input and the number
	number := 0
	call := func(c LeshanCommand) (LeshanReply, error) {
		mu.Lock()
		number++
		c.ID = number
		b, err := json.Marshal(c)
		if err == nil {
			_, err = fmt.Fprintf(p.in, "%s\n", b)
		}
		mu.Unlock()
		if err != nil {
			return LeshanReply{}, err
		}
		prefix := fmt.Sprintf(`{"id":%d,`, c.ID)
		n, err := p.line(0, time.Duration(c.Timeout)*time.Millisecond+leshanPatience, func(l string) bool {
			return strings.HasPrefix(l, prefix) || strings.HasPrefix(l, strings.TrimSuffix(prefix, ",")+"}")
		})
		if err != nil {
			return LeshanReply{}, err
		}
		events.awaitRead(n) // what happened before the reply is known before it
		p.mu.Lock()
		line := p.lines[n-1]
		p.mu.Unlock()
		var r LeshanReply
		err = json.Unmarshal([]byte(line), &r)
		return r, err
	}
	go func() {
		for n := 0; ; {
			var err error
			n, err = p.line(n, time.Hour, func(string) bool { return true })
			if err != nil {
				events.close(err)
				return
			}
			p.mu.Lock()
			line := p.lines[n-1]
			p.mu.Unlock()
			if !strings.HasPrefix(line, `{"event"`) {
				events.hasRead(n)
				continue
			}
			var e LeshanEvent
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				events.close(err)
				return
			}
			events.add(e)
			events.hasRead(n)
		}
	}()
	p.AwaitLine(`{"event":"ready"`)
	return p, events, call
}

// LeshanDevice is Leshan M15's own client: an LwM2M device with objects 3 and 5.
type LeshanDevice struct {
	*Process
	endpoint string
	events   *eventLog
	call     func(LeshanCommand) (LeshanReply, error)
}

// Name is the endpoint name.
func (d *LeshanDevice) Name() string { return d.endpoint }

// Manufacturer is what it has as /3/0/0.
func (d *LeshanDevice) Manufacturer() string { return "peer" }

// LeshanDevicePlain starts the client without OSCORE.
func LeshanDevicePlain(t testing.TB, uri, ep string, more ...string) *LeshanDevice {
	t.Helper()
	d := &LeshanDevice{endpoint: ep}
	args := append([]string{"client", "--uri=" + uri, "--ep=" + ep}, more...)
	d.Process, d.events, d.call = startLines(t, javaSpec(t, "Leshan client "+ep, "leshan", quietLogs, "peer.Leshan15", args...))
	return d
}

// LeshanDeviceSealed starts it with OSCORE. With "--b2" it begins with
// Appendix B.2, as Leshan's client does from M18 on.
func LeshanDeviceSealed(t testing.TB, uri, ep string, c Context, more ...string) *LeshanDevice {
	t.Helper()
	return LeshanDevicePlain(t, uri, ep, append([]string{"--oscore=" + c.leshan(true)}, more...)...)
}

func (d *LeshanDevice) do(t testing.TB, c LeshanCommand) LeshanReply {
	t.Helper()
	c.Timeout = leshanPatience.Milliseconds()
	r, err := d.call(c)
	if err != nil || r.Error != "" {
		t.Fatalf("%s: %s: %v %s", d.name, c.Op, err, r.Error)
	}
	return r
}

// Battery sets the battery level, /3/0/9.
func (d *LeshanDevice) Battery(t testing.TB, level int) {
	t.Helper()
	d.do(t, LeshanCommand{Op: "battery", Value: fmt.Sprint(level)})
}

// Update sends a registration update.
func (d *LeshanDevice) Update(t testing.TB) {
	t.Helper()
	d.do(t, LeshanCommand{Op: "update"})
}

// Send sends the values of the paths.
func (d *LeshanDevice) Send(t testing.TB, paths ...string) {
	t.Helper()
	d.do(t, LeshanCommand{Op: "send", Paths: paths}).Must(t, 204, d.name+": send")
}

// Leave deregisters.
func (d *LeshanDevice) Leave(t testing.TB) {
	t.Helper()
	d.do(t, LeshanCommand{Op: "stop"})
}

// Await waits for an event of the device: registered, updated, write, execute.
func (d *LeshanDevice) Await(t testing.TB, from int, what string, ok func(LeshanEvent) bool) LeshanEvent {
	t.Helper()
	return d.events.await(t, d.name, from, what, ok)
}

// Mark gives the number of events so far.
func (d *LeshanDevice) Mark() int { return d.events.seen() }

// AwaitPackage waits until a firmware image of the length was written.
func (d *LeshanDevice) AwaitPackage(t testing.TB, mark, bytes int) {
	t.Helper()
	d.Await(t, mark, fmt.Sprintf("write of %d bytes", bytes), func(e LeshanEvent) bool { return e.Path == "/5/0/0" && e.Bytes == bytes })
}

// Executed counts how often a resource ran, up to now: the client tells of it
// before it answers whoever asked for it, and then of this command.
func (d *LeshanDevice) Executed() int {
	n := 0
	if _, err := d.call(LeshanCommand{Op: "nothing", Timeout: leshanPatience.Milliseconds()}); err != nil {
		d.t.Errorf("%s: %v", d.name, err)
	}
	for _, e := range d.events.from(0) {
		if e.Kind == "execute" {
			n++
		}
	}
	return n
}
