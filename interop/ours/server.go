package ours

import (
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/tcp"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// Server is this library as a server.
type Server struct {
	events
	t     testing.TB
	cfg   Config
	addr  netip.AddrPort
	entry keys.Entry
	store *keys.Memory
	ring  *keys.Keyring
	stop  func()

	mu      sync.Mutex
	handled map[string]int
	large   []byte
}

// StartServer starts the server on a port of loopback.
func StartServer(t testing.TB, port uint16, c peer.Context, cfg Config) *Server {
	t.Helper()
	s := &Server{
		t: t, cfg: cfg, addr: peer.Loopback(port), entry: cfg.entry(t, c, false),
		store: keys.NewMemory(), handled: map[string]int{}, large: peer.Large(),
	}
	if !cfg.Tainted {
		if err := keys.DeclareNew(t.Context(), s.store, &s.entry.Params); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	t.Cleanup(func() {
		s.stop()
		s.log(t, "our server")
	})
	return s
}

func (s *Server) start() {
	s.t.Helper()
	s.ring = keys.New(s.store)
	if _, err := s.ring.Add(s.t.Context(), s.entry.Clone()); err != nil {
		s.t.Fatal(err)
	}
	gc := s.cfg.Gocoap
	gc.Keyring = s.ring
	gc.Event = s.add
	gc.AllowPlain = func(_ codes.Code, path string) bool { return path == "/oscore/hello/coap" }
	ep := gocoap.New(gc)
	done := make(chan error, 1)
	if s.cfg.TCP {
		l := bind(s.t, func() (*coapnet.TCPListener, error) { return coapnet.NewTCPListener("tcp4", s.addr.String()) })
		server := tcp.NewServer(ep.TCPServer(s.router())...)
		go func() { done <- server.Serve(l) }()
		s.stop = func() {
			server.Stop()
			<-done
			l.Close()
		}
		return
	}
	l := bind(s.t, func() (*coapnet.UDPConn, error) { return coapnet.NewListenUDP("udp4", s.addr.String()) })
	server := udp.NewServer(ep.UDPServer(s.router())...)
	go func() { done <- server.Serve(l) }()
	s.stop = func() {
		server.Stop()
		<-done
		l.Close()
	}
}

// bind opens the listener. After a crash the port may look taken for a moment:
// a process that is being started holds copies of all sockets until its exec.
func bind[L any](t testing.TB, listen func() (L, error)) L {
	t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		l, err := listen()
		if err == nil {
			return l
		}
		if !errors.Is(err, syscall.EADDRINUSE) || time.Since(start) > 5*time.Second {
			t.Fatal(err)
		}
	}
}

// Crash ends the server as kill -9 does and starts it again: what was in
// memory is gone, the numbers in the store are not.
func (s *Server) Crash() {
	s.t.Helper()
	s.stop()
	s.store.Restart()
	s.start()
}

// Addr is the server's own address.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Peer is the client as the server's keyring has it.
func (s *Server) Peer() *keys.Peer {
	p, _ := s.ring.Get(other)
	return p
}

// Handled counts the requests that reached a resource.
func (s *Server) Handled(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handled[path]
}
