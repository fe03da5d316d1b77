package proxy

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/udp"
)

// Proxy is a proxy that listens.
type Proxy struct {
	cfg    Config
	rules  atomic.Pointer[rules]
	local  []netip.Addr // this machine's addresses
	addr   netip.AddrPort
	shards []*shard
	unsent atomic.Uint64
	zones  zones
	seed   maphash.Seed
	ctx    context.Context
	cancel context.CancelFunc
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
	p := &Proxy{cfg: cfg, seed: maphash.MakeSeed()}
	rules, err := newRules(&cfg)
	if err != nil {
		return nil, err
	}
	p.rules.Store(&rules)
	addr, err := net.ResolveUDPAddr("udp", cfg.Listen)
	if err != nil {
		return nil, configError("Listen %q: %v", cfg.Listen, err)
	}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				p.local = append(p.local, prefix.Addr().Unmap())
			}
		}
	}
	socks, err := p.listen(netip.AddrPortFrom(addr.AddrPort().Addr().Unmap(), uint16(addr.Port)))
	if err != nil {
		return nil, err
	}
	p.addr = socks[0].Addr()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, sock := range socks {
		sh := &shard{p: p, cfg: cfg.part(len(socks)), waiting: queue{which: waiting}, unshown: queue{which: unshown}, own: map[owner]*leg{}, names: map[name]resolved{}, asked: map[name][]found{}}
		sh.front = sh.newLeg(sock, true)
		sh.legs = []*leg{sh.front}
		p.shards = append(p.shards, sh)
	}
	for _, sh := range p.shards {
		if sh.poll, err = udp.NewPoll[*leg](); err == nil {
			err = sh.poll.Add(sh.front.sock, sh.front)
		}
		if err != nil {
			p.close()
			return nil, fmt.Errorf("proxy: %w", err)
		}
	}
	if cfg.PerClient {
		return p, nil
	}
	for _, sh := range p.shards {
		if err := sh.nextShared(); err != nil {
			p.close()
			return nil, fmt.Errorf("proxy: upstream socket: %w", err)
		}
	}
	return p, nil
}

// listen opens the sockets that share the address, one for each shard.
func (p *Proxy) listen(addr netip.AddrPort) (socks []*udp.Socket, err error) {
	fail := func(err error) ([]*udp.Socket, error) {
		for _, s := range socks {
			_ = s.Close()
		}
		return nil, fmt.Errorf("proxy: listen: %w", err)
	}
	o := udp.Options{MaxDatagram: p.cfg.MaxDatagram, ReadBuffer: p.cfg.ReadBuffer, Local: addr.Addr().IsUnspecified() || !addr.Addr().IsValid()}
	// The first is opened alone: sockets that share an address would share it
	// with another program's too, and nobody would be told.
	first, err := udp.Listen(addr, o)
	if errors.Is(err, errors.ErrUnsupported) {
		o.Local = false
		first, err = udp.Listen(addr, o)
	}
	if err != nil {
		return fail(err)
	}
	if p.cfg.Shards == 1 {
		return []*udp.Socket{first}, nil
	}
	addr = netip.AddrPortFrom(addr.Addr(), first.Addr().Port())
	_ = first.Close()
	o.ReusePort = true
	for range p.cfg.Shards {
		s, err := udp.Listen(addr, o)
		if err != nil {
			return fail(err)
		}
		socks = append(socks, s)
	}
	return socks, nil
}

// Addr returns the address that the proxy listens on.
func (p *Proxy) Addr() netip.AddrPort { return p.addr }

// Serve works until the context ends, then drains: new requests are refused
// with 5.03, those under way have Config.Drain to be answered. It returns nil
// after a drain that came to its end, and an error that says how many requests
// were abandoned otherwise.
func (p *Proxy) Serve(ctx context.Context) error {
	for _, sh := range p.shards {
		sh.wg.Go(sh.loop)
	}
	p.cfg.Logger.Info("proxy listens", "address", p.addr.String(), "shards", len(p.shards), "forward", p.cfg.Forward != nil, "routes", len(p.cfg.Routes))
	<-ctx.Done()
	left := p.drain()
	p.close()
	if left > 0 {
		return fmt.Errorf("proxy: %d requests abandoned after %v", left, p.cfg.Drain)
	}
	return nil
}

// Reload takes Forward and Routes of another configuration; all else stays as it
// was at the start. Requests under way and observations go on where they are.
func (p *Proxy) Reload(cfg Config) error {
	now := p.cfg
	now.Forward, now.Routes = cfg.Forward, cfg.Routes
	if _, err := now.withDefaults(); err != nil {
		return err
	}
	rules, err := newRules(&now)
	if err == nil {
		p.rules.Store(&rules)
		p.cfg.Logger.Info("proxy has new routes", "forward", cfg.Forward != nil, "routes", len(cfg.Routes))
	}
	return err
}

// close ends what runs and waits for its end.
func (p *Proxy) close() {
	p.cancel()
	for _, sh := range p.shards {
		sh.close()
	}
}

// drain waits for the answers under way and returns how many are missing.
func (p *Proxy) drain() int {
	end := time.Now().Add(p.cfg.Drain)
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		left := 0
		for _, sh := range p.shards {
			sh.mu.Lock()
			sh.draining = true
			left += sh.waiting.n + sh.resolving[0] + sh.resolving[1]
			sh.mu.Unlock()
		}
		if left == 0 || time.Now().After(end) {
			return left
		}
		<-t.C
	}
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
	forward := p.rules.Load().forward
	if forward == nil { // since the name was asked for
		return refuse(coap.ProxyingNotSupported, "no forward-proxy")
	}
	if forward.allows(next.Addr()) {
		return nil
	}
	return refuse(coap.Forbidden, "the target is not in the networks that may be reached")
}
