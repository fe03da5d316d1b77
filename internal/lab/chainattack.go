package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/mallory"
	"github.com/oscorelay/oscorelay/internal/sim"
)

// chainAttacks is what the hostile proxy must not achieve in its place between
// the device and the keyless proxy.
var chainAttacks = []step[*chain]{
	{"flip, server to device", flipDown},
	{"flip, device to server", flipUp},
	{"replay of everything", replayAll},
	{"replay after kill -9", replayAllAfterKill},
	{"hold back a Send", holdSend},
	{"hold back a notification", holdNotification},
	{"strip of option 9", stripBoth},
	{"re-answer the server", answerForDevice},
	{"re-answer the device", answerForServer},
	{"swap of two answers", swapReads},
	{"requests of its own", impostor},
}

// cut lets pass what comes by until the n-th sealed message of a direction,
// which it keeps, with all that come after it, either way.
func (c *chain) cut(d mallory.Direction, n int) <-chan []byte {
	held := make(chan []byte, 1)
	var mu sync.Mutex
	seen := 0
	c.hostile.SetScript(func(p mallory.Packet) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		if seen >= n {
			return nil
		}
		if p.Direction == d && mallory.Protected(p.Data) {
			if seen++; seen == n {
				held <- p.Data
				return nil
			}
		}
		return c.pass(p)
	})
	return held
}

// pass lets pass what comes by, and takes what is said to mallory's own.
func (c *chain) pass(p mallory.Packet) [][]byte {
	d, _, _, ok := mallory.Parse(p.Data)
	if !ok || p.Direction != mallory.ToClient || len(d.Token) != ownToken || d.Token[0] != 'm' {
		return mallory.Pass(p)
	}
	if d.Type == coap.Confirmable {
		_ = c.hostile.Inject(mallory.ToServer, coap.Datagram{Type: coap.Acknowledgement, MessageID: d.MessageID}.Append(nil)) // or it comes again
	}
	return nil
}

// ownToken is the length of the tokens that anew makes: the letter m, a number.
const ownToken = 5

// keep makes the hostile proxy keep the first sealed message of a direction,
// and all its copies; the other direction is the script's.
func keep(relay *mallory.Relay, d mallory.Direction, other mallory.Script) <-chan []byte {
	held := make(chan []byte, 1)
	var once sync.Once
	relay.SetScript(func(p mallory.Packet) [][]byte {
		if p.Direction != d {
			return other(p)
		}
		if mallory.Protected(p.Data) {
			once.Do(func() { held <- p.Data })
			return nil
		}
		return mallory.Pass(p)
	})
	return held
}

// quiet keeps from the other end what the device says in plain to messages that
// mallory made of one of the gateway's: a refusal, or a Reset.
func quiet(p mallory.Packet) [][]byte {
	d, _, _, ok := mallory.Parse(p.Data)
	if ok && p.Direction == mallory.ToServer && !mallory.Protected(p.Data) && (d.Code.IsResponse() || d.Type == coap.Reset) {
		return nil
	}
	return mallory.Pass(p)
}

// anew makes a datagram another exchange for the message layer: the n-th of
// mallory's own.
func anew(data []byte, n int) []byte {
	return mallory.Edit(data, func(d *coap.Datagram, _ *coap.Options, _ *[]byte) {
		d.MessageID += uint16(n) + 0x2000
		d.Token = binary.BigEndian.AppendUint32([]byte("m"), uint32(n))
	})
}

// flipDown changes every byte of an execute on its way to the device.
func flipDown(c *chain) (string, error) {
	held := keep(c.hostile, mallory.ToClient, quiet)
	wait := c.executes()
	genuine, err := take(held)
	if err != nil {
		return "", err
	}
	flips := 0
	for i := protectedFrom(genuine); i < len(genuine); i++ {
		if err := c.hostile.Inject(mallory.ToClient, mallory.Flip(genuine, i*8+i%8)); err != nil {
			return "", err
		}
		flips++
	}
	c.hostile.SetScript(quiet)
	return fmt.Sprintf("%d flips refused, ran 1 time", flips), errors.Join(c.hostile.Inject(mallory.ToClient, genuine), wait())
}

