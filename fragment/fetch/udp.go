package fetch

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/fragment"
	"github.com/oscorelay/oscorelay/internal/coap"
)

// UDP speaks to any number of mirrors over one socket, with RFC 7252's
// confirmable requests. One goroutine reads; it holds the one receive buffer.
type UDP struct {
	conn   *net.UDPConn
	timing Timing
	mu     sync.Mutex
	open   map[[tokenSize]byte]*exchange
	id     uint16
	closed bool
	done   chan struct{}
}

// tokenSize makes a token that nobody off the path guesses (RFC 7252 §5.3.1).
const tokenSize = 8

// receiveRoom is the datagram beside its block: header, token and options.
const receiveRoom = 512

// exchange is one request on its way.
type exchange struct {
	to     netip.AddrPort
	token  [tokenSize]byte
	bytes  []byte
	answer func(Answer, error) bool
	taken  bool // its bytes have been used: no more retransmissions
	sends  int
	wait   time.Duration
	timer  *time.Timer
}

// ListenUDP opens the socket. Close it when the download is over.
func ListenUDP(timing Timing) (*UDP, error) {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	var id [2]byte
	_, _ = crand.Read(id[:])
	u := &UDP{conn: conn, timing: timing.orDefault(), open: map[[tokenSize]byte]*exchange{}, id: binary.BigEndian.Uint16(id[:]), done: make(chan struct{})}
	go u.read()
	return u, nil
}

// Close ends every exchange without calling anyone.
func (u *UDP) Close() error {
	u.mu.Lock()
	u.closed = true
	for token, x := range u.open {
		x.timer.Stop()
		delete(u.open, token)
	}
	u.mu.Unlock()
	err := u.conn.Close()
	<-u.done
	return err
}

// Source returns the mirror that a coap URI names. The URI's last segment must
// pin the manifest.
func (u *UDP) Source(ctx context.Context, uri string) (Source, error) {
	t, hostport, err := parseURI(uri)
	if err != nil {
		return Source{}, err
	}
	name, err := fragment.ParseName(path.Base(t.file))
	if err != nil {
		return Source{}, err
	}
	t.image = name.Image()
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return Source{}, fmt.Errorf("%w: %w", ErrURI, err)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return Source{}, fmt.Errorf("%w: %w", ErrURI, err)
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return Source{}, fmt.Errorf("%w: %w", ErrURI, err)
	}
	to := netip.AddrPortFrom(addrs[0].Unmap(), uint16(number))
	return Source{
		Label: strings.TrimSuffix(strings.TrimPrefix(uri, "coap://"), "/"+t.file),
		Name:  name,
		Start: func(req Request, answer func(Answer, error) bool) func() { return u.start(to, t.body(req), answer) },
	}, nil
}

// start sends a confirmable GET and keeps its token open until stop.
func (u *UDP) start(to netip.AddrPort, body []byte, answer func(Answer, error) bool) (stop func()) {
	x := &exchange{to: to, answer: answer}
	_, _ = crand.Read(x.token[:])
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		go answer(Answer{}, net.ErrClosed)
		return func() {}
	}
	u.id++
	x.bytes = coap.Datagram{Type: coap.Confirmable, Code: coap.GET, MessageID: u.id, Token: x.token[:], Body: body}.Append(nil)
	// RFC 7252 §4.2: a random factor of 1 to 1.5, doubled with every send.
	x.wait = u.timing.AckTimeout + rand.N(u.timing.AckTimeout/2+1)
	u.open[x.token] = x
	x.timer = time.AfterFunc(x.wait, func() { u.again(x) })
	u.send(x)
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		x.timer.Stop()
		delete(u.open, x.token)
	}
}

// send writes the datagram; a socket's error is a lost packet.
func (u *UDP) send(x *exchange) {
	x.sends++
	_, _ = u.conn.WriteToUDPAddrPort(x.bytes, x.to)
}

// errNoAnswer ends an exchange whose transmissions are spent.
var errNoAnswer = errors.New("fetch: no answer")

// again retransmits. Neither an empty acknowledgement nor a Reset stops it:
// both can be forged, and a server answers a repeated request from memory.
func (u *UDP) again(x *exchange) {
	u.mu.Lock()
	if u.open[x.token] != x || x.taken {
		u.mu.Unlock()
		return
	}
	if x.sends > u.timing.MaxRetransmit {
		u.mu.Unlock()
		x.answer(Answer{}, errNoAnswer)
		return
	}
	u.send(x)
	x.wait *= 2
	x.timer.Reset(x.wait)
	u.mu.Unlock()
}

// read hands every datagram that bears an open token, from the address the
// request went to, to its exchange. The exchange stays open.
func (u *UDP) read() {
	defer close(u.done)
	buf := make([]byte, 1<<(maxSZX+4)+receiveRoom)
	for {
		n, from, err := u.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error, which can be forged too
		}
		d, err := coap.ParseDatagram(buf[:n])
		if err != nil || !d.Code.IsResponse() || len(d.Token) != tokenSize || d.Type == coap.Reset {
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		u.mu.Lock()
		x := u.open[[tokenSize]byte(d.Token)]
		if x == nil || x.to != from {
			u.mu.Unlock()
			continue
		}
		if d.Type == coap.Acknowledgement && d.MessageID != binary.BigEndian.Uint16(x.bytes[2:]) {
			u.mu.Unlock()
			continue // piggybacked on another request (§5.2.1)
		}
		u.mu.Unlock()
		a, ok := parseAnswer(d.Code, d.Body)
		if d.Type == coap.Confirmable {
			// A separate response (§5.2.2): acknowledged, or it comes again.
			ack := coap.Datagram{Type: coap.Acknowledgement, MessageID: d.MessageID}
			if !ok {
				ack.Type = coap.Reset
			}
			_, _ = u.conn.WriteToUDPAddrPort(ack.Append(nil), from)
		}
		if ok && x.answer(a, nil) {
			u.mu.Lock()
			x.taken = true
			u.mu.Unlock()
		}
	}
}
