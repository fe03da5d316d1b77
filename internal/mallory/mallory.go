// Package mallory is a hostile intermediary: a UDP relay that sees every
// datagram and does with it what a script says. It holds no key.
//
//	client ⇄ mallory ⇄ server
//	            │ Script: Pass, drop, change, delay, add
//	            │ Inject: send anything either way at any time
//	            └ Capture: every datagram that came in and went out
//
// Each client address gets an upstream socket of its own, so that the server
// sees as many addresses as there are clients.
package mallory

import (
	"bytes"
	"errors"
	"net"
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
	capture  []Packet
	closed   bool
	wg       sync.WaitGroup
}

// leg is one client's path to the server.
type leg struct {
	client *net.UDPAddr
	back   *net.UDPConn
}

// New starts a relay on a free port of 127.0.0.1 toward the upstream address.
func New(upstream string) (*Relay, error) {
	addr, err := net.ResolveUDPAddr("udp4", upstream)
	if err != nil {
		return nil, err
	}
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	r := &Relay{front: front, upstream: addr, script: Pass, legs: map[string]*leg{}}
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

// Retarget sends what comes from now on to another server.
func (r *Relay) Retarget(upstream string) error {
	addr, err := net.ResolveUDPAddr("udp4", upstream)
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
	var last *leg
	for i := len(r.capture) - 1; i >= 0 && last == nil; i-- {
		last = r.legs[r.capture[i].Client]
	}
	r.capture = append(r.capture, Packet{Direction: d, Data: bytes.Clone(data), At: time.Now(), Forged: true})
	upstream := r.upstream
	r.mu.Unlock()
	if last == nil {
		return errors.New("mallory: no client has sent anything yet")
	}
	return r.send(last, d, data, upstream)
}

func (r *Relay) send(l *leg, d Direction, data []byte, upstream *net.UDPAddr) error {
	var err error
	if d == ToServer {
		_, err = l.back.WriteToUDP(data, upstream)
	} else {
		_, err = r.front.WriteToUDP(data, l.client)
	}
	return err
}

// Close ends the relay.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
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
			r.pass(l, ToServer, bytes.Clone(buf[:n]))
		}
	}
}

// leg returns the client's leg, making it on first use.
func (r *Relay) leg(client *net.UDPAddr) *leg {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := client.String()
	if l := r.legs[name]; l != nil || r.closed {
		return l
	}
	back, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil
	}
	l := &leg{client: client, back: back}
	r.legs[name] = l
	r.wg.Add(1)
	go r.readServer(l)
	return l
}

func (r *Relay) readServer(l *leg) {
	defer r.wg.Done()
	buf := make([]byte, 65536)
	for {
		n, _, err := l.back.ReadFromUDP(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the server is away: its port answers with an error
		}
		r.pass(l, ToClient, bytes.Clone(buf[:n]))
	}
}

// pass records a datagram and sends on what the script makes of it.
func (r *Relay) pass(l *leg, d Direction, data []byte) {
	p := Packet{Direction: d, Data: data, At: time.Now(), Client: l.client.String()}
	r.mu.Lock()
	r.capture = append(r.capture, p)
	script, upstream := r.script, r.upstream
	r.mu.Unlock()
	for _, out := range script(p) {
		if !bytes.Equal(out, data) {
			r.mu.Lock()
			r.capture = append(r.capture, Packet{Direction: d, Data: bytes.Clone(out), At: time.Now(), Client: p.Client, Forged: true})
			r.mu.Unlock()
		}
		_ = r.send(l, d, out, upstream) // an unreachable server is the script's business
	}
}
