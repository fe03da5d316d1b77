package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"

	"github.com/oscorelay/oscorelay/internal/capture"
	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/mallory"
)

// malloryLine is a line of mallory --json.
type malloryLine struct {
	Event     string      `json:"event"` // ready, packet, done, error, end
	Addr      string      `json:"addr,omitempty"`
	N         int         `json:"n,omitempty"` // of a packet, from 1
	Direction string      `json:"direction,omitempty"`
	Client    string      `json:"client,omitempty"`
	Hex       string      `json:"hex,omitempty"`
	Lines     []int       `json:"lines,omitempty"` // of the rules that acted
	Sent      []sentLine  `json:"sent,omitempty"`  // in place of the packet; left out if it went on as it was
	Dropped   bool        `json:"dropped,omitempty"`
	ID        json.Number `json:"id,omitempty"` // of the command that is answered
	Count     int         `json:"count,omitempty"`
	Error     string      `json:"error,omitempty"`
}

type sentLine struct {
	Direction string `json:"direction"`
	Hex       string `json:"hex"`
	AfterMS   int64  `json:"after_ms,omitempty"`
}

// malloryKeep is how many packets can be sent again by their number.
const malloryKeep = 10000

// runMallory is the command that stands between a client and a server and does
// to their datagrams what a script says.
func runMallory(ctx context.Context, std stdio, args []string) (err error) {
	f := flag.NewFlagSet("mallory", flag.ContinueOnError)
	f.SetOutput(std.err)
	listen := f.String("listen", "127.0.0.1:5683", "`ADDRESS:PORT` that clients send to; port 0 takes a free one")
	to := f.String("to", "", "`ADDRESS:PORT` of the server")
	file := f.String("script", "", "read statements from this `FILE`")
	var rules []string
	f.Func("rule", "a `STATEMENT`, behind those of the file; may be repeated", func(s string) error {
		rules = append(rules, s)
		return nil
	})
	write := f.String("write", "", "write a capture of both sides to this `FILE` (pcap)")
	asJSON := f.Bool("json", false, "print a JSON line for each datagram")
	control := f.Bool("control", false, "read commands from standard input, a JSON line each; its end ends mallory")
	check := f.Bool("check", false, "check the script and end")
	f.Usage = func() { malloryUsage(std.err, f) }
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if f.NArg() != 0 {
		return usagef("unexpected argument %q: a statement is given with --rule", f.Arg(0))
	}
	script, err := readScript(*file, rules)
	if err != nil {
		return err
	}
	old, err := readReplays(script, *file)
	if err != nil {
		return err
	}
	if *check {
		fmt.Fprintln(std.out, "the script is in order")
		return nil
	}
	if *to == "" {
		return usagef("--to is missing: the server's address, such as 192.0.2.1:5683")
	}
	relay, err := mallory.Listen(*listen, *to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, relay.Close()) }()
	relay.Keep(malloryKeep)
	m := &malloryRun{relay: relay, script: script, json: *asJSON || *control, enc: json.NewEncoder(std.out), out: std.out, seen: map[int]mallory.Packet{}}
	if *write != "" {
		closeFile, err := m.record(*write)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeFile()) }()
	}
	relay.SetRules(script, m.packet)
	m.say(malloryLine{Event: "ready", Addr: relay.Addr()})
	for _, r := range old {
		r.start(relay)
	}
	if !*control {
		<-ctx.Done()
		m.end()
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- m.commands(std.in) }()
	select {
	case <-ctx.Done():
	case err = <-done:
	}
	m.end()
	return err
}

// readScript reads the statements of a file and of the command line.
func readScript(file string, rules []string) (*mallory.Rules, error) {
	if file == "" {
		return mallory.ParseRules("--rule", strings.NewReader(strings.Join(rules, "\n")))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if _, err := mallory.ParseRules(file, strings.NewReader(string(text))); err != nil {
		return nil, err // before the rest, so that a line's number is the file's
	}
	if _, err := mallory.ParseRules("--rule", strings.NewReader(strings.Join(rules, "\n"))); err != nil {
		return nil, err
	}
	return mallory.ParseRules(file, strings.NewReader(strings.TrimSuffix(string(text), "\n")+"\n"+strings.Join(rules, "\n")))
}

// oldCapture is a replay statement with its messages.
type oldCapture struct {
	mallory.Replay
	messages [][]byte
}

// readReplays reads the captures that a script names: the requests, for a server,
// or the responses.
func readReplays(script *mallory.Rules, name string) (out []oldCapture, err error) {
	if name == "" {
		name = "--rule"
	}
	for _, r := range script.Replays {
		f, err := os.Open(r.File)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, r.Line, err)
		}
		packets, _, err := capture.Read(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", name, r.Line, r.File, err)
		}
		one := oldCapture{Replay: r}
		for _, p := range packets {
			d, err := coap.ParseDatagram(p.Data)
			if err == nil && !p.Stream && (d.Code.IsRequest() && !r.ToClient || d.Code.IsResponse() && r.ToClient) {
				one.messages = append(one.messages, p.Data)
			}
		}
		if len(one.messages) == 0 {
			return nil, fmt.Errorf("%s:%d: %s holds nothing to send: no requests, or with \"to client\" no responses", name, r.Line, r.File)
		}
		out = append(out, one)
	}
	return out, nil
}

