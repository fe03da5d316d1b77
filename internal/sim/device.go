package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// DeviceConfig is what a device is made of. Zero values are the defaults.
type DeviceConfig struct {
	Endpoint string        // its name, ep=
	Server   string        // HOST:PORT of the server, or of a proxy before it
	Listen   string        // default 127.0.0.1:0
	Lifetime time.Duration // default 300 s
	Version  string        // lwm2m=, default 1.1
	Queue    bool          // Queue Mode: b=UQ in 1.0, Q from 1.1 on
	Awake    time.Duration // Queue Mode: how long after its last request it still listens; 0 is 93 s, negative until Sleep
	Confirm  bool          // notifications are confirmable where no attribute says otherwise
	// OSCORE seals everything; nil is plain. Peer is the server's name in its
	// keyring. Event is called too.
	OSCORE *gocoap.Config
	Peer   string
	// Objects is the tree; nil is lwm2m.Standard with Sensors sensors (0: 2).
	Objects *lwm2m.Objects
	Sensors int
	Clock   Clock
	Timeout time.Duration // of a request whose context has no deadline, and of the device's own; default 10 s
	Retry   time.Duration // Run: between attempts to register; default 1 s
	// AckTimeout is CoAP's ACK_TIMEOUT; default 2 s.
	AckTimeout time.Duration
	BlockSize  int         // default 1024
	Event      func(Event) // is called with each event; must not block
}

// Device is an LwM2M client. It is safe for concurrent use.
type Device struct {
	cfg     DeviceConfig
	node    *node
	objects *lwm2m.Objects
	log     *Log
	trigger chan struct{} // Run: update now

	mu        sync.Mutex
	server    *net.UDPAddr
	location  string // of the registration; "" is none
	links     string // as last registered
	renew     bool   // the security context changed: register, do not update
	asleep    bool
	nap       func() bool // stops the timer that puts it to sleep
	observers map[observerKey]*observer
	closed    bool
}

