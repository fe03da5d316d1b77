package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/internal/mallory"
)

// malloryCommand is a line of standard input with --control.
type malloryCommand struct {
	ID      json.Number `json:"id"`
	Do      string      `json:"do"`                 // rules, send, again, release, retarget
	Rules   []string    `json:"rules,omitempty"`    // rules: statements in place of the others
	To      string      `json:"to,omitempty"`       // send, again: server or client; retarget: the new server
	Hex     string      `json:"hex,omitempty"`      // send
	Client  string      `json:"client,omitempty"`   // send: the client's address, "mallory", or empty for the latest
	N       int         `json:"n,omitempty"`        // again: the packet's number
	Fresh   bool        `json:"fresh,omitempty"`    // again, send: another message ID, and for a request another token
	Name    string      `json:"name,omitempty"`     // release
	AfterMS int64       `json:"after_ms,omitempty"` // send, again
}

// commands reads commands until standard input ends.
func (m *malloryRun) commands(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var c malloryCommand
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil {
			m.say(malloryLine{Event: "error", Error: err.Error()})
			continue
		}
		n, err := m.command(c)
		if err != nil {
			m.say(malloryLine{Event: "error", ID: c.ID, Error: err.Error()})
			continue
		}
		m.say(malloryLine{Event: "done", ID: c.ID, Count: n})
	}
	return lines.Err()
}

// command does one command and returns how many datagrams it sent.
func (m *malloryRun) command(c malloryCommand) (int, error) {
	send := func(o mallory.Out) {
		o.After = time.Duration(c.AfterMS) * time.Millisecond
		if c.Fresh {
			o.Data = mallory.Fresh(o.Data, rand.Uint64())
		}
		m.relay.Send(o)
	}
	switch c.Do {
	case "rules":
		rules, err := mallory.ParseRules("rules", strings.NewReader(strings.Join(c.Rules, "\n")))
		if err != nil {
			return 0, err
		}
		old, err := readReplays(rules, "rules")
		if err != nil {
			return 0, err
		}
		m.mu.Lock()
		m.script = rules
		m.mu.Unlock()
		m.relay.SetRules(rules, m.packet)
		n := 0
		for _, r := range old {
			r.start(m.relay)
			n += len(r.messages)
		}
		return n, nil
	case "send":
		data, err := hex.DecodeString(c.Hex)
		if err != nil {
			return 0, fmt.Errorf("send: hex: %w", err)
		}
		to, err := direction(c.To)
		if err != nil {
			return 0, err
		}
		if to == mallory.ToServer && c.Client == "" {
			c.Client = mallory.Self
		}
		send(mallory.Out{Direction: to, Client: c.Client, Data: data})
		return 1, nil
	case "again":
		m.mu.Lock()
		p, ok := m.seen[c.N]
		m.mu.Unlock()
		if !ok {
			return 0, fmt.Errorf("again: there is no packet %d among the latest %d", c.N, malloryKeep)
		}
		send(mallory.Out{Direction: p.Direction, Client: p.Client, Data: p.Data})
		return 1, nil
	case "release":
		m.mu.Lock()
		script := m.script
		m.mu.Unlock()
		outs := script.Release(c.Name)
		for _, o := range outs {
			send(o)
		}
		return len(outs), nil
	case "retarget":
		return 0, m.relay.Retarget(c.To)
	}
	return 0, fmt.Errorf("unknown command %q: there are rules, send, again, release and retarget", c.Do)
}

func direction(s string) (mallory.Direction, error) {
	switch s {
	case "server":
		return mallory.ToServer, nil
	case "client":
		return mallory.ToClient, nil
	}
	return 0, fmt.Errorf("to is %q: it must be server or client", s)
}

func malloryUsage(w io.Writer, f *flag.FlagSet) {
	fmt.Fprint(w, `Usage: oscore mallory --to HOST:PORT [flags]

A hostile intermediary, to try one's own client and server with: it stands
between them on UDP, sees every datagram, and does to it what a script says. It
holds no key. Without a script it passes everything on.

A script has a statement a line. A datagram goes through the rules from top to
bottom; what one makes of it goes to the next.

  on WHICH [CONDITION ...] do ACTION
  replay FILE [to server|client] [after TIME] [every TIME] [fresh]
  seed NUMBER                     for chance and random flips

WHICH      any, to-server, to-client, request, response, empty
CONDITION  sealed, plain, code 2.05, type CON, option Observe, token HEX,
           kid HEX, piv N; and of those that fit: nth N, every N, first N,
           chance PERCENT
ACTION     drop                      delay TIME            duplicate [N]
           reorder N (in reverse)    again TIME [fresh]    hold NAME
           flip BYTE.BIT             flip any              flip sealed
           set OPTION VALUE          add OPTION VALUE      remove OPTION
           code 2.05   type NON   token HEX   id N         payload VALUE
           swap (two answers change places, each under the other's token)
           splice (the content of the one before, under this one's token)
VALUE      hex, "text", uint:5, or empty

  oscore mallory --to 127.0.0.1:5683 --listen 127.0.0.1:5700 --write seen.pcap \
      --rule 'on request sealed nth 3 do again 2s fresh' \
      --rule 'on response every 4 do flip sealed'
  oscore decode seen.pcap

With --control it takes commands on standard input and answers each:

  {"id":1,"do":"rules","rules":["on request do hold later"]}
  {"id":2,"do":"release","name":"later"}
  {"id":3,"do":"again","n":5,"fresh":true}
  {"id":4,"do":"send","to":"client","hex":"60450001"}
  {"id":5,"do":"retarget","to":"127.0.0.1:5684"}

`)
	f.PrintDefaults()
}
