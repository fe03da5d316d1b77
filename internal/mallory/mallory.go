package mallory

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Direction says which way a datagram goes.
type Direction int

// The two directions.
const (
	ToServer Direction = iota
	ToClient
)

// String returns an arrow.
func (d Direction) String() string {
	if d == ToServer {
		return "→"
	}
	return "←"
}

// Packet is a datagram that came in.
type Packet struct {
	Direction Direction
	Data      []byte
	At        time.Time
	Client    string // the client's address
	Forged    bool   // made by mallory, not received
}

// Script decides what is sent on for a datagram: the datagrams it returns, in
// their order. Returning nil drops it. It runs on the relay's reading goroutine
// of that direction and may block it.
type Script func(Packet) [][]byte

// Pass sends every datagram on as it is.
func Pass(p Packet) [][]byte { return [][]byte{p.Data} }

// Relay is a running intermediary. It is safe for concurrent use.
type Relay struct {
	front *net.UDPConn

	mu       sync.Mutex
	upstream *net.UDPAddr
	script   Script
	legs     map[string]*leg
	last     *leg // of the latest client
	capture  []Packet
	keep     int // of the capture; 0: all of it
	tap      func(Hop)
	timers   map[*time.Timer]struct{}
	closed   bool
	wg       sync.WaitGroup
}

// Hop is a datagram on one of the two sides, as a capture there would show it.
type Hop struct {
	At       time.Time
	From, To netip.AddrPort
	Data     []byte
}

// maxLegs bounds the clients, each of which takes a socket.
const maxLegs = 1024

// Self is the name of mallory as a client: what it sends to the server on its
// own account, and gets back for itself.
const Self = "mallory"

// leg is one client's path to the server.
type leg struct {
	name   string       // the client's address, or Self
	client *net.UDPAddr // nil for mallory's own
	back   *net.UDPConn
}

// New starts a relay on a free port of 127.0.0.1 toward the upstream address.
func New(upstream string) (*Relay, error) { return Listen("127.0.0.1:0", upstream) }

// Listen starts a relay on an address toward the upstream address.
func Listen(address, upstream string) (*Relay, error) {
	to, err := net.ResolveUDPAddr("udp", upstream)
	if err != nil {
		return nil, err
	}
	at, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	front, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, err
	}
	r := &Relay{front: front, upstream: to, script: Pass, legs: map[string]*leg{}, timers: map[*time.Timer]struct{}{}}
	r.wg.Add(1)
	go r.readClients()
	return r, nil
}

// Addr returns the address that clients send to.
func (r *Relay) Addr() string { return r.front.LocalAddr().String() }

