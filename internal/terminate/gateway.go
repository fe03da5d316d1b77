package terminate

import (
	"container/list"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/coap/message"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/internal/udp"
)

// hop is a device's address, and the one of this machine that it sent to.
type hop struct {
	remote netip.AddrPort
	local  netip.Addr
}

// String tells hops apart in every process alike: what fmt makes of the fields by
// itself has a pointer in it (netip.Addr).
func (h hop) String() string { return h.remote.String() + " " + h.local.String() }

type (
	frontEvent = message.Event[hop]
	frontIn    = message.Incoming[hop]
	frontOut   = message.Outgoing[hop]
	backEvent  = message.Event[uint32]
	backIn     = message.Incoming[uint32]
	backOut    = message.Outgoing[uint32]
)

// Gateway is a gateway that listens.
type Gateway struct {
	cfg      Config
	e        *endpoint.Endpoint
	front    *udp.Socket // toward devices
	back     upstream    // toward the backend
	db       *behind
	c        counters
	ctx      context.Context
	cancel   context.CancelFunc
	workers  sync.WaitGroup
	seed     [32]byte
	draining bool

	known sync.RWMutex // devices and byIndex change under mu and this one; either will do to read them

	mu        sync.Mutex
	down      *message.Layer[hop]    // toward devices
	up        *message.Layer[uint32] // toward the backend, by the device's index
	devices   map[string]*device
	byIndex   map[uint32]*device
	all       []*device                  // in no order, without holes
	observed  int                        // observations, of all of them
	asleep    int                        // of these those to be taken up
	plain     map[netip.AddrPort]*device // that speak without OSCORE, by their address
	uplinks   map[backToken]*uplink
	downlinks map[token]*downlink // by the token that the device has
	journal   map[journalKey]*entry
	waiting   waits
	dormant   list.List  // *downlink: observations to be taken up, see revive
	forgets   uint64     // calls of Forget
	drawn     [4096]byte // random bytes
	pool      []byte     // of them those to come
	swept     time.Time  // the journal

	// Room for what is sealed and what is opened under the lock; both layers copy
	// what they are given.
	sealing, opening []byte
	spares           []*arrival

	ticked      atomic.Int64 // when tick had the lock, in ns since 1970; 0: it does not run
	plainPolicy atomic.Int32 // Plain
	freshness   atomic.Int32 // endpoint.Freshness

	anew        atomic.Bool // rederived is not empty
	rederivedMu sync.Mutex  // nothing else is asked for under it
	rederived   []string    // whose context is a new one
}

// backToken is a token toward the backend, of a device.
type backToken struct {
	index uint32
	token token
}

