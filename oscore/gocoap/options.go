package gocoap

import (
	"time"

	dtlsserver "github.com/plgd-dev/go-coap/v3/dtls/server"
	"github.com/plgd-dev/go-coap/v3/message"
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

// serverIdle is how long a server keeps a silent connection. go-coap's default
// of 16 s would lose the observations of a sleeping device.
const serverIdle = 24 * time.Hour

// bundle is what every connection needs, whatever its transport and side.
type bundle struct {
	mux       options.MuxHandlerOpt
	blockwise options.BlockwiseOpt
}

func (e *Endpoint) bundle(h mux.Handler) bundle {
	return bundle{
		options.WithMux(e.Handler(h)),
		// Inner block-wise is this package's; go-coap's own would cut protected
		// messages again, and loses blocks above OSCORE.
		options.WithBlockwise(false, blockwise.SZX1024, 3*time.Second),
	}
}

// UDPServer returns the options of a UDP server whose protected requests are
// handled by h:
//
//	server := udp.NewServer(ep.UDPServer(router)...)
//
// Options of the program's own may be appended, but not another handler,
// request monitor, received-message function or block-wise setting.
func (e *Endpoint) UDPServer(h mux.Handler) []udpserver.Option {
	b := e.bundle(h)
	return []udpserver.Option{
		b.mux, b.blockwise, e.udpProcess(), e.udpMonitor(h),
		options.WithInactivityMonitor(serverIdle, func(c *udpclient.Conn) { _ = c.Close() }),
	}
}

// DTLSServer is [Endpoint.UDPServer] for a DTLS server.
func (e *Endpoint) DTLSServer(h mux.Handler) []dtlsserver.Option {
	b := e.bundle(h)
	return []dtlsserver.Option{
		b.mux, b.blockwise, e.udpProcess(), e.udpMonitor(h),
		options.WithInactivityMonitor(serverIdle, func(c *udpclient.Conn) { _ = c.Close() }),
	}
}

// TCPServer is [Endpoint.UDPServer] for a TCP or TLS server.
func (e *Endpoint) TCPServer(h mux.Handler) []tcpserver.Option {
	b := e.bundle(h)
	return []tcpserver.Option{
		b.mux, b.blockwise, e.tcpProcess(h),
		options.WithInactivityMonitor(serverIdle, func(c *tcpclient.Conn) { _ = c.Close() }),
	}
}

// UDPClient returns the options of a UDP or DTLS connection; h handles the
// requests that the peer sends over it (both sides of LwM2M do), nil has none:
//
//	conn, err := udp.Dial(addr, ep.UDPClient(objects)...)
func (e *Endpoint) UDPClient(h mux.Handler) []udp.Option {
	b := e.bundle(h)
	return []udp.Option{b.mux, b.blockwise, e.udpProcess(), e.udpMonitor(h)}
}

// TCPClient is [Endpoint.UDPClient] for a TCP or TLS connection.
func (e *Endpoint) TCPClient(h mux.Handler) []tcp.Option {
	b := e.bundle(h)
	return []tcp.Option{b.mux, b.blockwise, e.tcpProcess(h)}
}

// udpMonitor sees every datagram before go-coap does, which would take it for
// a duplicate of any other with its message ID, a forged one included.
func (e *Endpoint) udpMonitor(h mux.Handler) options.WithRequestMonitorOpt[udpclient.RequestMonitorFunc] {
	return options.WithRequestMonitor[udpclient.RequestMonitorFunc](func(cc *udpclient.Conn, m *pool.Message) (drop bool, err error) {
		l := e.link(cc, true)
		l.arrivedAt(m.ControlMessage())
		if drop = l.inspect(h, m); drop {
			cc.InactivityMonitor().Notify()
		}
		return drop, nil
	})
}

// udpProcess takes the verified piggybacked responses that go-coap has seen, to
// end the retransmission of their requests.
func (e *Endpoint) udpProcess() options.ProcessReceivedMessageOpt[*udpclient.Conn] {
	return options.WithProcessReceivedMessageFunc(func(m *pool.Message, cc *udpclient.Conn, next config.HandlerFunc[*udpclient.Conn]) {
		if m.Type() == message.Acknowledgement && m.HasOption(optionOSCORE) {
			cc.ReleaseMessage(m)
			return
		}
		cc.ProcessReceivedMessageWithHandler(m, next)
	})
}

// tcpMonitor hooks in for streams, where go-coap ignores the received-message
// function, and has no option that sets a client's request monitor.
type tcpMonitor tcpclient.RequestMonitorFunc

func (f tcpMonitor) TCPServerApply(cfg *tcpserver.Config) {
	cfg.RequestMonitor = tcpclient.RequestMonitorFunc(f)
}

func (f tcpMonitor) TCPClientApply(cfg *tcpclient.Config) {
	cfg.RequestMonitor = tcpclient.RequestMonitorFunc(f)
}

func (e *Endpoint) tcpProcess(h mux.Handler) tcpMonitor {
	return func(cc *tcpclient.Conn, m *pool.Message) (drop bool, err error) {
		return e.link(cc, false).receive(h, m), nil
	}
}
