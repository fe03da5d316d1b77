package gocoap

import (
	"sync/atomic"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	dtlsserver "github.com/plgd-dev/go-coap/v3/dtls/server"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	"github.com/plgd-dev/go-coap/v3/net/blockwise"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/options/config"
	"github.com/plgd-dev/go-coap/v3/tcp"
	tcpclient "github.com/plgd-dev/go-coap/v3/tcp/client"
	tcpserver "github.com/plgd-dev/go-coap/v3/tcp/server"
	"github.com/plgd-dev/go-coap/v3/udp"
	udpclient "github.com/plgd-dev/go-coap/v3/udp/client"
	udpserver "github.com/plgd-dev/go-coap/v3/udp/server"
)

const (
	// provenIdle is how long a server keeps a silent connection whose peer has
	// proven itself. go-coap's 16 s would lose the observations of a sleeping
	// device.
	provenIdle = 24 * time.Hour
	// unprovenIdle is how long it keeps any other: whoever forges source
	// addresses makes connections at no cost.
	unprovenIdle = 16 * time.Second
	// nstart opens go-coap's own limit, which would hold sealed messages back;
	// the link's gate holds requests to one at a time before they are sealed.
	nstart = 1 << 16
)

// UDPServer returns the options of a UDP server whose protected requests are
// handled by h:
//
//	server := udp.NewServer(ep.UDPServer(router)...)
//
// Options of the program's own may be appended, but not another handler,
// request monitor, received-message function, inactivity monitor, NSTART or
// block-wise setting.
func (e *Endpoint) UDPServer(h mux.Handler) []udpserver.Option {
	b := &bundle{e, h}
	return []udpserver.Option{b.mux(), b.blockwise(), b.process(), b.runner(), b.errors(), b}
}

// DTLSServer is [Endpoint.UDPServer] for a DTLS server.
func (e *Endpoint) DTLSServer(h mux.Handler) []dtlsserver.Option {
	b := &bundle{e, h}
	return []dtlsserver.Option{b.mux(), b.blockwise(), b.process(), b.runner(), b.errors(), b}
}

// TCPServer is [Endpoint.UDPServer] for a TCP or TLS server.
func (e *Endpoint) TCPServer(h mux.Handler) []tcpserver.Option {
	b := &bundle{e, h}
	return []tcpserver.Option{b.mux(), b.blockwise(), b.runner(), b.errors(), b}
}

// UDPClient returns the options of a UDP or DTLS connection; h handles the
// requests that the peer sends over it (both sides of LwM2M do), nil has none:
//
//	conn, err := udp.Dial(addr, ep.UDPClient(objects)...)
func (e *Endpoint) UDPClient(h mux.Handler) []udp.Option {
	b := &bundle{e, h}
	return []udp.Option{b.mux(), b.blockwise(), b.process(), b.runner(), b.errors(), b}
}

// TCPClient is [Endpoint.UDPClient] for a TCP or TLS connection.
func (e *Endpoint) TCPClient(h mux.Handler) []tcp.Option {
	b := &bundle{e, h}
	return []tcp.Option{b.mux(), b.blockwise(), b.runner(), b.errors(), b}
}

// bundle is what every connection needs, whatever its transport and side. It
// is itself the option for what go-coap has no option for.
type bundle struct {
	e *Endpoint
	h mux.Handler
}

func (b *bundle) mux() options.MuxHandlerOpt { return options.WithMux(b.e.Handler(b.h)) }

// blockwise switches go-coap's own off: inner block-wise is this module's, and
// go-coap's would cut protected messages again, and loses blocks above OSCORE.
func (b *bundle) blockwise() options.BlockwiseOpt {
	return options.WithBlockwise(false, blockwise.SZX1024, 3*time.Second)
}

func (b *bundle) runner() options.PeriodicRunnerOpt {
	return options.WithPeriodicRunner(b.e.ticker.add)
}

// errors reports what go-coap would print on standard output, where anybody
// who sends malformed datagrams could fill it.
func (b *bundle) errors() options.ErrorsOpt {
	return options.WithErrors(func(err error) {
		if b.e.cfg.Event != nil {
			b.e.cfg.Event(Event{Reason: "transport", Err: err})
		}
	})
}

