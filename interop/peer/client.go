package peer

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// exchangePatience bounds one command; the peers give up earlier by themselves.
const exchangePatience = 60 * time.Second

// Request is one command for a peer's client.
type Request struct {
	Method      string // GET, POST, PUT, DELETE
	Path        string
	Query       string
	Accept      *int
	Format      *int
	IfMatch     []byte
	IfNoneMatch bool
	Payload     []byte
	Observe     int  // > 0: register and wait for so many notifications, then cancel
	Plain       bool // without OSCORE
	Replay      bool // libOSCORE alone: once more under another message ID
	NON         bool // our client alone: not confirmable
}

// Large is what every server has under /oscore/large at first: 20 KB.
func Large() []byte {
	b := make([]byte, 20480)
	for i := range b {
		b[i] = byte(i * 7 % 256)
	}
	return b
}

// Int is for the fields that may be absent.
func Int(n int) *int { return &n }

func (r Request) String() string {
	w := []string{r.Method, "path=" + r.Path}
	add := func(ok bool, key, value string) {
		if ok {
			w = append(w, key+"="+value)
		}
	}
	add(r.Query != "", "query", r.Query)
	if r.Accept != nil {
		add(true, "accept", strconv.Itoa(*r.Accept))
	}
	if r.Format != nil {
		add(true, "format", strconv.Itoa(*r.Format))
	}
	add(r.IfMatch != nil, "if-match", hex.EncodeToString(r.IfMatch))
	add(r.IfNoneMatch, "if-none-match", "")
	add(r.Payload != nil, "payload", hex.EncodeToString(r.Payload))
	add(r.Observe > 0, "observe", strconv.Itoa(r.Observe))
	add(r.Plain, "plain", "1")
	add(r.Replay, "replay", "1")
	return strings.Join(w, " ")
}

// Answer is what a peer's client says of one response.
type Answer struct {
	Kind    string // ANSWER, NOTE, REPLAY, CANCELLED
	Code    string // 2.05
	Sealed  bool
	Format  *int
	ETag    []byte
	MaxAge  *int
	Observe *int
	Payload []byte
}

// Result is everything that came of a command.
type Result struct {
	Answer  Answer
	More    []Answer // notifications and the like, in order
	Error   string   // what the client said in place of an answer
	Context string   // Californium alone: where its context stands
}

// Client drives a peer's client.
type Client struct {
	*Process
	next int // line of output not yet read
}

// Do sends one command and waits for its end.
func (c *Client) Do(t testing.TB, r Request) Result {
	t.Helper()
	if _, err := fmt.Fprintln(c.in, r); err != nil {
		t.Fatalf("%s takes no command: %v", c.name, err)
	}
	end, err := c.line(c.next, exchangePatience, func(l string) bool { return l == "END" })
	if err != nil {
		t.Fatalf("%s: %s: %v", c.name, r, err)
	}
	c.mu.Lock()
	lines := c.lines[c.next:end]
	c.mu.Unlock()
	c.next = end
	var res Result
	for _, l := range lines {
		kind, rest, _ := strings.Cut(l, " ")
		switch kind {
		case "ERROR":
			res.Error = rest
		case "CONTEXT":
			res.Context = rest
		case "ANSWER":
			res.Answer = parseAnswer(t, l)
		case "NOTE", "REPLAY", "CANCELLED":
			res.More = append(res.More, parseAnswer(t, l))
		}
	}
	return res
}

func parseAnswer(t testing.TB, line string) Answer {
	t.Helper()
	words := strings.Fields(line)
	a := Answer{Kind: words[0]}
	number := func(s string) *int {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return &n
	}
	octets := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return b
	}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "code":
			a.Code = value
		case "sealed":
			a.Sealed = value == "true"
		case "format":
			a.Format = number(value)
		case "etag":
			a.ETag = octets(value)
		case "max-age":
			a.MaxAge = number(value)
		case "observe":
			a.Observe = number(value)
		case "payload":
			a.Payload = octets(value)
		default:
			t.Fatalf("%q: unknown word %q", line, key)
		}
	}
	return a
}

// ready waits for the client's first word.
func (c *Client) ready() *Client {
	c.t.Helper()
	next, err := c.line(0, startPatience, func(l string) bool { return l == "READY" })
	if err != nil {
		c.t.Fatalf("%s: not ready: %v", c.name, err)
	}
	c.next = next
	return c
}
