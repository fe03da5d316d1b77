package peer

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TCPRelay forwards TCP connections to one server and keeps every message.
type TCPRelay struct {
	t      testing.TB
	front  net.Listener
	server netip.AddrPort

	mu      sync.Mutex
	seen    Capture
	conns   []net.Conn
	closed  bool
	running sync.WaitGroup
}

// NewTCPRelay opens a relay in front of the server. At the end of a failed
// test its capture goes to the log.
func NewTCPRelay(t testing.TB, server netip.AddrPort) *TCPRelay {
	t.Helper()
	front, err := net.Listen("tcp4", Loopback(0).String())
	if err != nil {
		t.Fatal(err)
	}
	r := &TCPRelay{t: t, front: front, server: server}
	r.running.Go(r.accept)
	t.Cleanup(func() {
		r.close()
		if t.Failed() {
			t.Logf("the relay saw:\n%s", r.Capture())
		}
	})
	return r
}

// Addr is where clients connect to.
func (r *TCPRelay) Addr() netip.AddrPort { return r.front.Addr().(*net.TCPAddr).AddrPort() }

// URI is coap+tcp://127.0.0.1:PORT.
func (r *TCPRelay) URI() string { return "coap+tcp://" + r.Addr().String() }

// Capture gives what was seen so far, each message in the form of a datagram
// (type CON, message ID 0).
func (r *TCPRelay) Capture() Capture {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(Capture(nil), r.seen...)
}

func (r *TCPRelay) accept() {
	for {
		client, err := r.front.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp4", r.server.String())
		if err != nil {
			client.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, client, server)
		if r.closed {
			client.Close()
			server.Close()
		}
		r.mu.Unlock()
		from := client.RemoteAddr().(*net.TCPAddr).AddrPort()
		r.running.Go(func() { r.pass(server, client, from, true) })
		r.running.Go(func() { r.pass(client, server, from, false) })
	}
}

// pass copies one direction and keeps its messages as they become whole.
func (r *TCPRelay) pass(to io.WriteCloser, from io.Reader, client netip.AddrPort, toServer bool) {
	defer to.Close()
	var stream []byte
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		stream = append(stream, buf[:n]...)
		for {
			b, size := cutFrame(stream)
			if size == 0 {
				break
			}
			stream = stream[size:]
			r.mu.Lock()
			r.seen = append(r.seen, Datagram{At: time.Now(), ToServer: toServer, Client: client, Bytes: b})
			r.mu.Unlock()
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cutFrame gives the first message of a stream as a datagram, and its size in
// the stream (RFC 8323 section 3.2); 0 if it is not whole.
func cutFrame(b []byte) (datagram []byte, size int) {
	if len(b) < 2 {
		return nil, 0
	}
	length, extra := int(b[0]>>4), 0
	tkl := int(b[0] & 15)
	if length >= 13 {
		extra = 1 << (length - 13) // 1, 2 or 4 bytes
		if len(b) < 1+extra {
			return nil, 0
		}
		length = [...]int{13, 269, 65805}[length-13]
		n := 0
		for _, x := range b[1 : 1+extra] {
			n = n<<8 | int(x)
		}
		length += n
	}
	size = 1 + extra + 1 + tkl + length
	if len(b) < size {
		return nil, 0
	}
	code := b[1+extra]
	return append([]byte{0x40 | byte(tkl), code, 0, 0}, b[2+extra:size]...), size
}

func (r *TCPRelay) close() {
	r.front.Close()
	r.mu.Lock()
	r.closed = true
	for _, c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.running.Wait()
}
