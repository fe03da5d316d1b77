package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	"github.com/plgd-dev/go-coap/v3/options"
)

// requestCommand returns the command that sends one sealed request.
func requestCommand(method codes.Code) func(context.Context, stdio, []string) error {
	return func(ctx context.Context, io stdio, args []string) error {
		return request(ctx, io, method, false, args)
	}
}

// observe is the command that follows a resource.
func observe(ctx context.Context, io stdio, args []string) error {
	return request(ctx, io, codes.GET, true, args)
}

// requestFlags are the flags of the commands that send requests.
type requestFlags struct {
	store    storeFlags
	peer     string
	timeout  time.Duration
	json     bool
	raw      bool
	output   string
	non      bool
	rederive bool
	data     string
	format   string
	accept   string
	options  []message.Option
	count    int
	duration time.Duration
	verbose  bool

	taint error // why the peer's keys may not seal, nil if they may
}

// registerEnds registers the flags that say who talks to whom.
func (r *requestFlags) registerEnds(f *flag.FlagSet) {
	r.store.register(f)
	f.StringVar(&r.peer, "peer", "", "`NAME` of the peer in the key directory (default: the only one)")
}

func (r *requestFlags) register(f *flag.FlagSet, method codes.Code, observes bool) {
	r.registerEnds(f)
	f.DurationVar(&r.timeout, "timeout", 20*time.Second, "give up after this long")
	f.BoolVar(&r.json, "json", false, "print JSON")
	f.BoolVar(&r.raw, "raw", false, "print the payload's bytes as they are")
	f.StringVar(&r.output, "output", "", "write the payload to `FILE`")
	f.BoolVar(&r.non, "non", false, "send non-confirmable messages")
	f.BoolVar(&r.rederive, "rederive", false, "derive a new context first (RFC 8613 Appendix B.2)")
	f.BoolVar(&r.verbose, "verbose", false, "say what happens on the way: challenges, refusals, unprotected answers")
	f.StringVar(&r.accept, "accept", "", "ask for a Content-Format, `NAME` or number")
	f.Func("option", "add an option, `NUMBER=HEX` or NUMBER=text:…; may be repeated", r.addOption)
	if method == codes.PUT || method == codes.POST || method == codes.FETCH {
		f.StringVar(&r.data, "data", "", "payload: text, `@FILE`, or - for standard input")
		f.StringVar(&r.format, "format", "text", "Content-Format of the payload, `NAME` or number")
	}
	if observes {
		f.IntVar(&r.count, "count", 0, "end after this many notifications; 0 is no limit")
		f.DurationVar(&r.duration, "for", 0, "end after this long; 0 is no limit")
	}
}

func (r *requestFlags) addOption(s string) error {
	number, value, ok := strings.Cut(s, "=")
	n, err := strconv.ParseUint(number, 10, 16)
	if !ok || err != nil {
		return errors.New("an option is NUMBER=HEX or NUMBER=text:…")
	}
	b, isText := strings.CutPrefix(value, "text:")
	raw := []byte(b)
	if !isText {
		if raw, err = hex.DecodeString(value); err != nil {
			return fmt.Errorf("option %d: %q is no hex; for text write text:%s", n, value, value)
		}
	}
	r.options = append(r.options, message.Option{ID: message.OptionID(n), Value: raw})
	return nil
}

// formats are the Content-Formats that have a name here.
var formats = map[string]message.MediaType{
	"text": message.TextPlain, "link": message.AppLinkFormat, "octets": message.AppOctets, "json": message.AppJSON,
	"cbor": message.AppCBOR, "senml+json": message.AppSenmlJSON, "senml+cbor": message.AppSenmlCbor,
	"tlv": message.AppLwm2mTLV, "lwm2m+json": message.AppLwm2mJSON, "lwm2m+cbor": message.MediaType(11544),
}

func parseFormat(flagName, s string) (message.MediaType, error) {
	if f, ok := formats[s]; ok {
		return f, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, usagef("--%s: unknown format %q; known are text, link, octets, json, cbor, senml+json, senml+cbor, tlv, lwm2m+json, lwm2m+cbor and numbers", flagName, s)
	}
	return message.MediaType(n), nil
}