// flipUp changes every byte of a Send on its way to the server. Each flip is an
// exchange of its own: the keyless proxy cannot tell which of two is genuine, and
// of one exchange carries the first.
func flipUp(c *chain) (string, error) {
	held := keep(c.hostile, mallory.ToServer, c.pass)
	wait := c.sendsNow()
	genuine, err := take(held)
	if err != nil {
		return "", err
	}
	flips := 0
	for i := protectedFrom(genuine); i < len(genuine); i++ {
		if err := c.hostile.Inject(mallory.ToServer, anew(mallory.Flip(genuine, i*8+i%8), i)); err != nil {
			return "", err
		}
		flips++
	}
	c.hostile.SetScript(c.pass)
	return fmt.Sprintf("%d flips refused, 1 arrived", flips), errors.Join(c.hostile.Inject(mallory.ToServer, genuine), wait())
}

// replayEverything sends every sealed request of the run again. Now and then a
// genuine read of the server's comes between: when it is answered, no socket's
// buffer holds more than what came since.
func (c *chain) replayEverything(directions ...mallory.Direction) (n, reads int, err error) {
	for _, p := range c.hostile.Capture() {
		d, _, _, ok := mallory.Parse(p.Data)
		if !ok || p.Forged || !d.Code.IsRequest() || !mallory.Protected(p.Data) {
			continue
		}
		for _, to := range directions {
			if to != p.Direction {
				continue
			}
			n++
			if err := c.hostile.Inject(to, anew(p.Data, n)); err != nil {
				return n, reads, err
			}
			if to == mallory.ToClient && n%32 == 0 {
				reads++
				if err := c.reads("/3/0/0", manufacturer); err != nil {
					return n, reads, err
				}
			}
		}
	}
	return n, reads, nil
}

// acted counts what the device and the server acted on.
func (c *chain) acted() (device, server int) {
	return c.device.count(named("served")), c.server.count(func(x line) bool {
		return x.Event == "sent" || x.Event == "registered" || x.Event == "updated" || x.Event == "deregistered" || x.Event == "unexpected"
	})
}

// more checks that the device and the server acted on so many more than before.
func (c *chain) more(device, server, byDevice, byServer int) error {
	settled(device+byDevice, func() int { d, _ := c.acted(); return d })
	settled(server+byServer, func() int { _, s := c.acted(); return s })
	if d, s := c.acted(); d-device != byDevice || s-server != byServer {
		return fmt.Errorf("the device acted on %d, the server on %d, not on %d and %d", d-device, s-server, byDevice, byServer)
	}
	return nil
}

func replayAll(c *chain) (string, error) {
	c.hostile.SetScript(c.pass)
	device, server := c.acted()
	n, reads, err := c.replayEverything(mallory.ToClient, mallory.ToServer)
	if err != nil {
		return "", err
	}
	// Genuine traffic comes behind them, and through.
	err = errors.Join(c.reads("/3/0/0", manufacturer), c.sendsNow()(), c.more(device, server, reads+1, 1))
	return fmt.Sprintf("%d replays, 0 acted on", n), err
}

// replayAllAfterKill does so to a gateway whose replay windows are lost.
func replayAllAfterKill(c *chain) (string, error) {
	if err := c.killGateway(); err != nil {
		return "", err
	}
	acted := func() int { _, s := c.acted(); return s }
	before := acted()
	n, _, err := c.replayEverything(mallory.ToServer)
	if err != nil {
		return "", err
	}
	err = errors.Join(c.until("echo_challenge", 1), c.sendsNow()())
	if now := settled(before+1, acted); now-before != 1 {
		err = errors.Join(err, fmt.Errorf("the server acted on %d", now-before-1))
	}
	counters, cerr := c.counters()
	return fmt.Sprintf("%d replays, %d challenged", n, counters["echo_challenge"]-1), errors.Join(err, cerr)
}

// holdSend keeps a Send back until its own retransmission was answered.
func holdSend(c *chain) (string, error) {
	var mu sync.Mutex
	var first []byte
	c.hostile.SetScript(func(p mallory.Packet) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		if p.Direction == mallory.ToServer && mallory.Protected(p.Data) && first == nil {
			first = p.Data
			return nil
		}
		return c.pass(p)
	})
	if err := c.sendsNow()(); err != nil {
		return "", err
	}
	mu.Lock()
	late := first
	mu.Unlock()
	before := c.sent()
	err := errors.Join(c.hostile.Inject(mallory.ToServer, late), c.hostile.Inject(mallory.ToServer, anew(late, 1)), c.sendsNow()())
	if n := settled(1, func() int { return c.sent() - before }) - 1; n != 0 {
		err = errors.Join(err, fmt.Errorf("what came late arrived %d times", n))
	}
	return "came 2 times late, 0 acted on", err
}

