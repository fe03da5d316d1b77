package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Config says what a proxy does. It needs a Listen address and a Forward, a
// Route, or both; every other zero value is the default given with the field.
type Config struct {
	Listen  string   // UDP address such as ":5683" or "127.0.0.1:0"
	Forward *Forward // nil: requests for a forward-proxy are refused with 5.05
	Routes  []Route  // reverse-proxy: the first that matches is taken

	// PerClient gives each client an upstream port of its own, so that the
	// server can tell clients apart by address and send requests to them, as
	// LwM2M servers do. It costs a socket for each client. Without it clients
	// share upstream ports, and a request from a server is refused with 5.05.
	PerClient bool

	// ByKID is PerClient for devices that move: a client is who its requests'
	// kid and kid context say, and its port stays the same wherever it sends
	// from. What a server sends to it goes where it was when the server last
	// answered it with a protected response; until then a new address is
	// anybody's claim. One kid (with its context) must be one device's. It takes
	// one shard, since an address decides which shard a datagram comes to.
	ByKID bool

	Shards     int // sockets that share Listen, each with its own lock and tables; GOMAXPROCS. Linux alone has more than one
	ReadBuffer int // bytes that the kernel keeps of what comes in, for each socket but those of PerClient; 4 MiB, or what the system allows

	// Amplification bounds what a client that has not shown that it receives at
	// its address may be sent: so many times the bytes that came from there
	// (RFC 9175 §2.4 asks for 3, which is the default). An answer beyond it is
	// held until the client has answered a ping (RFC 7252 §4.3), as every
	// endpoint does; nothing of Echo is asked of it. Negative: no bound.
	Amplification int

	Identity string // names this proxy in 5.08 answers (RFC 8768 §4); "oscore-proxy"
	HopLimit int    // put into requests that have none, 1 to 255; 16. Negative: none is put in

	Timeout    time.Duration // a request that is not answered by then is answered with 5.04; 247 s, EXCHANGE_LIFETIME
	Drain      time.Duration // how long a proxy that ends waits for answers under way; 10 s
	AckTimeout time.Duration // ACK_TIMEOUT (RFC 7252 §4.8), from which the other times derive; 2 s
	AckDelay   time.Duration // an answer that takes longer travels separately; a quarter of AckTimeout

	MaxExchanges  int // requests under way; beyond it 5.03 for the newest, or for the oldest where those are never answered; 65536
	PeerExchanges int // and for one client; beyond it 5.03; 4096
	MaxRelations  int // observations; beyond it the oldest goes whose client has not shown that it receives (see Amplification), else 5.03 for the newest; 65536
	PeerRelations int // and for one client; beyond it 5.03; 4096
	MaxUpstream   int // upstream sockets, made as they are needed: one carries 264 requests a second to a server, for want of message IDs beyond; 512, with PerClient 4096
	MaxPeers      int // addresses remembered for deduplication, on either side; 200000
	MaxBytes      int // bytes kept for deduplication and retransmission, on either side, 256 of them for each message; 128 MiB
	MaxTransfers  int // bytes of requests kept whole while they travel in blocks, and of tokens above 64 bytes (RFC 8974); 8 MiB. Beyond it 5.03
	MaxDatagram   int // larger datagrams are dropped; 8192 bytes
	ClientNStart  int // confirmable messages under way to one client (RFC 7252 §4.7); 4
	ServerNStart  int // and to one server, which stands for many clients; 1024. As many may wait for it; beyond them 5.03

	Logger  *slog.Logger                                                 // nil: silent
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error) // names in Proxy-Uri and Uri-Host; the system's resolver
}

// Forward lets clients name the server they want.
type Forward struct {
	// Allow lists the networks that may be reached; requests for any other
	// address are refused with 4.03. It must not be empty: 0.0.0.0/0 and ::/0
	// make an open proxy, which lets its clients into every network it is in.
	//
	// Loopback and link-local addresses are reached only through a network that
	// lies in theirs itself, such as 127.0.0.0/8: what listens there trusts this
	// machine. Groups, broadcast and the unspecified address never are.
	Allow []netip.Prefix

	// Via is the next proxy, host:port: every request is handed to it as it
	// is. Allow does not apply.
	Via string
}

