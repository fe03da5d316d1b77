package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/edhoc"
	"github.com/oscorelay/oscorelay/keys/handshake"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
	"github.com/plgd-dev/go-coap/v3/options"
)

// edhocConnect is the verb that shakes hands and reads a resource.
func edhocConnect(ctx context.Context, io stdio, args []string) (err error) {
	f := flag.NewFlagSet("edhoc connect", flag.ContinueOnError)
	f.SetOutput(io.err)
	var p partyFlags
	var r requestFlags
	p.register(f)
	r.store.register(f)
	peer := f.String("peer", "", "`NAME` of the peer that is expected (default: the only one trusted)")
	combined := f.Bool("combined", false, "send message_3 with the request: two round trips in all (RFC 9668)")
	f.DurationVar(&r.timeout, "timeout", 20*time.Second, "give up after this long")
	f.BoolVar(&r.json, "json", false, "print JSON")
	f.BoolVar(&r.raw, "raw", false, "print the payload's bytes as they are")
	f.StringVar(&r.output, "output", "", "write the payload to `FILE`")
	f.Usage = func() {
		fmt.Fprint(io.err, "Usage: oscore edhoc connect [flags] --key FILE --trust FILE coap://HOST[:PORT]/PATH\n\n"+
			"Shakes hands with the server, reads the resource, sealed, and keeps the context in\nthe key directory as edhoc:NAME, for 'oscore get --peer edhoc:NAME' and the others.\n\n")
		f.PrintDefaults()
	}
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return usagef("one URI is needed, such as coap://192.0.2.1/3/0/0")
	}
	if *combined && (p.reverse || p.fourth) {
		return usagef("--combined goes with neither --reverse nor --message4 (RFC 9668)")
	}
	to, err := parseTarget(f.Arg(0))
	if err != nil {
		return err
	}
	cfg, trusted, names, err := p.edhocConfig(false)
	if err != nil {
		return err
	}
	if *peer == "" {
		if len(names) != 1 {
			if len(names) == 0 {
				return usagef("which peer is expected? name it with --peer: by its certificate with --roots, as it is to be remembered with --trust-on-first-use")
			}
			return usagef("which peer is expected? name one with --peer; trusted are %s", list(names))
		}
		*peer = names[0]
	}
	if p.roots == "" && p.firstUse == "" && !slices.Contains(names, *peer) {
		return usagef("--peer %q: no --trust has that name; trusted are %s", *peer, list(names))
	}
	store, err := r.store.open(ctx, io)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	service, err := handshake.New(handshake.Config{Ring: store.ring, EDHOC: cfg, Store: trusted})
	if err != nil {
		return err
	}
	hs, err := service.To(handshake.Peer{Name: *peer, Combined: *combined, Reverse: p.reverse, Message4: p.fourth})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	ep := gocoap.New(gocoap.Config{Keyring: store.ring, EDHOC: service, MaxBody: 64 << 20, PlainErrorWait: 2 * time.Second})
	quiet := options.WithErrors(func(error) {}) // the request's own error says it
	var conn mux.Conn
	if to.tcp {
		conn, err = dialTCP(to.address, append(ep.TCPClient(nil), quiet)...)
	} else {
		conn, err = dialUDP(to.address, append(ep.UDPClient(nil), quiet)...)
	}
	if err != nil {
		return fmt.Errorf("connect to %s: %w", to.address, err)
	}
	defer conn.Close()
	began := time.Now()
	c, err := ep.Handshake(ctx, conn, hs)
	if err != nil {
		return r.explainHandshake(err, *peer, to.address)
	}
	req, err := r.build(ctx, c, codes.GET, to, nil)
	if err != nil {
		return err
	}
	entry, err := hs.Entry()
	if err != nil {
		return err
	}
	defer clear(entry.Params.MasterSecret)
	resp, err := c.DoWith(req)
	if err != nil {
		return r.explainHandshake(err, *peer, to.address)
	}
	// A context is kept once the peer has proved to have it (RFC 9528 §5.4.2),
	// and the one before is forgotten once it is kept.
	if err := store.Put(ctx, true, entry); err != nil {
		return fmt.Errorf("the context cannot be kept: %w", err)
	}
	hs.Confirm()
	s := hs.Session()
	fmt.Fprintf(io.err, "handshake with %s: method %d, suite %d, %v; kept as %q in %s\n", s.Peer(), s.Method(), s.Suite(), time.Since(began).Round(time.Millisecond), entry.Name, store.Dir())
	return r.print(io, resp)
}