// holdNotification lets a notification be overtaken by the next.
func holdNotification(c *chain) (string, error) {
	id, err := c.observes(sim.Command{Cmd: "observe", Path: sensor, Format: formatText})
	if err != nil {
		return "", err
	}
	c.single = id
	held := c.cut(mallory.ToServer, 1)
	c.value++
	old := c.value
	if _, err := c.ask(c.device, sim.Command{Cmd: "set", Path: sensor, Value: ptr(quarters(old))})(); err != nil {
		return "", err
	}
	late, err := take(held)
	if err != nil {
		return "", err
	}
	c.hostile.SetScript(c.pass)
	if err := c.notifies(); err != nil {
		return "", err
	}
	if err := errors.Join(c.hostile.Inject(mallory.ToServer, late), c.notifies()); err != nil {
		return "", err
	}
	if n := c.server.count(func(x line) bool { return x.Event == "notification" && x.Text == quarters(old) }); n != 0 {
		return "", errors.New("the server was told the old value after the new one")
	}
	return "the old value did not arrive", nil
}

// stripBoth takes the OSCORE option off what passes, ahead of the genuine.
func stripBoth(c *chain) (string, error) {
	device, server := c.acted()
	var mu sync.Mutex
	n := 0
	c.hostile.SetScript(func(p mallory.Packet) [][]byte {
		if !mallory.Protected(p.Data) {
			return c.pass(p)
		}
		d, _, _, _ := mallory.Parse(p.Data)
		if !d.Code.IsRequest() {
			return c.pass(p)
		}
		mu.Lock()
		defer mu.Unlock()
		n++
		return [][]byte{anew(mallory.Strip(p.Data, coap.OSCORE), n), p.Data}
	})
	err := errors.Join(c.reads("/3/0/0", manufacturer), c.sendsNow()(), c.more(device, server, 1, 1))
	mu.Lock()
	defer mu.Unlock()
	return fmt.Sprintf("%d stripped, 0 acted on", n), err
}

// answerForDevice answers reads of the server's by itself: with an earlier answer
// of the device's, with a changed one, and in plain.
func answerForDevice(c *chain) (string, error) {
	var earlier []byte // a sealed answer to another request
	for _, p := range c.hostile.Capture() {
		if d, _, _, ok := mallory.Parse(p.Data); ok && !p.Forged && p.Direction == mallory.ToServer && d.Code.IsResponse() && mallory.Protected(p.Data) {
			earlier = p.Data
		}
	}
	forgeries := []func(genuine []byte) []byte{
		func(g []byte) []byte { return mallory.Retoken(earlier, g) },
		func(g []byte) []byte { return mallory.Flip(g, len(g)*8-1) },
		func(g []byte) []byte {
			return mallory.Edit(g, func(d *coap.Datagram, opts *coap.Options, body *[]byte) {
				d.Code, *opts, *body = coap.Content, nil, []byte("forged")
			})
		},
	}
	for _, forge := range forgeries {
		var once sync.Once
		c.hostile.SetScript(func(p mallory.Packet) [][]byte {
			out := c.pass(p)
			if d, _, _, ok := mallory.Parse(p.Data); ok && p.Direction == mallory.ToServer && d.Code.IsResponse() && mallory.Protected(p.Data) {
				once.Do(func() { out = [][]byte{forge(p.Data), p.Data} })
			}
			return out
		})
		// The proxy may take the forgery for the answer and drop the genuine one:
		// then the server hears nothing, which whoever is on the path can do
		// anyway. It must not hear anything else.
		x, err := c.ask(c.server, sim.Command{Cmd: "read", Path: "/3/0/0", Format: formatText, Timeout: 1500})()
		if err == nil && (x.Code != "2.05" || string(x.Payload) != manufacturer) {
			return "", fmt.Errorf("the server was told %s %.20q", x.Code, x.Payload)
		}
	}
	c.hostile.SetScript(c.pass)
	return fmt.Sprintf("%d forgeries, 0 believed", len(forgeries)), c.reads("/3/0/0", manufacturer)
}

// answerForServer answers a Send in plain and keeps it from the server: the
// device must not take it for done.
func answerForServer(c *chain) (string, error) {
	before := c.sent()
	forged := 0
	var mu sync.Mutex
	c.hostile.SetScript(func(p mallory.Packet) [][]byte {
		if p.Direction != mallory.ToServer || !mallory.Protected(p.Data) {
			return c.pass(p)
		}
		mu.Lock()
		forged++
		mu.Unlock()
		d, _, _, _ := mallory.Parse(p.Data)
		ack := coap.Datagram{Type: coap.Acknowledgement, Code: coap.Changed, MessageID: d.MessageID, Token: d.Token}
		_ = c.hostile.Inject(mallory.ToClient, ack.Append(nil)) // the device repeats itself
		return nil
	})
	_, err := c.ask(c.device, sim.Command{Cmd: "send", Paths: []string{"/3/0/9"}, Timeout: 1500})()
	if err == nil {
		return "", errors.New("the device took a plain 2.04 for the server's")
	}
	c.hostile.SetScript(c.pass)
	err = c.sendsNow()()
	if n := settled(1, func() int { return c.sent() - before }); n != 1 {
		err = errors.Join(err, fmt.Errorf("the server got %d", n))
	}
	mu.Lock()
	defer mu.Unlock()
	return fmt.Sprintf("%d forgeries, 0 believed", forged), err
}