// Listen returns a gateway that has its sockets, and has read what an earlier
// one left in the store. [Gateway.Serve] makes it work. Errors about the
// configuration wrap [ErrConfig].
func Listen(cfg Config) (*Gateway, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		cfg: cfg, devices: map[string]*device{}, byIndex: map[uint32]*device{}, plain: map[netip.AddrPort]*device{},
		uplinks: map[backToken]*uplink{}, downlinks: map[token]*downlink{}, journal: map[journalKey]*entry{},
		sealing: make([]byte, 0, room), opening: make([]byte, 0, room),
	}
	g.plainPolicy.Store(int32(cfg.Plain))
	g.freshness.Store(int32(cfg.Freshness))
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.db = newBehind(cfg.Store.Update, cfg.Logger.With("route", cfg.Name), &g.c)
	if err := g.loadSeed(); err != nil {
		return nil, fmt.Errorf("terminate: the store: %w", err)
	}
	g.down = message.New[hop](message.Config{
		AckTimeout: cfg.AckTimeout, NStart: cfg.DeviceNStart, Reuse: true, ReuseIDs: true, FirstID: g.firstID,
		MaxPeers: cfg.MaxDevices, MaxBytes: cfg.MaxBytes,
	})
	g.up = message.New[uint32](message.Config{
		NStart: cfg.DeviceExchanges, Reuse: true, ReuseIDs: true, FirstID: g.firstID, MaxPeers: cfg.MaxDevices, MaxBytes: cfg.MaxBytes,
		// A request is acknowledged by its answer, or once its device has
		// acknowledged it: until then the backend repeats it, over a restart too.
		AckDelay: cfg.Timeout,
	})
	g.e = endpoint.New(endpoint.Config{
		Keyring:         cfg.Keyring,
		Serve:           cfg.Accepts,
		Freshness:       func(string, coap.Code, string) endpoint.Freshness { return endpoint.Freshness(g.freshness.Load()) },
		Moved:           g.moved,
		Transparent:     true,
		MaxObservations: cfg.MaxObservations,
		Silent:          cfg.Silent,
		Event:           g.event,
	}, time.Now())
	const buffer = 4 << 20
	g.front, err = udp.Listen(cfg.Listen, udp.Options{Local: cfg.Listen.Addr().IsUnspecified(), MaxDatagram: cfg.MaxDatagram, ReadBuffer: buffer, WriteBuffer: buffer})
	if err != nil {
		return nil, fmt.Errorf("terminate: listen on %v: %w", cfg.Listen, err)
	}
	if g.back, err = g.listenUpstream(buffer); err != nil {
		_ = g.front.Close()
		return nil, err
	}
	if err := g.loadStart(time.Now()); err != nil {
		_ = g.front.Close()
		g.back.close()
		return nil, fmt.Errorf("terminate: the store: %w", err)
	}
	return g, nil
}

// Addr returns the address that the gateway listens on.
func (g *Gateway) Addr() netip.AddrPort { return g.front.Addr() }

// Serve works until the context ends, then drains: what is under way has
// Config.Drain to be answered, new requests are left to be repeated.
func (g *Gateway) Serve(ctx context.Context) error {
	g.cfg.Logger.Info("terminating OSCORE", "route", g.cfg.Name, "listen", g.Addr().String(), "backend", g.cfg.Backend.String(),
		"upstream", g.cfg.Upstream.String(), "upstream_port", g.cfg.UpstreamPort, "plain", g.policy().String())
	var turn sync.Mutex
	for range g.cfg.Workers {
		g.workers.Go(func() { g.read(g.front, &turn, &work{in: make([]udp.Packet, batch)}, g.fromFront) })
	}
	g.back.serve()
	g.ticked.Store(time.Now().UnixNano())
	g.workers.Go(g.tick)
	<-ctx.Done()
	g.drain()
	g.cancel()
	_ = g.front.Close()
	g.back.close()
	g.workers.Wait()
	return g.db.close()
}

// SetPolicies changes Config.Plain and Config.Freshness from now on. What is under
// way in plain and is not allowed any more ends at once.
func (g *Gateway) SetPolicies(plain Plain, fresh endpoint.Freshness) {
	var out sending
	g.locked(&out, func() {
		before := g.policy()
		g.plainPolicy.Store(int32(plain))
		g.freshness.Store(int32(fresh))
		if before == plain {
			return
		}
		now := time.Now()
		for _, d := range g.plain {
			if !g.mayPlain(d) {
				g.endPlain(now, d)
			}
		}
	})
}

// Stalled returns for how long a gateway that serves has done nothing that time
// made due: it takes its lock, the storage and the sockets for that.
func (g *Gateway) Stalled(now time.Time) time.Duration {
	at := g.ticked.Load()
	if at == 0 || g.ctx.Err() != nil {
		return 0
	}
	return max(0, now.Sub(time.Unix(0, at)))
}

// drain waits for the answers under way.
func (g *Gateway) drain() {
	end := time.Now().Add(g.cfg.Drain)
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for {
		g.mu.Lock()
		g.draining = true
		left := g.waiting.n
		g.mu.Unlock()
		if left == 0 || time.Now().After(end) {
			return
		}
		<-t.C
	}
}

