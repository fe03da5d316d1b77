package terminate

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/keys/bolt"
	"github.com/oscorelay/oscorelay/oscore"
)

// ErrConfig is wrapped by errors about a Config.
var ErrConfig = errors.New("terminate: configuration")

// Plain says what becomes of requests without OSCORE.
type Plain int

// The policies. Migration of a fleet goes from the last to the first.
const (
	// PlainRefuse answers them with a plain 4.01.
	PlainRefuse Plain = iota
	// PlainAccept passes those of devices that were never heard sealed: there
	// is no way back for a device.
	PlainAccept
	// PlainObserve passes all of them, and counts the devices.
	PlainObserve
)

// String returns the policy as it is configured.
func (p Plain) String() string { return [...]string{"refuse", "accept", "observe"}[p] }

// Config is what a gateway is made of. Listen, Backend, Store and Keyring must
// be given.
type Config struct {
	Name    string         // of the route, for logs
	Listen  netip.AddrPort // where devices send to
	Backend netip.AddrPort // the server that has no OSCORE

	// Upstream are the addresses that devices have toward the backend: the n-th
	// of the prefix for a context with index n, from the 256th on. The zero value
	// is 127.64.0.0/10, for a backend on this machine. For another machine it is
	// an IPv6 prefix that is routed to this one (ip -6 route add local PREFIX dev
	// lo). It must stay as it is as long as there are observations.
	Upstream netip.Prefix
	// UpstreamPort is the port of all of them. It must stay likewise.
	UpstreamPort uint16
	// UpstreamPorts, if it is not 0, gives each device a port instead, and a
	// socket: UpstreamPort for the one with index 0, and so on, so many at most.
	// It is for a backend on another machine that no prefix reaches, and costs a
	// file descriptor and some 20 KB a device.
	UpstreamPorts int

	Store   *bolt.Store
	Keyring oscore.Keyring
	// Accepts says whose contexts this route serves; nil means all. The context
	// of another account is refused with a protected 4.03.
	Accepts func(context string) bool
	// Endpoint returns the endpoint name that a context stands for (the ep of a
	// registration); nil means the context's own name.
	Endpoint func(context string) string
	// ContextOf is its inverse, for plain devices; nil means that they are one.
	ContextOf func(endpoint string) (context string)

	Plain     Plain
	Freshness endpoint.Freshness // what a device's requests must prove

	AckTimeout      time.Duration // ACK_TIMEOUT toward devices; 2 s
	Timeout         time.Duration // how long a request waits for its answer; 93 s, MAX_TRANSMIT_WAIT
	Drain           time.Duration // how long a gateway that ends waits for answers under way; AckTimeout
	DeviceNStart    int           // NSTART toward a device; 4
	MaxExchanges    int           // requests under way, both ways together, three quarters of them one way at most; 65536
	DeviceExchanges int           // and for one device, each way; 64
	MaxObservations int           // of one device; 256
	MaxDevices      int           // devices remembered in memory; 1000000
	MaxBytes        int           // kept for retransmission, each way; 256 MiB
	MaxDatagram     int           // bytes; 4096
	Revive          int           // observations taken up again after a start, a second; 500
	Workers         int           // datagrams opened at a time; 8
	Silent          bool          // no plain error answers (RFC 8613 §8.2)

	Logger *slog.Logger
}

func set[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (c Config) withDefaults() (Config, error) {
	bad := func(format string, args ...any) (Config, error) {
		return c, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
	}
	if c.UpstreamPorts == 0 {
		set(&c.Upstream, netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 64, 0, 0}), 10))
	}
	set(&c.UpstreamPort, 25683)
	set(&c.AckTimeout, 2*time.Second)
	set(&c.Timeout, 93*time.Second)
	set(&c.Drain, c.AckTimeout)
	set(&c.DeviceNStart, 4)
	set(&c.MaxExchanges, 65536)
	set(&c.DeviceExchanges, 64)
	set(&c.MaxObservations, 256)
	set(&c.MaxDevices, 1000000)
	set(&c.MaxBytes, 256<<20)
	set(&c.MaxDatagram, 4096)
	set(&c.Revive, 500)
	set(&c.Workers, 8)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Accepts == nil {
		c.Accepts = func(string) bool { return true }
	}
	same := func(name string) string { return name }
	if c.Endpoint == nil {
		c.Endpoint = same
	}
	if c.ContextOf == nil {
		c.ContextOf = same
	}
	switch {
	case !c.Listen.IsValid():
		return bad("no address to listen on")
	case !c.Backend.IsValid() || c.Backend.Addr().IsUnspecified() || c.Backend.Port() == 0:
		return bad("backend %v is no address of a server", c.Backend)
	case c.Store == nil || c.Keyring == nil:
		return bad("no key store")
	case c.UpstreamPorts < 0 || c.UpstreamPorts > 0 && int(c.UpstreamPort)+c.UpstreamPorts > 65536:
		return bad("%d upstream ports from %d on: ports end at 65535", c.UpstreamPorts, c.UpstreamPort)
	case c.UpstreamPorts > 0 && c.Upstream.IsValid():
		return bad("both an upstream network and a port a device: give one of them")
	case c.UpstreamPorts > 0:
	case c.Upstream.Addr().Is4() != c.Backend.Addr().Unmap().Is4():
		return bad("upstream %v cannot reach backend %v: they must both be IPv4 or both IPv6", c.Upstream, c.Backend)
	case c.Upstream.Addr().IsLoopback() != c.Backend.Addr().Unmap().IsLoopback():
		return bad("upstream %v cannot reach backend %v: one is on this machine alone", c.Upstream, c.Backend)
	case c.Upstream.Addr().BitLen()-c.Upstream.Bits() < 9:
		return bad("upstream %v has no room: at least 512 addresses are needed", c.Upstream)
	}
	if c.Plain < PlainRefuse || c.Plain > PlainObserve {
		return bad("unknown policy for plain requests")
	}
	c.Backend = netip.AddrPortFrom(c.Backend.Addr().Unmap(), c.Backend.Port())
	if c.Upstream.IsValid() {
		c.Upstream = c.Upstream.Masked()
	}
	return c, nil
}