// target is where a request goes.
type target struct {
	tcp     bool
	address string
	path    string
	query   []string
}

// parseTarget reads a coap:// or coap+tcp:// URI (RFC 7252 §6.1, RFC 8323 §8.1).
func parseTarget(s string) (target, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return target{}, usagef("%q is no URI such as coap://192.0.2.1/3/0/0", s)
	}
	t := target{path: u.EscapedPath()}
	switch u.Scheme {
	case "coap":
	case "coap+tcp":
		t.tcp = true
	default:
		return target{}, usagef("scheme %q: this command speaks coap:// and coap+tcp://", u.Scheme)
	}
	port := u.Port()
	if port == "" {
		port = "5683"
	}
	t.address = net.JoinHostPort(u.Hostname(), port)
	if t.path, err = url.PathUnescape(t.path); err != nil {
		return target{}, usagef("%q: %v", s, err)
	}
	if u.RawQuery != "" {
		for _, q := range strings.Split(u.RawQuery, "&") {
			if q, err = url.PathUnescape(q); err != nil {
				return target{}, usagef("%q: %v", s, err)
			}
			t.query = append(t.query, q)
		}
	}
	return t, nil
}

func (r *requestFlags) payload(in io.Reader) ([]byte, error) {
	switch {
	case r.data == "-":
		return io.ReadAll(in)
	case strings.HasPrefix(r.data, "@"):
		return os.ReadFile(r.data[1:])
	}
	return []byte(r.data), nil
}

func request(ctx context.Context, io stdio, method codes.Code, observes bool, args []string) (err error) {
	name := strings.ToLower(method.String())
	if observes {
		name = "observe"
	}
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.err)
	var r requestFlags
	r.register(f, method, observes)
	f.Usage = func() {
		fmt.Fprintf(io.err, "Usage: oscore %s [flags] coap://HOST[:PORT]/PATH\n\nSends a sealed request and prints the verified answer.\n\n", name)
		f.PrintDefaults()
	}
	if err := parseFlags(f, args); err != nil {
		return err
	}
	to, err := oneTarget(f)
	if err != nil {
		return err
	}
	payload, err := r.payload(io.in)
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	cfg := gocoap.Config{MaxBody: 64 << 20, PlainErrorWait: 2 * time.Second} // a person waits
	if r.verbose {
		cfg.Event = func(e gocoap.Event) { fmt.Fprintf(io.err, "oscore: %s %v\n", e.Reason, e.Err) }
	}
	c, store, err := r.connect(ctx, io, to, cfg, nil)
	if err != nil {
		return err
	}
	defer func() {
		_ = c.Close() // what it was for is done, or has its own error
		err = errors.Join(err, store.Close())
	}()
	peer := c.PeerName()
	if p, ok := store.ring.Get(peer); ok {
		r.taint = p.Taint()
	}
	interrupted := ctx
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	req, err := r.build(ctx, c, method, to, payload)
	if err != nil {
		return err
	}
	if observes {
		return r.follow(interrupted, io, c, req)
	}
	bar := newProgress(io.err, r.json)
	opts := []gocoap.RequestOption{gocoap.WithProgress(bar.update)}
	if r.rederive {
		opts = append(opts, gocoap.WithRederive())
	}
	resp, err := c.DoWith(req, opts...)
	bar.done()
	if err != nil {
		return r.explain(err, peer, to.address)
	}
	return r.print(io, resp)
}

// oneTarget reads the URI that is the only argument.
func oneTarget(f *flag.FlagSet) (target, error) {
	if f.NArg() != 1 {
		return target{}, usagef("one URI is needed, such as coap://192.0.2.1/3/0/0")
	}
	return parseTarget(f.Arg(0))
}

