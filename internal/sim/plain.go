package sim

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	"github.com/plgd-dev/go-coap/v3/net/blockwise"
	"github.com/plgd-dev/go-coap/v3/options"
	udpclient "github.com/plgd-dev/go-coap/v3/udp/client"
	udpserver "github.com/plgd-dev/go-coap/v3/udp/server"
)

// plain is CoAP without OSCORE. go-coap has the socket, the codec and the
// retransmission; what it hands over to nobody (a RST), matches by message ID
// alone (duplicates) or ties to one token (block-wise transfer) is done here.
type plain struct {
	n       *node
	running sync.WaitGroup // handlers

	mu     sync.Mutex
	asked  map[key]*ask      // by token: requests that wait, observations
	sent   map[key]func()    // by message ID: what a RST ends
	seen   map[key]*answered // by message ID and token: requests received
	recent []recent          // of seen and sent, oldest first
	blocks blocks
}

// key is a peer's address and a token or a message ID, or both.
type key struct {
	source, token string
	mid           int32
}

type recent struct {
	at  time.Time
	key key
}

// exchangeLifetime is RFC 7252's EXCHANGE_LIFETIME, transmitWait its
// MAX_TRANSMIT_WAIT.
const (
	exchangeLifetime = 247 * time.Second
	transmitWait     = 93 * time.Second
	tickEvery        = 250 * time.Millisecond
)

func newPlain(n *node) *plain {
	if n.cfg.blockSize == 0 {
		n.cfg.blockSize = 1024
	}
	return &plain{n: n, asked: map[key]*ask{}, sent: map[key]func(){}, seen: map[key]*answered{}, blocks: newBlocks(n.cfg.blockSize)}
}

func (p *plain) options() []udpserver.Option {
	return []udpserver.Option{
		// What inspect lets pass is answered by nobody.
		options.WithMux(gocoap.Guard(mux.HandlerFunc(func(mux.ResponseWriter, *mux.Message) {}))),
		options.WithBlockwise(false, blockwise.SZX1024, 3*time.Second),
		options.WithErrors(func(error) {}),
		options.WithRequestMonitor(p.inspect),
		options.WithTransmission(1<<16, 2*time.Second, 4),
		options.WithInactivityMonitor(24*time.Hour, func(cc *udpclient.Conn) { _ = cc.Close() }),
		options.WithPeriodicRunner(func(f func(now time.Time) bool) {
			go func() {
				tick := time.NewTicker(tickEvery)
				defer tick.Stop()
				for now := range tick.C {
					if !f(now) {
						return
					}
				}
			}()
		}),
	}
}

// inspect takes every message before go-coap acts on it.
func (p *plain) inspect(cc *udpclient.Conn, m *pool.Message) (drop bool, err error) {
	to, ok := cc.RemoteAddr().(*net.UDPAddr)
	if !ok {
		return true, nil
	}
	source := to.String()
	switch class := m.Code() >> 5; {
	case m.Type() == message.Reset:
		p.mu.Lock()
		end := p.sent[key{source: source, mid: m.MessageID()}]
		p.mu.Unlock()
		if end != nil {
			end()
		}
		return false, nil // go-coap ends the retransmission
	case m.Code() == codes.Empty:
		return false, nil
	case class == 0:
		if m.Type() == message.Confirmable || m.Type() == message.NonConfirmable {
			p.receive(to, m)
		}
		return true, nil
	}
	p.mu.Lock()
	a := p.asked[key{source: source, token: string(m.Token())}]
	p.mu.Unlock()
	if m.Type() == message.Acknowledgement {
		if a != nil {
			a.take(m)
		}
		return false, nil
	}
	if a == nil {
		if p.n.cfg.stray != nil {
			p.n.cfg.stray(source)
		}
		p.empty(to, message.Reset, m.MessageID()) // RFC 7641 §3.6
		return true, nil
	}
	if m.Type() == message.Confirmable {
		p.empty(to, message.Acknowledgement, m.MessageID())
	}
	a.take(m)
	return true, nil
}

// answered is a request received, with its answer once there is one.
type answered struct {
	typ    message.Type
	mid    int32
	answer *packet
}

// receive takes a request, off the reader.
func (p *plain) receive(to *net.UDPAddr, m *pool.Message) {
	k := key{to.String(), string(m.Token()), m.MessageID()}
	p.mu.Lock()
	p.expire()
	known := p.seen[k]
	if known == nil {
		p.seen[k] = &answered{}
		p.recent = append(p.recent, recent{time.Now(), k})
	}
	var again *packet
	if known != nil {
		again = known.answer
	}
	p.mu.Unlock()
	if known != nil {
		if again != nil { // RFC 7252 §4.5: the answer was lost
			_ = p.write(p.n.ctx, to, known.typ, known.mid, k.token, *again)
		}
		return
	}
	in, err := copyPacket(m)
	if err != nil {
		return // a body in memory
	}
	typ := m.Type()
	p.running.Go(func() { p.serve(to, typ, k, in) })
}