// NewDevice starts a device: it listens, and is not registered.
func NewDevice(cfg DeviceConfig) (*Device, error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = 300 * time.Second
	}
	if cfg.Version == "" {
		cfg.Version = "1.1"
	}
	if cfg.Awake == 0 {
		cfg.Awake = transmitWait
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
	if cfg.Sensors == 0 {
		cfg.Sensors = 2
	}
	d := &Device{cfg: cfg, log: newLog(cfg.Event), trigger: make(chan struct{}, 1), observers: map[observerKey]*observer{}}
	if err := d.SetServer(cfg.Server); err != nil {
		return nil, err
	}
	if d.objects = cfg.Objects; d.objects == nil {
		d.objects = lwm2m.Standard(int64(cfg.Lifetime/time.Second), d.binding(), cfg.Sensors, d.security())
	}
	d.objects.OnChange(d.changed)
	d.objects.OnExecute(d.execute)
	var sealed *gocoap.Endpoint
	if cfg.OSCORE != nil {
		c := *cfg.OSCORE
		c.Event = func(e gocoap.Event) { d.oscoreEvent(e, cfg.OSCORE.Event) }
		if c.BlockSize == 0 {
			c.BlockSize = cfg.BlockSize
		}
		sealed = gocoap.New(c)
	}
	var err error
	d.node, err = newNode(nodeConfig{
		listen: cfg.Listen, sealed: sealed, handle: d.handle, awake: d.awake, ackTimeout: cfg.AckTimeout, blockSize: cfg.BlockSize,
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Device) security() lwm2m.Security {
	return lwm2m.Security{URI: "coap://" + d.cfg.Server, OSCORE: d.cfg.OSCORE != nil}
}

func (d *Device) binding() string {
	switch {
	case !d.cfg.Queue:
		return "U"
	case d.cfg.Version == "1.0":
		return "UQ"
	}
	return "U"
}

// Addr returns the address that it serves at and sends from.
func (d *Device) Addr() *net.UDPAddr { return d.node.addr() }

// Objects returns its tree: Set changes a value, and notifies.
func (d *Device) Objects() *lwm2m.Objects { return d.objects }

// Log returns what happened.
func (d *Device) Log() *Log { return d.log }

// Location returns the path of its registration, "" if it has none.
func (d *Device) Location() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.location
}

// SetServer makes it talk to another address from now on: of a proxy, of a
// server that moved.
func (d *Device) SetServer(address string) error {
	to, err := net.ResolveUDPAddr("udp4", address)
	if err != nil {
		return fmt.Errorf("sim: server address %q: %w", address, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.server = to
	return nil
}

// Close ends it without a word to the server.
func (d *Device) Close() {
	d.mu.Lock()
	d.closed = true
	for _, o := range d.observers {
		o.stopTimers()
	}
	if d.nap != nil {
		d.nap()
	}
	d.mu.Unlock()
	d.node.close()
}

// Do sends any request to the server.
func (d *Device) Do(ctx context.Context, r Request) (Response, error) { return d.do(ctx, r) }

func (d *Device) do(ctx context.Context, r Request, opts ...gocoap.RequestOption) (Response, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.cfg.Timeout)
		defer cancel()
	}
	d.wake()
	d.mu.Lock()
	to := d.server
	d.mu.Unlock()
	resp, err := d.node.do(ctx, to, d.cfg.Peer, r, opts...)
	d.wake() // it listens for a while after the last answer, too
	return resp, err
}

// Register registers anew (LwM2M Core §6.2.1).
func (d *Device) Register(ctx context.Context) error { return d.register(ctx) }

func (d *Device) register(ctx context.Context, opts ...gocoap.RequestOption) error {
	links := d.objects.Links()
	query := []string{"ep=" + d.cfg.Endpoint, fmt.Sprintf("lt=%d", int(d.cfg.Lifetime/time.Second)), "lwm2m=" + d.cfg.Version, "b=" + d.binding()}
	if d.cfg.Queue && d.cfg.Version != "1.0" {
		query = append(query, "Q")
	}
	resp, err := d.do(ctx, Request{Method: codes.POST, Path: "/rd", Query: query, Accept: NoFormat, Format: lwm2m.LinkFormat, Payload: []byte(links)}, opts...)
	if err == nil {
		err = resp.Err()
	}
	if err == nil && resp.Location == "" {
		err = errors.New("sim: the server gives the registration no Location-Path")
	}
	if err != nil {
		d.log.add(Event{Event: "register-failed", Error: err.Error()})
		return fmt.Errorf("register: %w", err)
	}
	d.mu.Lock()
	// Whatever changed before the answer came, the registration has it.
	d.location, d.links, d.renew = resp.Location, links, false
	d.mu.Unlock()
	d.log.add(Event{Event: "registered", Code: CodeText(resp.Code), Location: resp.Location})
	return nil
}

// Update updates the registration (LwM2M Core §6.2.2). Where the server does
// not know it any more (4.04), or the security context changed meanwhile, it
// registers anew.
func (d *Device) Update(ctx context.Context) error {
	d.mu.Lock()
	location, renew, last := d.location, d.renew, d.links
	d.mu.Unlock()
	if location == "" || renew {
		return d.register(ctx)
	}
	r := Request{Method: codes.POST, Path: location, Accept: NoFormat, Format: NoFormat}
	links := d.objects.Links()
	if links != last {
		r.Format, r.Payload = lwm2m.LinkFormat, []byte(links)
	}
	resp, err := d.do(ctx, r)
	if err == nil {
		err = resp.Err()
	}
	var code *CodeError
	if errors.As(err, &code) && code.Code == codes.NotFound {
		d.log.add(Event{Event: "unknown", Location: location})
		return d.register(ctx)
	}
	if err != nil {
		d.log.add(Event{Event: "update-failed", Error: err.Error()})
		return fmt.Errorf("update: %w", err)
	}
	d.mu.Lock()
	d.links = links
	renew = d.renew
	d.mu.Unlock()
	d.log.add(Event{Event: "updated", Code: CodeText(resp.Code), Location: location})
	if renew { // the update itself was what derived a new context
		return d.register(ctx)
	}
	return nil
}

// Deregister ends the registration (LwM2M Core §6.2.3).
func (d *Device) Deregister(ctx context.Context) error {
	location := d.Location()
	if location == "" {
		return errors.New("sim: the device is not registered")
	}
	resp, err := d.do(ctx, Request{Method: codes.DELETE, Path: location, Accept: NoFormat, Format: NoFormat})
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return fmt.Errorf("deregister: %w", err)
	}
	d.mu.Lock()
	d.location = ""
	d.mu.Unlock()
	d.log.add(Event{Event: "deregistered", Code: CodeText(resp.Code)})
	return nil
}