// swapReads exchanges the answers of two reads of the server's, under rewritten
// tokens, and sends the genuine ones after them.
func swapReads(c *chain) (string, error) {
	var mu sync.Mutex
	var answers [][]byte
	c.hostile.SetScript(func(p mallory.Packet) [][]byte {
		d, _, _, ok := mallory.Parse(p.Data)
		if !ok || p.Direction != mallory.ToServer || !d.Code.IsResponse() || !mallory.Protected(p.Data) {
			return c.pass(p)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, a := range answers {
			if bytes.Equal(a, p.Data) {
				return nil
			}
		}
		answers = append(answers, p.Data)
		if len(answers) != 2 {
			return nil
		}
		a, b := answers[0], answers[1]
		return [][]byte{mallory.Retoken(a, b), mallory.Retoken(b, a), a, b}
	})
	first := c.ask(c.server, sim.Command{Cmd: "read", Path: "/3/0/0", Format: formatText, Timeout: 1500})
	second := c.ask(c.server, sim.Command{Cmd: "read", Path: "/3/0/14", Format: formatText, Timeout: 1500})
	for i, wait := range []func() (line, error){first, second} {
		x, err := wait()
		if right := []string{manufacturer, offset}[i]; err == nil && string(x.Payload) != right {
			return "", fmt.Errorf("the server was told %s %.20q, not %q", x.Code, x.Payload, right)
		}
	}
	c.hostile.SetScript(c.pass)
	return "0 of 2 believed", errors.Join(c.reads("/3/0/0", manufacturer), c.reads("/3/0/14", offset))
}

// impostor speaks for itself, in plain: as the device to the server, as the
// server to the device.
func impostor(c *chain) (string, error) {
	device, server := c.acted()
	var mu sync.Mutex
	var answers []coap.Datagram
	c.hostile.SetScript(func(p mallory.Packet) [][]byte {
		d, _, _, ok := mallory.Parse(p.Data)
		if !ok || string(d.Token) != "me" {
			return c.pass(p)
		}
		mu.Lock()
		defer mu.Unlock()
		answers = append(answers, d)
		return nil
	})
	plain := func(code coap.Code, id uint16, opts coap.Options, payload string) []byte {
		return coap.Datagram{Code: code, MessageID: id, Token: []byte("me"), Body: coap.AppendBody(nil, opts, []byte(payload))}.Append(nil)
	}
	path := func(segments ...string) (opts coap.Options) {
		for _, s := range segments {
			opts = opts.Add(coap.URIPath, []byte(s))
		}
		return opts
	}
	for _, x := range []struct {
		to   mallory.Direction
		data []byte
	}{
		{mallory.ToServer, plain(coap.POST, 0x7101, path("rd").Add(coap.URIQuery, []byte("ep="+endpointName)).Add(coap.URIQuery, []byte("lt=300")), "</3/0>")},
		{mallory.ToServer, plain(coap.POST, 0x7102, path("dp"), "forged")},
		{mallory.ToServer, plain(coap.DELETE, 0x7103, path("rd", "1"), "")},
		{mallory.ToClient, plain(coap.POST, 0x7104, path("3", "0", "4"), "")},
		{mallory.ToClient, plain(coap.GET, 0x7105, path("3", "0", "0"), "")},
		{mallory.ToClient, plain(coap.PUT, 0x7106, path("3", "0", "14"), "-09:00")},
	} {
		if err := c.hostile.Inject(x.to, x.data); err != nil {
			return "", err
		}
	}
	err := errors.Join(c.reads("/3/0/14", offset), c.sendsNow()(), c.more(device, server, 1, 1))
	mu.Lock()
	defer mu.Unlock()
	for _, d := range answers {
		if d.Code != coap.Empty && d.Code.Class() != 4 {
			err = errors.Join(err, fmt.Errorf("a plain request was answered %v", d.Code))
		}
	}
	return "6 in plain, 0 acted on", err
}