// batch is how many datagrams are taken in at once.
const batch = 32

// work is what a worker has in hand.
type work struct {
	in     []udp.Packet
	data   []byte // of in
	out    sending
	opened []opened
	spares []*arrival // that nothing came into
	asked  []asking
	sealed []byte // of asked
	index  uint32 // of the device that the socket is of
	fixed  bool   // it is of one
}

// read takes in datagrams until the socket is closed. Workers take turns, so
// that one that waits for storage holds up no other.
func (g *Gateway) read(s *udp.Socket, turn *sync.Mutex, w *work, handle func(now time.Time, w *work, n int)) {
	for {
		turn.Lock()
		n, err := s.Read(w.in)
		if err == nil {
			w.data = w.data[:0]
			for i := range w.in[:n] {
				w.data = append(w.data, w.in[i].Data...)
			}
			at := w.data
			for i := range w.in[:n] {
				size := len(w.in[i].Data)
				w.in[i].Data, at = at[:size:size], at[size:]
			}
		}
		if n == batch && s == g.front {
			g.yield()
		}
		turn.Unlock()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an earlier datagram found no receiver
		}
		handle(time.Now(), w, n)
		release(w.data)
	}
}

// room is for what a message is sealed or opened into; a larger one is allocated.
const room = 4096

// release empties a buffer whose content is over: it goes on to hold what is
// another device's, so that whoever still looked at it would see nothing.
var release = func(b []byte) { clear(b) }

// yield lets the backend's answers go first. Where more comes in than can be done,
// each answer that the system has no room for is work done for nothing, and comes
// again: requests that find no room are not.
func (g *Gateway) yield() {
	for tries := 0; tries < 20 && g.back.backlog() > 0.125; tries++ {
		time.Sleep(500 * time.Microsecond)
	}
}

// sending are datagrams on their way out: collected under the lock, sent
// without it.
type sending struct {
	front, back []udp.Packet
	as          []uint32  // the device that each of back is of
	buffers     [2][]byte // that front and back stand in
}

// collect takes what the layers have to send.
func (g *Gateway) collect(s *sending) {
	s.front, s.back, s.as = s.front[:0], s.back[:0], s.as[:0]
	for _, p := range g.down.Swap(&s.buffers[0]) {
		s.front = append(s.front, udp.Packet{Peer: p.Peer.remote, Local: p.Peer.local, Data: p.Data})
	}
	for _, p := range g.up.Swap(&s.buffers[1]) {
		s.back = append(s.back, udp.Packet{Peer: g.cfg.Backend, Data: p.Data})
		s.as = append(s.as, p.Peer)
	}
}

func (g *Gateway) transmit(s *sending) {
	if len(s.front) > 0 {
		_, lost := g.front.Write(s.front)
		g.c.unsent.Add(uint64(lost))
	}
	if len(s.back) > 0 {
		g.c.unsent.Add(uint64(g.back.write(s.back, s.as)))
	}
	for _, b := range s.buffers {
		release(b)
	}
}

// locked runs f under the lock and sends what comes of it.
func (g *Gateway) locked(s *sending, f func()) {
	g.mu.Lock()
	if g.anew.Load() {
		g.contextsChanged(time.Now())
	}
	f()
	g.collect(s)
	g.mu.Unlock()
	g.transmit(s)
}

// fromFront handles datagrams of devices.
func (g *Gateway) fromFront(now time.Time, w *work, n int) {
	w.opened = w.opened[:0]
	g.locked(&w.out, func() {
		for i := range w.in[:n] {
			p := &w.in[i]
			ev := g.down.Receive(now, hop{p.Peer, p.Local}, p.Data)
			switch ev.Kind {
			case message.Request:
				w.opened = append(w.opened, opened{ev: ev})
			case message.Response:
				g.deviceResponse(now, ev)
			case message.Acknowledged:
				g.deviceAcknowledged(ev)
			case message.Reset, message.GaveUp:
				g.deviceFailed(now, ev)
			case message.None:
				g.c.none(ev.Err)
			}
		}
		g.spare(w, len(w.opened))
	})
	if len(w.opened) == 0 {
		return
	}
	for i := range w.opened {
		g.open(now, w, &w.opened[i])
	}
	g.locked(&w.out, func() {
		for i := range w.opened {
			g.deviceRequest(now, &w.opened[i])
		}
	})
	clear(w.opened)
}