// explainHandshake says what a failed handshake means for a person.
func (r *requestFlags) explainHandshake(err error, peer, address string) error {
	var told *edhoc.PeerError
	var answer *handshake.AnswerError
	switch {
	case errors.As(err, &told) && told.Message.Code == edhoc.CodeUnknownCredential:
		return fmt.Errorf("%s does not know our credential: give it our .cred, or send it with --by-value.\n  (%w)", address, err)
	case errors.As(err, &told):
		return fmt.Errorf("%s ended the handshake (nothing protects what it says): %w", address, err)
	case errors.Is(err, edhoc.ErrChangedCredential):
		return fmt.Errorf("whoever answers at %s is not the %q of the first use: if it has a new key, and you have made sure of that,\n"+
			"  take the old one out of the file of --trust-on-first-use.\n  (%w)", address, peer, err)
	case errors.Is(err, edhoc.ErrUnknownCredential), errors.Is(err, edhoc.ErrUntrusted):
		return fmt.Errorf("whoever answers at %s is not %q as --trust or --roots knows it: get the server's .cred, or its root, by a safe way.\n  (%w)", address, peer, err)
	case errors.Is(err, edhoc.ErrAuthentication):
		return fmt.Errorf("whoever answers at %s cannot prove to be %q: another key, or somebody on the path.\n  (%w)", address, peer, err)
	case errors.Is(err, gocoap.ErrClosed):
		return fmt.Errorf("nobody answers at %s: is 'oscore edhoc serve' running there, with --listen on that port?", address)
	case errors.As(err, &answer):
		return fmt.Errorf("%s has no EDHOC resource at /.well-known/edhoc, or not for this flow: it says %v %s", address, answer.Code, answer.Code.Name())
	}
	return r.explain(err, peer, address)
}

// edhocServe is the verb that serves whoever shakes hands and is trusted.
func edhocServe(ctx context.Context, io stdio, args []string) (err error) {
	f := flag.NewFlagSet("edhoc serve", flag.ContinueOnError)
	f.SetOutput(io.err)
	var p partyFlags
	var store storeFlags
	p.register(f)
	store.register(f)
	listen := f.String("listen", "127.0.0.1:5683", "`ADDRESS:PORT` of the UDP and TCP sockets; port 0 takes a free one")
	asJSON := f.Bool("json", false, "print one JSON line for each request, handshake and refusal")
	offer := f.Bool("offer-message4", false, "send message_4 to clients that send message_3 alone, and take --combined from others")
	contexts := f.Int("contexts", 1024, "keep at most this many contexts; the oldest makes room")
	f.Usage = func() {
		fmt.Fprint(io.err, "Usage: oscore edhoc serve [flags] --key FILE --trust FILE\n\n"+
			"Serves the resources of 'oscore serve', sealed, and answers handshakes at\n/.well-known/edhoc. Contexts are kept in the key directory.\n\n")
		f.PrintDefaults()
	}
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if f.NArg() != 0 {
		return usagef("no further arguments: %q", f.Args())
	}
	cfg, trusted, _, err := p.edhocConfig(true)
	if err != nil {
		return err
	}
	ks, err := store.open(ctx, io)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ks.Close()) }()
	say := newSayer(io.out, *asJSON)
	service, err := handshake.New(handshake.Config{
		Ring: ks.ring, EDHOC: cfg, Store: trusted, Reverse: p.reverse, Message4: p.fourth, OfferMessage4: *offer, MaxContexts: *contexts,
		Established: func(e keys.Entry) error { return ks.PutSession(ctx, e) },
		Removed: func(peer string) {
			if err := ks.RemoveSession(peer); err != nil {
				say(serveLine{Event: "storage", Peer: peer, Error: err.Error()})
			}
		},
		Event: func(e handshake.Event) {
			l := serveLine{Event: e.Reason, Peer: e.Peer, Source: e.Source}
			if e.Err != nil {
				l.Error = e.Err.Error()
			}
			say(l)
		},
	})
	if err != nil {
		return err
	}
	for peer := range ks.ring.Peers() {
		if strings.HasPrefix(peer.Name(), handshake.Prefix) {
			service.Adopt(time.Now(), peer.Name())
		}
	}
	return serveDemo(ctx, io, ks, demoOptions{
		listen: *listen, json: *asJSON, links: service.Link(), config: gocoap.Config{EDHOC: service},
	})
}