// connect opens the key directory and connects, sealed, to the peer. The handler
// serves the requests of that one; nil serves none.
func (r *requestFlags) connect(ctx context.Context, io stdio, to target, cfg gocoap.Config, handler mux.Handler) (_ *gocoap.Client, _ *keyStore, err error) {
	store, err := r.store.open(ctx, io)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	peer, err := store.choose(r.peer)
	if err != nil {
		return nil, nil, err
	}
	cfg.Keyring = store.ring
	ep := gocoap.New(cfg)
	quiet := options.WithErrors(func(error) {}) // the request's own error says it
	var conn mux.Conn
	if to.tcp {
		conn, err = dialTCP(to.address, append(ep.TCPClient(handler), quiet)...)
	} else {
		conn, err = dialUDP(to.address, append(ep.UDPClient(handler), quiet)...)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", to.address, err)
	}
	return ep.Client(conn, peer), store, nil
}

func (r *requestFlags) build(ctx context.Context, c *gocoap.Client, method codes.Code, to target, payload []byte) (*pool.Message, error) {
	req := c.AcquireMessage(ctx)
	req.SetCode(method)
	req.SetType(message.Confirmable)
	if r.non {
		req.SetType(message.NonConfirmable)
	}
	if to.path != "" && to.path != "/" {
		if err := req.SetPath(to.path); err != nil {
			return nil, usagef("path %q: %v", to.path, err)
		}
	}
	for _, q := range to.query {
		req.AddQuery(q)
	}
	if len(payload) > 0 {
		format, err := parseFormat("format", r.format)
		if err != nil {
			return nil, err
		}
		req.SetContentFormat(format)
		req.SetBody(bytes.NewReader(payload))
	}
	if r.accept != "" {
		format, err := parseFormat("accept", r.accept)
		if err != nil {
			return nil, err
		}
		req.SetAccept(format)
	}
	for _, o := range r.options {
		req.AddOptionBytes(o.ID, o.Value)
	}
	return req, nil
}

// follow prints notifications until one of the limits is reached.
func (r *requestFlags) follow(interrupted context.Context, io stdio, c *gocoap.Client, req *pool.Message) error {
	req.SetObserve(0)
	end := make(chan error, 1)
	finish := func(err error) {
		select {
		case end <- err:
		default:
		}
	}
	n := 0
	o, err := c.DoObserve(req, func(m *pool.Message) {
		if r.count > 0 && n >= r.count {
			return
		}
		n++
		if err := r.print(io, m); err != nil {
			finish(err)
			return
		}
		if _, err := m.Observe(); err != nil || n == r.count {
			finish(nil)
		}
	})
	if err != nil {
		return r.explain(err, c.PeerName(), c.RemoteAddr().String())
	}
	var limit <-chan time.Time
	if r.duration > 0 {
		timer := time.NewTimer(r.duration)
		defer timer.Stop()
		limit = timer.C
	}
	select {
	case err = <-end:
	case <-limit:
	case <-c.Done():
		err = gocoap.ErrClosed
	case <-interrupted.Done():
	}
	cancelCtx, cancel := context.WithTimeout(context.WithoutCancel(interrupted), r.timeout)
	defer cancel()
	if cerr := o.Cancel(cancelCtx); cerr != nil && err == nil {
		fmt.Fprintf(io.err, "oscore: the cancellation was not answered: %v\n", cerr)
	}
	return err
}

// explain says what an error means for a person and what to do next.
func (r *requestFlags) explain(err error, peer, address string) error {
	var plain *gocoap.PlainError
	switch {
	case errors.As(err, &plain):
		return fmt.Errorf("no protected answer came from %s; an unprotected one says %d.%02d %q, which nothing vouches for.\n"+
			"  If it is true, the keys for peer %q do not fit: 'oscore diagnose' finds the wrong field", address, plain.Code>>5, plain.Code&0x1f, plain.Diagnostic, peer)
	case errors.Is(err, gocoap.ErrTainted):
		why := "it is not known which sequence numbers they have used"
		if t := new(keys.TaintError); errors.As(r.taint, &t) {
			why = t.Reason
		}
		return fmt.Errorf("nothing was sent with the keys for %q: %s.\n"+
			"  Derive a new context with --rederive if the peer knows Appendix B.2, or make new keys with 'oscore keys new'", peer, why)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from %s in time (peer %q)", address, peer)
	}
	return err
}