// allows reports whether clients may name an address.
func (f *Forward) allows(a netip.Addr) bool {
	if a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false
	}
	near := func(a netip.Addr) bool { return a.IsLoopback() || a.IsLinkLocalUnicast() }
	return slices.ContainsFunc(f.Allow, func(p netip.Prefix) bool {
		return p.Contains(a) && (!near(a) || near(p.Masked().Addr()))
	})
}

// Route leads requests to a server. A criterion that is empty matches all.
type Route struct {
	Host       string // Uri-Host, without regard to case
	KID        []byte // kid of the OSCORE option
	KIDContext []byte // kid context of the OSCORE option
	Prefix     string // the first segments of an outer Uri-Path such as "gateway/1", put there by a client that knows the proxy; they are taken off
	To         string // host:port

	// BlockSize is the largest payload that the next hop takes in one message,
	// 16 to 1024 bytes and a power of two: larger requests are cut (RFC 7959,
	// RFC 8613 §4.1.3.4.2). 0: they are passed as they are, and cut if the server
	// answers 4.13 with a Block1 option that says how small.
	BlockSize int
}

func (r *Route) matches(host string, kid, kidContext []byte) bool {
	return (r.Host == "" || strings.EqualFold(r.Host, host)) &&
		(r.KID == nil || kid != nil && bytes.Equal(r.KID, kid)) &&
		(r.KIDContext == nil || kidContext != nil && bytes.Equal(r.KIDContext, kidContext))
}

// ErrConfig is wrapped by every error about a Config.
var ErrConfig = errors.New("proxy: configuration")

func (c Config) withDefaults() (Config, error) {
	if c.Listen == "" {
		return c, fmt.Errorf("%w: Listen is empty: give an address such as \":5683\"", ErrConfig)
	}
	if c.Forward == nil && len(c.Routes) == 0 {
		return c, fmt.Errorf("%w: neither Forward nor Routes: there is nowhere to send a request", ErrConfig)
	}
	if c.Forward != nil && c.Forward.Via == "" && len(c.Forward.Allow) == 0 {
		return c, fmt.Errorf("%w: Forward.Allow is empty: list the networks that may be reached", ErrConfig)
	}
	if c.HopLimit > 255 {
		return c, fmt.Errorf("%w: HopLimit %d is above 255", ErrConfig, c.HopLimit)
	}
	if c.ByKID {
		c.PerClient = true
		if c.Shards > 1 {
			return c, fmt.Errorf("%w: ByKID with %d Shards: it takes one", ErrConfig, c.Shards)
		}
		c.Shards = 1
	}
	if runtime.GOOS != "linux" {
		c.Shards = 1
	}
	def(&c.Shards, runtime.GOMAXPROCS(0))
	def(&c.Amplification, 3)
	def(&c.ReadBuffer, 4<<20)
	def(&c.Identity, "oscore-proxy")
	def(&c.HopLimit, 16)
	def(&c.Timeout, 247*time.Second)
	def(&c.Drain, 10*time.Second)
	def(&c.AckTimeout, 2*time.Second)
	def(&c.AckDelay, c.AckTimeout/4)
	def(&c.MaxExchanges, 1<<16)
	def(&c.PeerExchanges, 4096)
	def(&c.MaxRelations, 1<<16)
	def(&c.PeerRelations, 4096)
	if c.PerClient {
		def(&c.MaxUpstream, 4096)
	}
	def(&c.MaxUpstream, 512)
	def(&c.MaxPeers, 200_000)
	def(&c.MaxBytes, 128<<20)
	def(&c.MaxTransfers, 8<<20)
	def(&c.MaxDatagram, 8192)
	def(&c.ClientNStart, 4)
	def(&c.ServerNStart, 1024)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Resolve == nil {
		c.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return c, nil
}

func def[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// part returns the configuration of one of n shards: limits of the whole are
// divided.
func (c Config) part(n int) Config {
	for _, limit := range []*int{&c.MaxExchanges, &c.MaxRelations, &c.MaxUpstream, &c.MaxPeers, &c.MaxBytes, &c.MaxTransfers} {
		*limit = max((*limit+n-1)/n, 1)
	}
	return c
}

// Check returns what [Listen] would say of the configuration, without touching
// the network. Errors wrap [ErrConfig].
func Check(cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err == nil {
		_, err = newRules(&cfg)
	}
	return err
}
