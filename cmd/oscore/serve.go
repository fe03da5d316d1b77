package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/oscorelay/oscorelay/internal/demo"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/tcp"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// serveLine is one line of serve --json.
type serveLine struct {
	Event string `json:"event"` // ready, handled, or a reason such as replay
	Addr  string `json:"addr,omitempty"`
	Peer  string `json:"peer,omitempty"`
	// PartialIV is the request's, of one in blocks the last one's.
	PartialIV uint64 `json:"piv"`
	Method    string `json:"method,omitempty"`
	Path      string `json:"path,omitempty"`
	Bytes     int    `json:"bytes,omitempty"`
	Sum       string `json:"sum,omitempty"` // first bytes of the payload's SHA-256, in hex
	Source    string `json:"source,omitempty"`
	Error     string `json:"error,omitempty"`
	Peers     int    `json:"peers,omitempty"`
}

// serve is the command that runs a sealed demonstration server.
func serve(ctx context.Context, io stdio, args []string) (err error) {
	f := flag.NewFlagSet("serve", flag.ContinueOnError)
	f.SetOutput(io.err)
	var store storeFlags
	store.register(f)
	listen := f.String("listen", "127.0.0.1:5683", "`ADDRESS:PORT` of the UDP and TCP sockets; port 0 takes a free one")
	asJSON := f.Bool("json", false, "print one JSON line for each request and refusal")
	fresh := f.String("freshness", "window", "`POLICY` of Echo challenges: window, first, unsafe, always")
	lifetime := f.Duration("echo-lifetime", 30*time.Second, "how long an Echo value proves freshness")
	silent := f.Bool("silent", false, "answer messages that do not verify with nothing")
	interval := f.Duration("interval", time.Second, "time between notifications")
	f.Usage = func() {
		fmt.Fprint(io.err, "Usage: oscore serve [flags]\n\nServes the resources of the OSCORE interoperability specification, sealed:\n"+
			"/oscore/hello/1, /oscore/observe1, /large, /value and others; see /.well-known/core.\n\n")
		f.PrintDefaults()
	}
	if err := parseFlags(f, args); err != nil {
		return err
	}
	policies := map[string]gocoap.Freshness{"window": gocoap.FreshWindow, "first": gocoap.FreshFirst, "unsafe": gocoap.FreshUnsafe, "always": gocoap.FreshAlways}
	policy, ok := policies[*fresh]
	if !ok || f.NArg() != 0 {
		return usagef("--freshness is one of window, first, unsafe, always; no further arguments")
	}
	ks, err := store.open(ctx, io)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ks.Close()) }()
	if ks.ring.Len() == 0 {
		return fmt.Errorf("%s has no keys: make some with 'oscore keys new', or bring them with 'oscore keys import'", ks.Dir())
	}
	return serveDemo(ctx, io, ks, demoOptions{
		listen: *listen, json: *asJSON, interval: *interval,
		config: gocoap.Config{
			Silent: *silent, EchoLifetime: *lifetime,
			Freshness: func(string, codes.Code, string) gocoap.Freshness { return policy },
		},
	})
}

// demoOptions vary the demonstration server.
type demoOptions struct {
	listen   string
	json     bool
	interval time.Duration
	config   gocoap.Config
	links    string // further links of /.well-known/core
}

// serveDemo serves the demonstration's resources to the peers of a key
// directory until the context ends.
func serveDemo(ctx context.Context, std stdio, ks *keyStore, o demoOptions) error {
	say := newSayer(std.out, o.json)
	router := demo.New(demo.Options{Interval: o.interval, Links: o.links, Handled: func(peer string, partialIV uint64, method codes.Code, path string, payload []byte) {
		say(serveLine{Event: "handled", Peer: peer, PartialIV: partialIV, Method: method.String(), Path: path, Bytes: len(payload), Sum: sum(payload)})
	}})
	cfg := o.config
	cfg.Keyring, cfg.AllowPlain, cfg.MaxBody = ks.ring, demo.PlainPath, 16<<20
	cfg.Event = func(e gocoap.Event) {
		l := serveLine{Event: e.Reason, Peer: e.Peer, Source: e.Source}
		if e.Err != nil {
			l.Error = e.Err.Error()
		}
		say(l)
	}
	return listenAndServe(ctx, gocoap.New(cfg), router, o.listen, func(addr string) {
		say(serveLine{Event: "ready", Addr: addr, Peers: ks.ring.Len()})
	})
}

// newSayer returns a function that prints lines, one at a time.
func newSayer(out io.Writer, asJSON bool) func(serveLine) {
	var mu sync.Mutex
	return func(l serveLine) {
		mu.Lock()
		defer mu.Unlock()
		if asJSON {
			_ = json.NewEncoder(out).Encode(l) // a closed pipe ends the server by its signal
			return
		}
		switch l.Event {
		case "ready":
			fmt.Fprintf(out, "serving %d peers on %s (UDP and TCP); stop with Ctrl-C\n", l.Peers, l.Addr)
		case "handled":
			fmt.Fprintf(out, "%s %s from %q, %d bytes\n", l.Method, l.Path, l.Peer, l.Bytes)
		case "established":
			fmt.Fprintf(out, "handshake with %q from %s\n", l.Peer, l.Source)
		default:
			fmt.Fprintf(out, "refused: %s from %s %s\n", l.Event, l.Source, l.Error)
		}
	}
}

// sum names a payload in a log.
func sum(payload []byte) string {
	h := sha256.Sum256(payload)
	return hex.EncodeToString(h[:6])
}

// listenAndServe serves on UDP and TCP until the context ends.
func listenAndServe(ctx context.Context, ep *gocoap.Endpoint, router *demo.Server, listen string, ready func(addr string)) error {
	packets, streams, err := listenBoth(listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", listen, err)
	}
	defer packets.Close()
	defer streams.Close()
	addr := packets.LocalAddr().String()
	quiet := options.WithErrors(func(error) {}) // peers that vanish; what matters comes as an event
	u := udp.NewServer(append(ep.UDPServer(router), quiet)...)
	s := tcp.NewServer(append(ep.TCPServer(router), quiet)...)
	done := make(chan error, 2)
	go func() { done <- u.Serve(packets) }()
	go func() { done <- s.Serve(streams) }()
	ready(addr)
	select {
	case <-ctx.Done():
	case err = <-done:
	}
	u.Stop()
	s.Stop()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// listenBoth listens on UDP and TCP with one port. One that the system is to
// choose may be taken for TCP: then it is to choose another.
func listenBoth(listen string) (packets *coapnet.UDPConn, streams *coapnet.TCPListener, err error) {
	_, port, _ := net.SplitHostPort(listen)
	for try := 0; ; try++ {
		if packets, err = coapnet.NewListenUDP("udp", listen); err != nil {
			return nil, nil, err
		}
		if streams, err = coapnet.NewTCPListener("tcp", packets.LocalAddr().String()); err == nil {
			return packets, streams, nil
		}
		_ = packets.Close()
		if port != "0" || try == 9 || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, nil, err
		}
	}
}