// expire forgets what no duplicate can come of any more. p.mu is held.
func (p *plain) expire() {
	now := time.Now()
	for len(p.recent) > 0 && now.Sub(p.recent[0].at) > exchangeLifetime {
		delete(p.seen, p.recent[0].key)
		delete(p.sent, p.recent[0].key)
		p.recent = p.recent[1:]
	}
}

// serve answers a request.
func (p *plain) serve(to *net.UDPAddr, typ message.Type, k key, in packet) {
	out := p.answer(to, k, in)
	a := &answered{message.Acknowledgement, k.mid, &out}
	if typ == message.NonConfirmable {
		a.typ, a.mid = message.NonConfirmable, p.messageID(to)
	}
	p.mu.Lock()
	p.seen[k] = a
	p.mu.Unlock()
	_ = p.write(p.n.ctx, to, a.typ, a.mid, k.token, out) // asked for again if lost
}

func (p *plain) answer(to *net.UDPAddr, k key, in packet) packet {
	if bad := unknownCritical(in.options); bad {
		return packet{code: codes.BadOption}
	}
	source := k.source
	whole, out, done := p.blocks.receive(source, in)
	if done {
		return out
	}
	req := &incoming{Request: whole.request(), Observe: whole.number(message.Observe), Token: k.token, Source: to}
	notifier := &notifier{p: p, to: to, token: k.token, request: whole, sequence: firstSequence}
	req.notify = notifier.send
	resp := p.n.cfg.handle(req)
	observe := -1
	if resp.Observe {
		observe = firstSequence // a notification may be out already
	}
	return p.blocks.answer(source, in, whole, resp.packet(observe))
}

// unknownCritical reports options that make a request unacceptable without
// OSCORE (RFC 7252 §5.4.1).
func unknownCritical(opts message.Options) bool {
	for _, o := range opts {
		switch _, known := message.CoapOptionDefs[o.ID]; {
		case o.ID&1 == 0:
		case !known, o.ID == 9, o.ID == 21, o.ID == message.QBlock1, o.ID == message.QBlock2, o.ID == message.ProxyURI, o.ID == message.ProxyScheme:
			return true
		}
	}
	return false
}

// firstSequence is the Observe value of the answer to a registration;
// notifications count on from there.
const firstSequence = 1

// fresher reports whether a notification was sent after another one (RFC 7641
// §3.4); what came last came at the given time.
func fresher(last, next int, at, now time.Time) bool {
	return last < next && next-last < 1<<23 || last > next && last-next > 1<<23 || now.Sub(at) > 128*time.Second
}

// notifier sends the notifications of one observation.
type notifier struct {
	p       *plain
	to      *net.UDPAddr
	token   string
	request packet

	mu         sync.Mutex
	sequence   int
	ended      bool
	confirming bool
	held       *Response
}

func (o *notifier) end() {
	o.mu.Lock()
	o.ended = true
	o.mu.Unlock()
}

// send sends a notification. Of confirmable ones one at a time is under way,
// and the newest state counts (RFC 7641 §4.5.2).
func (o *notifier) send(r Response, confirm bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.ended:
		return ErrEnded
	case o.confirming:
		o.held = &r
		return nil
	}
	observe := -1
	if r.Observe {
		o.sequence = (o.sequence + 1) & 0xffffff
		observe = o.sequence
	}
	out := o.p.blocks.answer(o.to.String(), packet{}, o.request, r.packet(observe))
	mid := o.p.messageID(o.to)
	o.p.note(key{source: o.to.String(), mid: mid}, o.end)
	if !confirm {
		return o.p.write(o.p.n.ctx, o.to, message.NonConfirmable, mid, o.token, out)
	}
	o.confirming = true
	go func() {
		ctx, cancel := context.WithTimeout(o.p.n.ctx, transmitWait)
		defer cancel()
		err := o.p.write(ctx, o.to, message.Confirmable, mid, o.token, out)
		o.mu.Lock()
		o.confirming = false
		held := o.held
		o.held = nil
		o.ended = o.ended || err != nil
		o.mu.Unlock()
		if held != nil {
			_ = o.send(*held, true) // an observation that is over needs none
		}
	}()
	return nil
}

// note remembers what a RST to a message ends.
func (p *plain) note(k key, end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire()
	p.sent[k] = end
	p.recent = append(p.recent, recent{time.Now(), k})
}

func (p *plain) messageID(to *net.UDPAddr) int32 {
	conn, err := p.n.server.NewConn(to)
	if err != nil {
		return 0 // closed: nothing is sent
	}
	return conn.GetMessageID()
}

// write sends a message; a confirmable one waits for its acknowledgement.
func (p *plain) write(ctx context.Context, to *net.UDPAddr, typ message.Type, mid int32, token string, out packet) error {
	conn, err := p.n.server.NewConn(to)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	m := conn.AcquireMessage(ctx)
	defer conn.ReleaseMessage(m)
	out.fill(m)
	m.SetType(typ)
	m.SetMessageID(mid)
	m.SetToken(message.Token(token))
	return conn.WriteMessage(m)
}

