package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
)

// agentCommand is a line that the agent reads.
type agentCommand struct {
	ID      int    `json:"id"`
	Method  string `json:"method"` // GET, PUT, POST, DELETE, FETCH, or OBSERVE
	Path    string `json:"path"`
	Payload []byte `json:"payload,omitempty"` // base64
	NON     bool   `json:"non,omitempty"`
	Timeout int    `json:"timeout_ms,omitempty"` // 0: 10 s
}

// agentLine is a line that the agent prints.
type agentLine struct {
	Event   string `json:"event"` // ready, answer, notification, error, served
	ID      int    `json:"id,omitempty"`
	Code    string `json:"code,omitempty"`
	Payload []byte `json:"payload,omitempty"` // base64
	Error   string `json:"error,omitempty"`
	Path    string `json:"path,omitempty"`
	Peer    string `json:"peer,omitempty"`
}

// agent is the command that stays connected to one server, sends the requests
// that it reads as JSON lines, and serves the server's own: a device for the
// lab, and for scripts that send many requests.
func agent(ctx context.Context, io stdio, args []string) (err error) {
	f := flag.NewFlagSet("agent", flag.ContinueOnError)
	f.SetOutput(io.err)
	var r requestFlags
	r.registerEnds(f)
	f.Usage = func() {
		fmt.Fprint(io.err, "Usage: oscore agent [flags] coap://HOST:PORT\n\nReads lines such as {\"id\":1,\"method\":\"GET\",\"path\":\"/large\"} and prints answers as JSON lines.\n"+
			"Serves GET /3/0/0 to the server.\n\n")
		f.PrintDefaults()
	}
	if err := parseFlags(f, args); err != nil {
		return err
	}
	to, err := oneTarget(f)
	if err != nil {
		return err
	}
	a := &agentState{enc: json.NewEncoder(io.out)}
	c, store, err := r.connect(ctx, io, to, gocoap.Config{}, a)
	if err != nil {
		return err
	}
	defer func() {
		_ = c.Close() // what it was for is done, or has its own error
		err = errors.Join(err, store.Close())
	}()
	a.say(agentLine{Event: "ready"})
	var running sync.WaitGroup
	defer running.Wait()
	lines := bufio.NewScanner(io.in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var cmd agentCommand
		if err := json.Unmarshal(lines.Bytes(), &cmd); err != nil {
			return fmt.Errorf("standard input: line %q: %w", lines.Text(), err)
		}
		running.Go(func() { a.run(ctx, c, cmd) })
	}
	return lines.Err()
}

// agentState is the agent's output and its resources.
type agentState struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func (a *agentState) say(l agentLine) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.enc.Encode(l) // whoever reads is gone: the next signal ends the agent
}

// ServeCOAP answers the server's requests.
func (a *agentState) ServeCOAP(w mux.ResponseWriter, r *mux.Message) {
	path, _ := r.Path() // an unreadable path is an unknown one
	peer, _ := gocoap.Peer(r.Context())
	a.say(agentLine{Event: "served", Path: path, Peer: peer})
	if r.Code() != codes.GET || path != "/3/0/0" {
		_ = w.SetResponse(codes.NotFound, message.TextPlain, nil)
		return
	}
	_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader([]byte("Open Mobile Device")))
}

var agentMethods = map[string]codes.Code{
	"GET": codes.GET, "PUT": codes.PUT, "POST": codes.POST, "DELETE": codes.DELETE, "FETCH": codes.FETCH, "OBSERVE": codes.GET,
}

// run sends one request and prints what comes of it.
func (a *agentState) run(ctx context.Context, c *gocoap.Client, cmd agentCommand) {
	fail := func(err error) { a.say(agentLine{Event: "error", ID: cmd.ID, Error: err.Error()}) }
	method, ok := agentMethods[cmd.Method]
	if !ok {
		fail(fmt.Errorf("unknown method %q", cmd.Method))
		return
	}
	timeout := 10 * time.Second
	if cmd.Timeout > 0 {
		timeout = time.Duration(cmd.Timeout) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req := c.AcquireMessage(ctx)
	defer c.ReleaseMessage(req)
	req.SetCode(method)
	req.SetType(message.Confirmable)
	if cmd.NON {
		req.SetType(message.NonConfirmable)
	}
	if err := req.SetPath(cmd.Path); err != nil {
		fail(err)
		return
	}
	if cmd.Payload != nil {
		req.SetContentFormat(message.AppOctets)
		req.SetBody(bytes.NewReader(cmd.Payload))
	}
	print := func(event string, m *pool.Message) {
		body, err := m.ReadBody()
		if err != nil {
			fail(err)
			return
		}
		code := coap.Code(m.Code())
		a.say(agentLine{Event: event, ID: cmd.ID, Code: fmt.Sprintf("%d.%02d", code.Class(), code.Detail()), Payload: body})
	}
	if cmd.Method == "OBSERVE" {
		req.SetObserve(0)
		if _, err := c.DoObserve(req, func(m *pool.Message) { print("notification", m) }); err != nil {
			fail(err)
		}
		return // it lasts as long as the connection
	}
	resp, err := c.Do(req)
	if err != nil {
		fail(err)
		return
	}
	defer c.ReleaseMessage(resp)
	print("answer", resp)
}
