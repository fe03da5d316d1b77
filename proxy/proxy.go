package proxy

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// Proxy is a proxy that listens.
type Proxy struct {
	cfg      Config
	rules    rules
	local    []netip.Addr // this machine's addresses
	addr     netip.AddrPort
	shard    *shard
	counters counters
	swept    time.Time // the last second's sweep
	ctx      context.Context
	cancel   context.CancelFunc
	pool     []byte // random bytes, under the shard's lock
}

func configError(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
}

// Listen returns a proxy that has its socket. [Proxy.Serve] makes it work.
// Errors about the configuration wrap [ErrConfig].
func Listen(cfg Config) (*Proxy, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg}
	if p.rules, err = newRules(&cfg); err != nil {
		return nil, err
	}
	addr, err := net.ResolveUDPAddr("udp", cfg.Listen)
	if err != nil {
		return nil, configError("Listen %q: %v", cfg.Listen, err)
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("proxy: listen: %w", err)
	}
	p.addr = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	p.addr = netip.AddrPortFrom(p.addr.Addr().Unmap(), p.addr.Port())
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				p.local = append(p.local, prefix.Addr().Unmap())
			}
		}
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	sh := &shard{p: p, perPeer: map[netip.AddrPort]int{}, own: map[netip.AddrPort]*leg{}, names: map[string]resolved{}}
	p.shard = sh
	sh.front = sh.newLeg(conn, true)
	sh.legs = []*leg{sh.front}
	if !cfg.PerClient {
		if err := sh.nextShared(); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("proxy: upstream socket: %w", err)
		}
	}
	return p, nil
}

// Addr returns the address that the proxy listens on.
func (p *Proxy) Addr() netip.AddrPort { return p.addr }

// Serve works until the context ends, then drains: new requests are refused
// with 5.03, those under way have Config.Drain to be answered. It returns nil
// after a drain that came to its end, and an error that says how many requests
// were abandoned otherwise.
func (p *Proxy) Serve(ctx context.Context) error {
	sh := p.shard
	sh.wg.Go(sh.front.read)
	sh.wg.Go(func() { sh.run(p.ctx) })
	p.cfg.Logger.Info("proxy listens", "address", p.addr.String(), "forward", p.cfg.Forward != nil, "routes", len(p.cfg.Routes))
	<-ctx.Done()
	left := p.drain()
	p.cancel()
	sh.mu.Lock()
	sh.closed = true
	for _, g := range sh.legs {
		_ = g.conn.Close()
	}
	sh.mu.Unlock()
	sh.wg.Wait()
	if left > 0 {
		return fmt.Errorf("proxy: %d requests abandoned after %v", left, p.cfg.Drain)
	}
	return nil
}

// drain waits for the answers under way and returns how many are missing.
func (p *Proxy) drain() int {
	sh := p.shard
	end := time.Now().Add(p.cfg.Drain)
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		sh.mu.Lock()
		sh.draining = true
		left := sh.waiting.Len() + sh.resolving
		sh.mu.Unlock()
		if left == 0 || time.Now().After(end) {
			return left
		}
		<-t.C
	}
}

// random returns 64 bits that nobody can guess.
func (p *Proxy) random() uint64 {
	if len(p.pool) < 8 {
		p.pool = make([]byte, 4096)
		_, _ = rand.Read(p.pool) // never fails
	}
	v := binary.BigEndian.Uint64(p.pool)
	p.pool = p.pool[8:]
	return v
}

// permitted refuses a next hop that a client may not choose, and the proxy's
// own address (RFC 7252 §5.7.2: request loops).
func (p *Proxy) permitted(pl *plan, next netip.AddrPort) *refusal {
	if next.Port() == p.addr.Port() {
		at, own := p.addr.Addr(), false
		switch {
		case at == next.Addr(), next.Addr().IsUnspecified():
			own = true
		case at.IsUnspecified():
			own = next.Addr().IsLoopback()
			for _, a := range p.local {
				own = own || a == next.Addr()
			}
		}
		if own {
			return refuse(coap.HopLimitReached, p.cfg.Identity)
		}
	}
	if !pl.open {
		return nil
	}
	for _, prefix := range p.cfg.Forward.Allow {
		if prefix.Contains(next.Addr()) {
			return nil
		}
	}
	return refuse(coap.Forbidden, "the target is not in the networks that may be reached")
}