// fromBack handles datagrams of the backend. Nothing else may speak there.
func (g *Gateway) fromBack(now time.Time, w *work, n int) {
	w.asked = w.asked[:0]
	g.locked(&w.out, func() {
		for i := range w.in[:n] {
			p := &w.in[i]
			index, ok := w.index, w.fixed
			if !ok {
				index, ok = upstreamIndex(g.cfg.Upstream, p.Local)
			}
			if !ok || p.Peer != g.cfg.Backend {
				g.c.stranger.Add(1)
				continue
			}
			ev := g.up.Receive(now, index, p.Data)
			switch ev.Kind {
			case message.Request:
				if d := g.backendRequest(now, ev); d != nil {
					w.asked = append(w.asked, asking{d: d})
				}
			case message.Response:
				g.backendResponse(now, ev)
			case message.Reset, message.GaveUp:
				g.backendFailed(now, ev)
			case message.None:
				g.c.none(ev.Err)
			}
		}
	})
	if len(w.asked) > 0 {
		g.begin(now, w)
	}
}

// tick does what time has made due.
func (g *Gateway) tick() {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	var out sending
	swept := time.Now()
	for {
		select {
		case <-g.ctx.Done():
			return
		case now := <-t.C:
			var revive []*downlink
			g.locked(&out, func() {
				sweep := now.Sub(swept) > time.Second
				if at, ok := g.down.Next(); sweep || ok && !at.After(now) {
					g.down.Advance(now, func(ev frontEvent) { g.deviceFailed(now, ev) })
				}
				if at, ok := g.up.Next(); sweep || ok && !at.After(now) {
					g.up.Advance(now, func(ev backEvent) { g.backendFailed(now, ev) })
				}
				g.expire(now)
				if sweep {
					swept = now
					g.expireJournal(now)
				}
				revive = g.nextDormant(max(1, g.cfg.Revive/20))
			})
			for _, d := range revive {
				g.revive(now, d, &out)
			}
			g.ticked.Store(time.Now().UnixNano())
		}
	}
}

// token is one that this side drew; zero: none.
type token [8]byte

// tokenOf returns a token as one of this side's, zero if it cannot be.
func tokenOf(b []byte) (t token) {
	if len(b) == len(t) {
		copy(t[:], b)
	}
	return t
}

// newToken draws a token that nobody can guess (RFC 7252 §5.3.1).
func (g *Gateway) newToken() (t token) {
	for t == (token{}) {
		if len(g.pool) == 0 {
			g.pool = g.drawn[:]
			_, _ = rand.Read(g.pool) // never fails
		}
		g.pool = g.pool[copy(t[:], g.pool):]
	}
	return t
}

// firstID gives the first message ID toward a peer in this life of the store.
func (g *Gateway) firstID(peer any) uint16 { return firstID(g.seed, g.cfg.Store.Epoch(), peer) }

// firstID spreads the lives of a store over all message IDs, so that one does not
// come upon those of the lives before as long as their peers remember (RFC 7252
// §4.4): whatever the process, a peer has one point to begin from.
func firstID(seed [32]byte, epoch uint64, peer any) uint16 {
	h := sha256.New()
	h.Write(seed[:])
	fmt.Fprint(h, peer)
	base := binary.BigEndian.Uint16(h.Sum(nil))
	const golden = 0x9e3779b97f4a7c15 // 2^64 / golden ratio: each step lands in the widest gap
	return base + uint16(epoch*golden>>48)
}