// empty sends an acknowledgement or a reset.
func (p *plain) empty(to *net.UDPAddr, typ message.Type, mid int32) {
	_ = p.write(p.n.ctx, to, typ, mid, "", packet{}) // the peer sends its message again
}

// ask is a request that waits for its response, or an observation.
type ask struct {
	packets chan packet
	reset   chan struct{}
	once    sync.Once
}

// asks is how many notifications may wait to be taken.
const asks = 256

func (a *ask) take(m *pool.Message) {
	in, err := copyPacket(m)
	if err != nil {
		return // a body in memory
	}
	select {
	case a.packets <- in:
	default: // newer ones will come (RFC 7641 §1.3)
	}
}

// ask sends a request and waits for its first response. The caller calls
// forget when it wants no more of them.
func (p *plain) ask(ctx context.Context, to *net.UDPAddr, out packet, non bool, token string) (in packet, a *ask, forget func(), err error) {
	mid := p.messageID(to)
	a = &ask{packets: make(chan packet, asks), reset: make(chan struct{})}
	k := key{source: to.String(), token: token}
	p.mu.Lock()
	earlier := p.asked[k]
	p.asked[k] = a
	p.mu.Unlock()
	p.note(key{source: k.source, mid: mid}, func() { a.once.Do(func() { close(a.reset) }) })
	forget = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.asked[k] == a {
			delete(p.asked, k)
			if earlier != nil {
				p.asked[k] = earlier
			}
		}
	}
	sending, cancel := context.WithCancel(ctx)
	defer cancel() // the response ends the retransmission
	typ := message.Confirmable
	if non {
		typ = message.NonConfirmable
	}
	failed := make(chan error, 1)
	go func() {
		if err := p.write(sending, to, typ, mid, token, out); err != nil && sending.Err() == nil {
			failed <- err
		}
	}()
	select {
	case in = <-a.packets:
		return in, a, forget, nil
	case <-a.reset:
		err = ErrReset
	case err = <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	case <-p.n.ctx.Done():
		err = ErrClosed
	}
	forget()
	return in, nil, nil, err
}

func newToken() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return string(b)
}

// do sends a request, in blocks if need be, and puts its response together.
func (p *plain) do(ctx context.Context, to *net.UDPAddr, r Request) (Response, error) {
	one := func(out packet) (packet, error) {
		in, _, forget, err := p.ask(ctx, to, out, r.NON, newToken())
		if err == nil {
			forget()
		}
		return in, err
	}
	in, err := p.blocks.send(r.packet(-1), one)
	if err != nil {
		return Response{}, err
	}
	return in.response(), nil
}

// observe registers an observation.
func (p *plain) observe(ctx context.Context, to *net.UDPAddr, r Request, f func(Response)) (*watch, Response, error) {
	token, req := newToken(), r.packet(0)
	in, a, forget, err := p.ask(ctx, to, req, r.NON, token)
	if err != nil {
		return nil, Response{}, err
	}
	// rest fetches further blocks of a notification.
	rest := func(ctx context.Context, in packet) (packet, error) {
		return p.blocks.rest(r.packet(-1), in, func(out packet) (packet, error) {
			in, _, forget, err := p.ask(ctx, to, out, false, newToken())
			if err == nil {
				forget()
			}
			return in, err
		})
	}
	last, at := in.number(message.Observe), time.Now()
	observes := last >= 0
	if in, err = rest(ctx, in); err != nil || !observes {
		forget()
		resp := in.response()
		resp.Observe = false
		return &watch{cancel: func(context.Context) error { return nil }}, resp, err
	}
	first := in.response()
	first.Observe = true
	ended := make(chan struct{})
	var once sync.Once
	stop := func() {
		forget()
		once.Do(func() { close(ended) })
	}
	go func() {
		for {
			var in packet
			select {
			case in = <-a.packets:
			case <-ended:
				return
			case <-p.n.ctx.Done():
				return
			}
			next, now := in.number(message.Observe), time.Now()
			observes := next >= 0
			if observes && !fresher(last, next, at, now) {
				continue // overtaken, or sent twice
			}
			last, at = next, now
			ctx, cancel := context.WithTimeout(p.n.ctx, transmitWait)
			in, err := rest(ctx, in)
			cancel()
			if err == nil {
				resp := in.response()
				resp.Observe = observes
				f(resp)
			}
			if !observes {
				stop()
				return
			}
		}
	}()
	w := &watch{forget: stop, cancel: func(ctx context.Context) error {
		stop()
		in, _, forget, err := p.ask(ctx, to, r.packet(1), false, token)
		if err != nil {
			return err
		}
		forget()
		return in.response().Err()
	}}
	return w, first, nil
}

var errBlocks = errors.New("sim: the peer broke the rules of block-wise transfer")
