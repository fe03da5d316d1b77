package peer

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// Datagram is one datagram that the relay saw.
type Datagram struct {
	At       time.Time
	ToServer bool
	Client   netip.AddrPort // the client's side of the exchange
	Bytes    []byte
}

// Relay forwards UDP between clients and one server and keeps every datagram.
type Relay struct {
	t      testing.TB
	front  *net.UDPConn
	closed chan struct{}

	mu      sync.Mutex
	server  netip.AddrPort
	backs   map[netip.AddrPort]*net.UDPConn // by client
	seen    Capture
	forward func(Datagram) [][]byte
	running sync.WaitGroup
}

// NewRelay opens a relay in front of the server. At the end of a failed test
// its capture goes to the log.
func NewRelay(t testing.TB, server netip.AddrPort) *Relay {
	t.Helper()
	front, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(Loopback(0)))
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{
		t: t, front: front, server: server, closed: make(chan struct{}),
		backs: map[netip.AddrPort]*net.UDPConn{},
	}
	r.running.Add(1)
	go r.fromClients()
	t.Cleanup(func() {
		r.close()
		if t.Failed() {
			t.Logf("the relay saw:\n%s", r.Capture())
		}
	})
	return r
}

// Addr is where clients send to.
func (r *Relay) Addr() netip.AddrPort { return r.front.LocalAddr().(*net.UDPAddr).AddrPort() }

// URI is coap://127.0.0.1:PORT.
func (r *Relay) URI() string { return "coap://" + r.Addr().String() }

// Retarget sends what comes from now on to another server.
func (r *Relay) Retarget(server netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server = server
}

// Forward lets f decide what is forwarded in place of each datagram: nothing,
// the same, something else, several. Nil restores plain forwarding. The
// capture keeps what arrived at the relay.
func (r *Relay) Forward(f func(Datagram) [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forward = f
}

// Send injects a datagram to the server as if it came from the client.
func (r *Relay) Send(client netip.AddrPort, b []byte) {
	r.t.Helper()
	back, server := r.back(client)
	if back == nil {
		r.t.Fatal("the relay is closed")
	}
	if _, err := back.WriteToUDPAddrPort(b, server); err != nil {
		r.t.Fatal(err)
	}
}

// SendBack injects a datagram to the client as if it came from the server.
func (r *Relay) SendBack(client netip.AddrPort, b []byte) {
	r.t.Helper()
	if _, err := r.front.WriteToUDPAddrPort(b, client); err != nil {
		r.t.Errorf("relay: %v", err)
	}
}

// Capture gives what was seen so far.
func (r *Relay) Capture() Capture {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(Capture(nil), r.seen...)
}

// awaitPatience bounds Await.
const awaitPatience = 20 * time.Second

// Await waits until the capture satisfies the condition, and ends the test if
// it never does.
func (r *Relay) Await(t testing.TB, what string, ok func(Capture) bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	late := time.After(awaitPatience)
	for !ok(r.Capture()) {
		select {
		case <-poll.C:
		case <-late:
			t.Fatalf("the relay saw no %s", what)
		}
	}
}

func (r *Relay) fromClients() {
	defer r.running.Done()
	buf := make([]byte, 1<<16)
	for {
		n, client, err := r.front.ReadFromUDPAddrPort(buf)
		if err != nil {
			if r.isClosed() {
				return
			}
			continue // an ICMP error of an earlier datagram
		}
		for _, b := range r.record(true, client, buf[:n]) {
			if back, server := r.back(client); back != nil {
				_, _ = back.WriteToUDPAddrPort(b, server) // loss is UDP's right
			}
		}
	}
}

func (r *Relay) fromServer(client netip.AddrPort, back *net.UDPConn) {
	defer r.running.Done()
	buf := make([]byte, 1<<16)
	for {
		n, _, err := back.ReadFromUDPAddrPort(buf)
		if err != nil {
			if r.isClosed() {
				return
			}
			continue
		}
		for _, b := range r.record(false, client, buf[:n]) {
			_, _ = r.front.WriteToUDPAddrPort(b, client)
		}
	}
}

// record keeps the datagram and gives what is to be forwarded.
func (r *Relay) record(toServer bool, client netip.AddrPort, b []byte) [][]byte {
	d := Datagram{At: time.Now(), ToServer: toServer, Client: client, Bytes: append([]byte(nil), b...)}
	r.mu.Lock()
	r.seen = append(r.seen, d)
	forward := r.forward
	r.mu.Unlock()
	if forward != nil {
		return forward(d)
	}
	return [][]byte{d.Bytes}
}

// back gives the client's own socket towards the server: the server tells
// clients apart by it.
func (r *Relay) back(client netip.AddrPort) (*net.UDPConn, netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isClosed() {
		return nil, netip.AddrPort{}
	}
	c := r.backs[client]
	if c == nil {
		var err error
		if c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(Loopback(0))); err != nil {
			r.t.Errorf("relay: %v", err)
			return nil, netip.AddrPort{}
		}
		r.backs[client] = c
		r.running.Add(1)
		go r.fromServer(client, c)
	}
	return c, r.server
}

func (r *Relay) isClosed() bool {
	select {
	case <-r.closed:
		return true
	default:
		return false
	}
}

func (r *Relay) close() {
	r.mu.Lock()
	close(r.closed)
	r.front.Close()
	for _, c := range r.backs {
		c.Close()
	}
	r.mu.Unlock()
	r.running.Wait()
}
