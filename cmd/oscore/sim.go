package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/sim"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
)

const simHelp = `Usage: oscore sim device [flags]
       oscore sim server [flags]

A small LwM2M device or server, in plain or with OSCORE inside (--keys), which
prints what happens and reads commands as JSON lines. In two terminals:

  oscore sim server --listen 127.0.0.1:5683
  oscore sim device --server 127.0.0.1:5683 --ep dev1

then, in the first: {"id":1,"cmd":"read","ep":"dev1","path":"/3/0/0"}

'oscore sim device -h' and 'oscore sim server -h' list flags and commands.
`

// runSim is the command that runs a device or a server.
func runSim(ctx context.Context, io stdio, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "device":
			return simDevice(ctx, io, args[1:])
		case "server":
			return simServer(ctx, io, args[1:])
		case "-h", "--help", "help":
			fmt.Fprint(io.out, simHelp)
			return nil
		}
	}
	return usagef("device or server?\n%s", simHelp)
}

// simFlags are those that both have.
type simFlags struct {
	store    storeFlags
	listen   string
	timeout  time.Duration
	ack      time.Duration
	block    int
	detached bool
}

func (s *simFlags) register(f *flag.FlagSet, listen string) {
	s.store.register(f)
	f.Lookup("keys").Usage = "seal everything with the keys of this key `DIR`; without it all is plain"
	f.StringVar(&s.listen, "listen", listen, "`ADDRESS:PORT` to serve at and to send from; port 0 takes a free one")
	f.DurationVar(&s.timeout, "timeout", 10*time.Second, "how long a request waits for its answer")
	f.DurationVar(&s.ack, "ack-timeout", 2*time.Second, "CoAP's ACK_TIMEOUT, before the first retransmission")
	f.IntVar(&s.block, "block", 1024, "block size of large bodies, 16 to 1024 `BYTES`")
	f.BoolVar(&s.detached, "detached", false, "go on when standard input ends")
}

// open opens the key directory, if there is one.
func (s *simFlags) open(ctx context.Context, io stdio) (*keyStore, error) {
	switch {
	case s.block < 16 || s.block > 1024 || s.block&(s.block-1) != 0:
		return nil, usagef("--block %d: it is a power of two from 16 to 1024", s.block)
	case s.store.dir == "":
		return nil, nil
	}
	return s.store.open(ctx, io)
}

// simOut prints events, one at a time.
type simOut struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func newSimOut(io stdio) *simOut { return &simOut{enc: json.NewEncoder(io.out)} }

func (s *simOut) say(e sim.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.enc.Encode(e) // whoever reads is gone: the next signal, or the end of the input, ends the process
}

// run serves commands until the context ends.
func (s *simFlags) run(ctx context.Context, io stdio, out *simOut, run func(context.Context, sim.Command) (sim.Event, error)) error {
	err := sim.Serve(ctx, io.in, run, out.say)
	if s.detached && err == nil {
		<-ctx.Done()
	}
	return err
}