// start sends the messages when their time comes: to the server as a client of
// mallory's own, to the client as the latest one is known then.
func (o oldCapture) start(relay *mallory.Relay) {
	after := o.After
	for _, data := range o.messages {
		out := mallory.Out{Direction: mallory.ToServer, Client: mallory.Self, Data: data, After: after}
		if o.ToClient {
			out.Direction, out.Client = mallory.ToClient, ""
		}
		if o.Fresh {
			out.Data = mallory.Fresh(data, rand.Uint64())
		}
		relay.Send(out)
		after += o.Every
	}
}

// malloryRun is what a run says and remembers.
type malloryRun struct {
	relay  *mallory.Relay
	script *mallory.Rules

	mu    sync.Mutex
	json  bool
	enc   *json.Encoder
	out   io.Writer
	n     int
	acted int
	seen  map[int]mallory.Packet
}

func (m *malloryRun) say(l malloryLine) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sayLocked(l)
}

func (m *malloryRun) sayLocked(l malloryLine) {
	switch {
	case m.json:
		_ = m.enc.Encode(l) // a closed pipe ends mallory by its signal
	case l.Event == "ready":
		fmt.Fprintf(m.out, "mallory listens on %s; stop with Ctrl-C\n", l.Addr)
	case l.Event == "packet":
		what := plural(len(l.Hex)/2, "byte")
		if b, err := hex.DecodeString(l.Hex); err == nil {
			if d, err := coap.ParseDatagram(b); err == nil {
				what = fmt.Sprintf("%v %d.%02d, id %04x, %s", d.Type, d.Code.Class(), d.Code.Detail(), d.MessageID, what)
			}
		}
		arrow := "→"
		if l.Direction == "to-client" {
			arrow = "←"
		}
		did := ""
		if len(l.Lines) > 0 {
			did = fmt.Sprintf(": line %s", strings.Trim(fmt.Sprint(l.Lines), "[]"))
			switch {
			case l.Dropped:
				did += ", nothing goes on"
			case l.Sent != nil:
				did += fmt.Sprintf(", %s", plural(len(l.Sent), "datagram"))
			}
		}
		fmt.Fprintf(m.out, "%4d %s %s%s\n", l.N, arrow, what, did)
	}
}

func directionText(d mallory.Direction) string {
	if d == mallory.ToServer {
		return "to-server"
	}
	return "to-client"
}

// packet notes a datagram and what became of it.
func (m *malloryRun) packet(p mallory.Packet, lines []int, outs []mallory.Out) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	m.seen[m.n] = p
	delete(m.seen, m.n-malloryKeep)
	l := malloryLine{Event: "packet", N: m.n, Direction: directionText(p.Direction), Client: p.Client, Hex: hex.EncodeToString(p.Data), Lines: lines}
	if len(lines) > 0 {
		m.acted++
		l.Dropped = len(outs) == 0
		for _, o := range outs {
			l.Sent = append(l.Sent, sentLine{directionText(o.Direction), hex.EncodeToString(o.Data), o.After.Milliseconds()})
		}
	}
	m.sayLocked(l)
}

func (m *malloryRun) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.json {
		m.sayLocked(malloryLine{Event: "end", Count: m.n})
		return
	}
	fmt.Fprintf(m.out, "%s, %d of them touched\n", plural(m.n, "datagram"), m.acted)
}

// record writes a capture of both sides, and returns what closes it.
func (m *malloryRun) record(name string) (closeFile func() error, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	w, err := capture.NewWriter(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	var mu sync.Mutex
	var failed error
	m.relay.SetTap(func(h mallory.Hop) {
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			failed = w.Write(capture.Packet{At: h.At, From: h.From, To: h.To, Data: h.Data})
		}
	})
	return func() error {
		m.relay.SetTap(nil)
		mu.Lock()
		defer mu.Unlock()
		if err := errors.Join(failed, f.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}, nil
}