// UDPServerApply implements udpserver.Option.
func (b *bundle) UDPServerApply(cfg *udpserver.Config) {
	cfg.RequestMonitor, cfg.CreateInactivityMonitor, cfg.TransmissionNStart = b.datagram, b.udpIdle, nstart
}

// DTLSServerApply implements dtlsserver.Option.
func (b *bundle) DTLSServerApply(cfg *dtlsserver.Config) {
	cfg.RequestMonitor, cfg.CreateInactivityMonitor, cfg.TransmissionNStart = b.datagram, b.udpIdle, nstart
}

// UDPClientApply implements udp.Option.
func (b *bundle) UDPClientApply(cfg *udpclient.Config) {
	cfg.RequestMonitor, cfg.TransmissionNStart = b.datagram, nstart
}

// TCPServerApply implements tcpserver.Option.
func (b *bundle) TCPServerApply(cfg *tcpserver.Config) {
	cfg.RequestMonitor, cfg.CreateInactivityMonitor = b.stream, b.tcpIdle
}

// TCPClientApply implements tcp.Option.
func (b *bundle) TCPClientApply(cfg *tcpclient.Config) { cfg.RequestMonitor = b.stream }

// datagram sees every datagram before go-coap matches its message ID, which
// nothing protects.
func (b *bundle) datagram(cc *udpclient.Conn, m *pool.Message) (drop bool, err error) {
	l := b.e.link(cc, true)
	l.arrivedAt(m.ControlMessage())
	drop = l.inspect(b.h, m)
	if drop {
		cc.InactivityMonitor().Notify()
	}
	return drop, nil
}

// stream sees every message of a stream.
func (b *bundle) stream(cc *tcpclient.Conn, m *pool.Message) (drop bool, err error) {
	return b.e.link(cc, false).inspect(b.h, m), nil
}

// process runs what the endpoint leaves to go-coap: plain requests that
// Config.AllowPlain lets pass, each in a goroutine of its own, since one slow
// handler would stop the reader of all connections.
func (b *bundle) process() options.ProcessReceivedMessageOpt[*udpclient.Conn] {
	return options.WithProcessReceivedMessageFunc(func(m *pool.Message, cc *udpclient.Conn, next config.HandlerFunc[*udpclient.Conn]) {
		if !coap.Code(m.Code()).IsRequest() {
			cc.ProcessReceivedMessageWithHandler(m, next)
			return
		}
		l := b.e.link(cc, true)
		select {
		case l.handlers <- struct{}{}:
		default:
			cc.ReleaseMessage(m)
			return // a confirmable request comes again
		}
		go func() {
			defer func() { <-l.handlers }()
			cc.ProcessReceivedMessageWithHandler(m, next)
		}()
	})
}

// idle closes connections that were silent for too long.
type idle[C mux.Conn] struct {
	e    *Endpoint
	last atomic.Int64
}

func (b *bundle) udpIdle() udpclient.InactivityMonitor {
	return udpclient.DeferInactivityWhileConfirmableMessagesPending(newIdle[*udpclient.Conn](b.e))
}

func (b *bundle) tcpIdle() tcpclient.InactivityMonitor { return newIdle[*tcpclient.Conn](b.e) }

func newIdle[C mux.Conn](e *Endpoint) *idle[C] {
	i := &idle[C]{e: e}
	i.Notify()
	return i
}

// Notify tells that something was received.
func (i *idle[C]) Notify() { i.last.Store(time.Now().UnixNano()) }

// CheckInactivity closes the connection if nothing was for too long.
func (i *idle[C]) CheckInactivity(now time.Time, cc C) {
	last, limit := i.last.Load(), unprovenIdle
	if time.Duration(now.UnixNano()-last) <= limit {
		return
	}
	if v, ok := i.e.links.Load(mux.Conn(cc)); ok {
		l := v.(*link)
		last = max(last, l.last.Load())
		if l.proven.Load() {
			limit = provenIdle
		} else if l.asks() {
			return
		}
	}
	if time.Duration(now.UnixNano()-last) > limit {
		_ = cc.Close() // what it returns is of no use to anybody
	}
}