// ErrMuted means that the server muted Send (/1/x/23).
var ErrMuted = errors.New("sim: the server muted Send")

// Send sends what a server may read at the paths by itself (LwM2M Core §6.4.4),
// in SenML CBOR or JSON.
func (d *Device) Send(ctx context.Context, format int, paths ...lwm2m.Path) error {
	if v, ok := d.objects.Get(lwm2m.MustPath("/1/0/23")); ok && v.Int == 1 {
		return ErrMuted
	}
	records, err := d.objects.ReadPaths(paths)
	if err != nil {
		return err
	}
	payload, err := lwm2m.Encode(format, lwm2m.Path{}, records)
	if err != nil {
		return err
	}
	resp, err := d.do(ctx, Request{Method: codes.POST, Path: "/dp", Accept: NoFormat, Format: format, Payload: payload})
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	d.log.add(Event{Event: "sent", Code: CodeText(resp.Code), Bytes: len(payload)})
	return nil
}

// Run keeps the device registered until the context ends: it registers,
// updates before the lifetime ends and when something asks for it, and starts
// anew after failures.
func (d *Device) Run(ctx context.Context) {
	for ctx.Err() == nil {
		var err error
		if d.Location() == "" {
			err = d.Register(ctx)
		} else {
			err = d.Update(ctx)
		}
		pause := d.cfg.Lifetime / 2
		if err != nil {
			pause = d.cfg.Retry
			d.mu.Lock()
			d.location = "" // RFC 9176 and LwM2M alike: when an update fails, register
			d.mu.Unlock()
		}
		due := make(chan struct{})
		stop := d.cfg.Clock.AfterFunc(pause, func() { close(due) })
		select {
		case <-due:
		case <-d.trigger:
		case <-ctx.Done():
		}
		stop()
	}
}

// TriggerUpdate has Run update now.
func (d *Device) TriggerUpdate() {
	select {
	case d.trigger <- struct{}{}:
	default: // it will
	}
}

// oscoreEvent notes changes of the security context: the server's view of the
// device is tied to it (LwM2M Core §6.2.1: register anew).
func (d *Device) oscoreEvent(e gocoap.Event, next func(gocoap.Event)) {
	if (e.Reason == "rederived" || e.Reason == "established") && (e.Peer == d.cfg.Peer || e.Peer == "") {
		d.mu.Lock()
		d.renew = d.location != ""
		d.mu.Unlock()
		d.TriggerUpdate()
	}
	line := Event{Event: "oscore", Method: e.Reason, Peer: e.Peer, Addr: e.Source}
	if e.Err != nil {
		line.Error = e.Err.Error()
	}
	d.log.add(line)
	if next != nil {
		next(e)
	}
}

// ContextChanged tells that the security context was replaced from outside, by
// a handshake for instance: the next update registers anew.
func (d *Device) ContextChanged() {
	d.mu.Lock()
	d.renew = true
	d.mu.Unlock()
	d.TriggerUpdate()
}

// Sleep switches the radio off: what comes in is lost. Queue Mode alone makes
// it sleep by itself. The device's next request wakes it.
func (d *Device) Sleep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sleepLocked()
}

func (d *Device) sleepLocked() {
	if !d.asleep && !d.closed {
		d.asleep = true
		d.log.add(Event{Event: "asleep"})
	}
}

func (d *Device) awake() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.asleep
}

// wake switches the radio on, and in Queue Mode sets the time to sleep again.
func (d *Device) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asleep {
		d.asleep = false
		d.log.add(Event{Event: "awake"})
	}
	if d.nap != nil {
		d.nap()
		d.nap = nil
	}
	if d.cfg.Queue && d.cfg.Awake > 0 && !d.closed {
		d.nap = d.cfg.Clock.AfterFunc(d.cfg.Awake, d.Sleep)
	}
}

// execute does what executable resources of the standard objects do.
func (d *Device) execute(path lwm2m.Path, arguments string) error {
	count := d.objects.Executed(path)
	d.log.add(Event{Event: "executed", Path: path.String(), Query: arguments, Count: count})
	switch s := path.String(); {
	case strings.HasPrefix(s, "/1/") && path.ID(2) == 8:
		d.TriggerUpdate()
	case strings.HasPrefix(s, "/5/") && path.ID(2) == 2:
		return d.install(path)
	}
	return nil
}