// SetScript puts another script in place; nil means [Pass].
func (r *Relay) SetScript(s Script) {
	if s == nil {
		s = Pass
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.script = s
}

// SetRules puts a script that was read in the place of any other. seen, if not
// nil, is told what became of each datagram: the lines that acted, and what goes
// on. It must not block.
func (r *Relay) SetRules(rules *Rules, seen func(p Packet, lines []int, outs []Out)) {
	rules.mu.Lock()
	rules.late = func(o Out) { r.Send(o) }
	rules.mu.Unlock()
	r.SetScript(func(p Packet) [][]byte {
		outs, lines := rules.Apply(p)
		if seen != nil {
			seen(p, lines, outs)
		}
		for _, o := range outs {
			if o.After == 0 && bytes.Equal(o.Data, p.Data) && o.Client == p.Client && o.Direction == p.Direction {
				r.mu.Lock()
				l, upstream := r.legs[o.Client], r.upstream
				r.mu.Unlock()
				_ = r.send(l, o.Direction, o.Data, upstream) // an unreachable server is the script's business
				continue
			}
			r.Send(o)
		}
		return nil
	})
}

// Send sends a datagram of mallory's own, at once or later; one for a client
// that is not known is dropped. An empty client is the latest one, [Self] the
// relay.
func (r *Relay) Send(o Out) {
	if o.After <= 0 {
		r.sendNow(o)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(o.After, func() {
		r.mu.Lock()
		delete(r.timers, timer)
		r.mu.Unlock()
		r.sendNow(o)
	})
	r.timers[timer] = struct{}{}
}

func (r *Relay) sendNow(o Out) {
	if o.Client == Self {
		r.leg(nil)
	}
	r.mu.Lock()
	l := r.legs[o.Client]
	if o.Client == "" {
		l = r.last
	}
	upstream := r.upstream
	if l != nil {
		r.remember(Packet{Direction: o.Direction, Data: bytes.Clone(o.Data), At: time.Now(), Client: l.name, Forged: true})
	}
	r.mu.Unlock()
	if l != nil {
		_ = r.send(l, o.Direction, o.Data, upstream) // as above
	}
}

// SetTap has every datagram that comes in or goes out shown to f, which must
// not block.
func (r *Relay) SetTap(f func(Hop)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tap = f
}

// Keep bounds the capture to the latest packets.
func (r *Relay) Keep(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep = n
}

// remember adds to the capture. The lock is held.
func (r *Relay) remember(p Packet) {
	r.capture = append(r.capture, p)
	if r.keep > 0 && len(r.capture) > 2*r.keep {
		r.capture = append([]Packet(nil), r.capture[len(r.capture)-r.keep:]...)
	}
}

func (r *Relay) show(from, to net.Addr, data []byte) {
	r.mu.Lock()
	tap := r.tap
	r.mu.Unlock()
	if tap == nil {
		return
	}
	a, b := addrPort(from), addrPort(to)
	tap(Hop{time.Now(), alike(a, b), alike(b, a), data})
}

// alike writes the address of a socket that is bound to every address in the
// family of the other end.
func alike(a, other netip.AddrPort) netip.AddrPort {
	if !a.Addr().IsUnspecified() || a.Addr().Is4() == other.Addr().Is4() {
		return a
	}
	if other.Addr().Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port())
}

func addrPort(a net.Addr) netip.AddrPort {
	u := a.(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(u.Addr().Unmap().WithZone(""), u.Port())
}

// Retarget sends what comes from now on to another server.
func (r *Relay) Retarget(upstream string) error {
	addr, err := net.ResolveUDPAddr("udp", upstream)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.upstream = addr
	return nil
}

// Capture returns every datagram received and forged so far.
func (r *Relay) Capture() []Packet {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Packet(nil), r.capture...)
}

// Inject sends a datagram of mallory's own, as the latest client or the server.
func (r *Relay) Inject(d Direction, data []byte) error {
	r.mu.Lock()
	last, upstream := r.last, r.upstream
	r.remember(Packet{Direction: d, Data: bytes.Clone(data), At: time.Now(), Forged: true})
	r.mu.Unlock()
	if last == nil {
		return errors.New("mallory: no client has sent anything yet")
	}
	return r.send(last, d, data, upstream)
}

func (r *Relay) send(l *leg, d Direction, data []byte, upstream *net.UDPAddr) error {
	if l == nil || d == ToClient && l.client == nil {
		return nil
	}
	var err error
	if d == ToServer {
		r.show(l.back.LocalAddr(), upstream, data)
		_, err = l.back.WriteToUDP(data, upstream)
	} else {
		r.show(r.front.LocalAddr(), l.client, data)
		_, err = r.front.WriteToUDP(data, l.client)
	}
	return err
}

// Close ends the relay.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	for t := range r.timers {
		t.Stop()
	}
	err := r.front.Close()
	for _, l := range r.legs {
		err = errors.Join(err, l.back.Close())
	}
	r.mu.Unlock()
	r.wg.Wait()
	return err
}

func (r *Relay) readClients() {
	defer r.wg.Done()
	buf := make([]byte, 65536)
	for {
		n, from, err := r.front.ReadFromUDP(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if l := r.leg(from); l != nil {
			r.show(l.client, r.front.LocalAddr(), buf[:n])
			r.pass(l, ToServer, bytes.Clone(buf[:n]))
		}
	}
}

// leg returns the client's leg, making it on first use.
func (r *Relay) leg(client *net.UDPAddr) *leg {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := Self
	if client != nil {
		name = client.String()
	}
	if l := r.legs[name]; l != nil || r.closed {
		if l != nil && client != nil {
			r.last = l
		}
		return l
	}
	if len(r.legs) >= maxLegs {
		return nil
	}
	local := &net.UDPAddr{} // any address that leads there
	if r.upstream.IP.IsLoopback() {
		local.IP = r.upstream.IP
	}
	back, err := net.ListenUDP("udp", local)
	if err != nil {
		return nil
	}
	l := &leg{name: name, client: client, back: back}
	r.legs[name] = l
	if client != nil {
		r.last = l
	}
	r.wg.Add(1)
	go r.readServer(l)
	return l
}

func (r *Relay) readServer(l *leg) {
	defer r.wg.Done()
	buf := make([]byte, 65536)
	for {
		n, from, err := l.back.ReadFromUDP(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the server is away: its port answers with an error
		}
		r.show(from, l.back.LocalAddr(), buf[:n])
		r.pass(l, ToClient, bytes.Clone(buf[:n]))
	}
}

// pass records a datagram and sends on what the script makes of it.
func (r *Relay) pass(l *leg, d Direction, data []byte) {
	p := Packet{Direction: d, Data: data, At: time.Now(), Client: l.name}
	r.mu.Lock()
	r.remember(p)
	script, upstream := r.script, r.upstream
	r.mu.Unlock()
	for _, out := range script(p) {
		if !bytes.Equal(out, data) {
			r.mu.Lock()
			r.remember(Packet{Direction: d, Data: bytes.Clone(out), At: time.Now(), Client: p.Client, Forged: true})
			r.mu.Unlock()
		}
		_ = r.send(l, d, out, upstream) // an unreachable server is the script's business
	}
}