func simDevice(ctx context.Context, io stdio, args []string) (err error) {
	f := flag.NewFlagSet("sim device", flag.ContinueOnError)
	f.SetOutput(io.err)
	var s simFlags
	s.register(f, "127.0.0.1:0")
	var c sim.DeviceConfig
	f.StringVar(&c.Server, "server", "", "`HOST:PORT` of the server, or of a proxy before it")
	f.StringVar(&c.Endpoint, "ep", "dev1", "endpoint `NAME`")
	f.StringVar(&c.Peer, "peer", "", "`NAME` of the server in the key directory (default: the only one)")
	f.DurationVar(&c.Lifetime, "lifetime", 300*time.Second, "lifetime of the registration, updated at its half")
	f.StringVar(&c.Version, "lwm2m", "1.1", "`VERSION` of LwM2M to register with: 1.0, 1.1, 1.2")
	f.BoolVar(&c.Queue, "queue", false, "Queue Mode: sleep some time after the last message")
	f.DurationVar(&c.Awake, "awake", 93*time.Second, "how long it stays awake in Queue Mode")
	f.BoolVar(&c.Confirm, "confirm", false, "send notifications as confirmable messages")
	f.IntVar(&c.Sensors, "sensors", 2, "how many instances Object 3303 has")
	f.DurationVar(&c.Retry, "retry", time.Second, "time between attempts to register")
	manual := f.Bool("manual", false, "register and update only when a command says so")
	f.Usage = func() {
		fmt.Fprint(io.err, "Usage: oscore sim device --server HOST:PORT [flags]\n\nA small LwM2M device. It registers, and keeps registered, by itself.\n\n")
		f.PrintDefaults()
		fmt.Fprintf(io.err, "\n%s\n", sim.DeviceHelp)
	}
	if err := parseFlags(f, args); err != nil {
		return err
	}
	switch {
	case c.Server == "":
		return usagef("--server is missing: the HOST:PORT of the LwM2M server, or of a proxy before it")
	case f.NArg() != 0:
		return usagef("unexpected argument %q", f.Arg(0))
	case c.Version != "1.0" && c.Version != "1.1" && c.Version != "1.2":
		return usagef("--lwm2m %q: it is 1.0, 1.1 or 1.2", c.Version)
	case c.Lifetime < time.Second:
		return usagef("--lifetime %s: it is at least one second", c.Lifetime)
	}
	store, err := s.open(ctx, io)
	if err != nil {
		return err
	}
	if store != nil {
		defer func() { err = errors.Join(err, store.Close()) }()
		if c.Peer, err = store.choose(c.Peer); err != nil {
			return err
		}
		c.OSCORE = &gocoap.Config{Keyring: store.ring, MaxBody: 1 << 20}
	}
	out := newSimOut(io)
	c.Listen, c.Timeout, c.AckTimeout, c.BlockSize, c.Event = s.listen, s.timeout, s.ack, s.block, out.say
	d, err := sim.NewDevice(c)
	if err != nil {
		return err
	}
	defer d.Close()
	out.say(sim.Event{Event: "ready", Addr: d.Addr().String(), Endpoint: c.Endpoint, Peer: c.Peer})
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	if !*manual {
		running.Go(func() { d.Run(ctx) })
	}
	return s.run(ctx, io, out, d.Command)
}

func simServer(ctx context.Context, io stdio, args []string) (err error) {
	f := flag.NewFlagSet("sim server", flag.ContinueOnError)
	f.SetOutput(io.err)
	var s simFlags
	s.register(f, "127.0.0.1:5683")
	f.Usage = func() {
		fmt.Fprint(io.err, "Usage: oscore sim server [flags]\n\nA small LwM2M server.\n\n")
		f.PrintDefaults()
		fmt.Fprintf(io.err, "\n%s\n", sim.ServerHelp)
	}
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if f.NArg() != 0 {
		return usagef("unexpected argument %q", f.Arg(0))
	}
	store, err := s.open(ctx, io)
	if err != nil {
		return err
	}
	out := newSimOut(io)
	c := sim.ServerConfig{Listen: s.listen, Timeout: s.timeout, AckTimeout: s.ack, BlockSize: s.block, Event: out.say}
	if store != nil {
		defer func() { err = errors.Join(err, store.Close()) }()
		if store.ring.Len() == 0 {
			return fmt.Errorf("%s has no keys: make some with 'oscore keys new', or bring them with 'oscore keys import'", store.Dir())
		}
		c.OSCORE = &gocoap.Config{Keyring: store.ring, MaxBody: 1 << 20}
	}
	server, err := sim.NewServer(c)
	if err != nil {
		return err
	}
	defer server.Close()
	out.say(sim.Event{Event: "ready", Addr: server.Addr().String()})
	return s.run(ctx, io, out, server.Command)
}
