package proxy

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// refusal is an error answer of the proxy itself.
type refusal struct {
	code coap.Code
	why  string // the diagnostic payload
	age  byte   // seconds until it may be asked again; 0: nothing is said of it
}

func refuse(code coap.Code, why string) *refusal { return &refusal{code: code, why: why} }

// reason is what the refusal counts as.
func (r *refusal) reason() reason {
	switch r.code {
	case coap.BadOption:
		return badOption
	case coap.Forbidden:
		return forbidden
	case coap.NotFound:
		return noRoute
	case coap.ProxyingNotSupported:
		return notProxying
	case coap.HopLimitReached:
		return loops
	case coap.ServiceUnavailable:
		return tableFull
	case coap.BadGateway:
		return unresolved
	}
	return badRequest
}

// wanted reports whether a client wants to hear it that named classes that it
// does not (RFC 7967 §2.1). That nothing came may be an answer of such a class.
func (r *refusal) wanted(unwanted uint8) bool {
	if r.code == coap.GatewayTimeout {
		return unwanted == 0
	}
	return unwanted&(1<<(r.code.Class()-1)) == 0
}

func (r *refusal) body() []byte {
	var opts coap.Options
	if r.age > 0 {
		opts = coap.Options{{Number: coap.MaxAge, Value: []byte{r.age}}}
	}
	return coap.AppendBody(nil, opts, []byte(r.why))
}

// plan is what becomes of a request.
type plan struct {
	body     []byte
	target   target
	open     bool   // the client chose the target: Forward.Allow applies
	observe  bool   // the request has an Observe option
	unwanted uint8  // No-Response (RFC 7967 §2.1): what the client does not want to hear of, a bit a class
	sealed   bool   // the request has an OSCORE option
	block1   bool   // it is a block already
	payload  int    // its length
	holder   string // who holds the key that it is sealed under, as kid and kid context name it, and which server it is for; empty: unknown
}

// rules is how requests are led: the part of a Config that looks at options.
type rules struct {
	forward  *Forward
	via      target
	routes   []Route
	to       []target   // of routes
	prefixes [][]string // of routes
	byKID    bool
	identity string
	hopLimit int
}

func newRules(cfg *Config) (rules, error) {
	r := rules{forward: cfg.Forward, routes: cfg.Routes, identity: cfg.Identity, hopLimit: cfg.HopLimit, byKID: cfg.ByKID}
	for _, route := range cfg.Routes {
		t, err := parseTarget(route.To)
		if err != nil {
			return r, configError("route to %q: %v", route.To, err)
		}
		if t.block = route.BlockSize; t.block != 0 && (t.block < 16 || t.block > 1024 || t.block&(t.block-1) != 0) {
			return r, configError("route to %q: block size %d is none of 16, 32, 64, 128, 256, 512, 1024", route.To, t.block)
		}
		var prefix []string
		if trimmed := strings.Trim(route.Prefix, "/"); trimmed != "" {
			prefix = strings.Split(trimmed, "/")
		}
		r.prefixes = append(r.prefixes, prefix)
		r.to = append(r.to, t)
	}
	if r.forward != nil && r.forward.Via != "" {
		var err error
		if r.via, err = parseTarget(r.forward.Via); err != nil {
			return r, configError("Forward.Via %q: %v", r.forward.Via, err)
		}
	}
	return r, nil
}

// plan reads a request's options, in the order of RFC 7252 §5.7: what the
// proxy may not pass, where the request goes, what goes on. back is the target
// of a request that came from a server toward its client, nil for any other.
// What goes on is appended to dst.
func (r *rules) plan(dst, body []byte, back *target) (plan, *refusal) {
	var p plan
	var proxyURI, proxyScheme, host, kid, kidContext []byte
	var path []string // if a route looks at it
	port, hop := uint32(coapPort), splice{hop: -1}
	w := coap.Walk(body)
	for before, at := uint16(0), 0; w.Next(); before, at = w.Number, len(body)-len(w.Rest()) {
		if bad := checkRequestOption(before, at > 0, w.Number, w.Value); bad != nil {
			return p, bad
		}
		hop.see(before, at, &w, body)
		switch w.Number {
		case coap.ProxyURI:
			proxyURI = w.Value
		case coap.ProxyScheme:
			proxyScheme = w.Value
		case coap.URIHost:
			host = w.Value
		case coap.URIPort:
			port, _ = coap.Uint(w.Value)
		case coap.HopLimit:
			if len(w.Value) != 1 || w.Value[0] == 0 {
				return p, refuse(coap.BadRequest, "Hop-Limit is not 1 to 255")
			}
		case coap.Observe:
			p.observe = true
		case coap.NoResponse:
			v, _ := coap.Uint(w.Value)
			p.unwanted = uint8(v) & 0x1a
		case coap.Block1:
			p.block1 = true
		case coap.URIPath:
			if len(r.prefixes) > 0 {
				path = append(path, string(w.Value))
			}
		case coap.OSCORE:
			// A server may look at the one or the other, and answer who is not
			// the one that this proxy takes it for.
			if p.sealed || len(w.Value) > 255 {
				return p, refuse(coap.BadOption, "option OSCORE stands twice or has a length out of range")
			}
			p.sealed = true
			kid, kidContext = sender(w.Value)
		}
	}
	p.payload = len(w.Payload())
	if hop.hop == 1 { // RFC 8768 §3
		return p, refuse(coap.HopLimitReached, r.identity)
	}
	p.body = hop.append(dst, body, r.hopLimit)

	asked := proxyURI != nil || proxyScheme != nil
	switch {
	case back != nil && asked, asked && r.forward == nil:
		return p, refuse(coap.ProxyingNotSupported, "no forward-proxy")
	case back != nil:
		p.target = *back
	case asked && r.via.port != 0:
		p.target = r.via
	case proxyURI != nil:
		// §5.10.2: Proxy-Uri takes precedence over the other Uri options.
		t, more, bad := decompose(string(proxyURI))
		if bad != nil {
			return p, bad
		}
		p.target, p.open = t, true
		p.body = replace(p.body, len(dst), more, coap.ProxyURI, coap.ProxyScheme, coap.URIHost, coap.URIPort, coap.URIPath, coap.URIQuery)
	case proxyScheme != nil:
		if !equalFold(proxyScheme, "coap") {
			return p, refuse(coap.ProxyingNotSupported, "scheme is not supported: coap is")
		}
		if host == nil {
			return p, refuse(coap.BadRequest, "Proxy-Scheme without Uri-Host")
		}
		if port == 0 || port > 65535 {
			return p, refuse(coap.BadRequest, "Uri-Port is not 1 to 65535")
		}
		p.target, p.open = newTarget(string(host), uint16(port)), true
		without := []uint16{coap.ProxyScheme, coap.URIPort}
		if p.target.addr.IsValid() {
			without = append(without, coap.URIHost)
		}
		p.body = omit(p.body, len(dst), without...)
	default:
		at := r.route(string(host), kid, kidContext, path)
		if at < 0 {
			return p, refuse(coap.NotFound, "no route")
		}
		p.target = r.to[at]
		if n := len(r.prefixes[at]); n > 0 {
			p.body = stripPath(p.body, len(dst), n)
		}
		if r.byKID && kid != nil {
			p.holder = holder(kid, kidContext, r.routes[at].To)
		}
	}
	return p, nil
}

// splice is where Hop-Limit stands in a body, or is to stand.
type splice struct {
	hop    int // its value, -1: there is none
	at     int // where the value stands, or the first option beyond it begins
	rest   int // where that option's value begins
	before uint16
	number uint16 // that option's; 0: none is beyond
	length int
}

// see looks at an option that begins at a place, after one of the number given.
func (s *splice) see(before uint16, at int, w *coap.Walker, body []byte) {
	switch {
	case w.Number == coap.HopLimit && s.hop < 0 && len(w.Value) == 1: // §5.4.5: a further one is ignored
		s.hop, s.at = int(w.Value[0]), len(body)-len(w.Rest())-1
	case w.Number > coap.HopLimit && s.number == 0 && s.hop < 0:
		s.at, s.before, s.number, s.length = at, before, w.Number, len(w.Value)
		s.rest = len(body) - len(w.Rest()) - len(w.Value)
	case s.number == 0 && s.hop < 0:
		s.at, s.before = len(body)-len(w.Rest()), w.Number
		s.rest = s.at
	}
}

// append appends the body with its Hop-Limit decremented, or put in (RFC 8768
// §3). initial is the value to put in, none below 1.
func (s *splice) append(dst, body []byte, initial int) []byte {
	start := len(dst)
	if s.hop > 0 || initial < 1 {
		dst = append(dst, body...)
		if s.hop > 0 {
			dst[start+s.at]--
		}
		return dst
	}
	dst = append(dst, body[:s.at]...)
	dst = coap.AppendOption(dst, s.before, coap.HopLimit, []byte{byte(initial)})
	if s.number != 0 {
		dst = coap.AppendOptionHeader(dst, coap.HopLimit, s.number, s.length)
	}
	return append(dst, body[s.rest:]...)
}

// replace takes options out of the body that begins at a place, and puts
// others in.
func replace(body []byte, from int, with coap.Options, without ...uint16) []byte {
	opts, payload, err := coap.Split(body[from:])
	if err != nil {
		panic("proxy: a body of our own is malformed")
	}
	return coap.AppendBody(bytes.Clone(body[:from]), append(opts.Without(without...), with...), payload)
}

// omit takes options out of the body that begins at a place, where it stands:
// an option that follows one left out needs no more bytes for the sum of their
// deltas than both had.
func omit(body []byte, from int, without ...uint16) []byte {
	w, kept, before := coap.Walk(body[from:]), body[:from], uint16(0)
	for w.Next() {
		if slices.Contains(without, w.Number) {
			continue
		}
		kept = coap.AppendOption(kept, before, w.Number, w.Value)
		before = w.Number
	}
	if w.Err() != nil {
		panic("proxy: a body of our own is malformed")
	}
	return coap.AppendPayload(kept, w.Payload())
}

// stripPath takes the first n segments off the path of the body that begins at
// a place.
func stripPath(body []byte, from, n int) []byte {
	opts, payload, err := coap.Split(body[from:])
	if err != nil {
		panic("proxy: a body of our own is malformed")
	}
	kept := slices.DeleteFunc(opts, func(o coap.Option) bool {
		if o.Number != coap.URIPath || n == 0 {
			return false
		}
		n--
		return true
	})
	return coap.AppendBody(bytes.Clone(body[:from]), kept, payload)
}

// holder names the holder of a key toward one server.
func holder(kid, kidContext []byte, to string) string {
	b := append(make([]byte, 0, 64), to...)
	b = append(b, 0, byte(len(kid)))
	b = append(b, kid...)
	if kidContext != nil { // an empty one is another than none
		b = append(append(b, 1), kidContext...)
	}
	return string(b)
}

func (r *rules) route(host string, kid, kidContext []byte, path []string) int {
	for i := range r.routes {
		prefix := r.prefixes[i]
		if len(path) >= len(prefix) && slices.Equal(prefix, path[:len(prefix)]) && r.routes[i].matches(host, kid, kidContext) {
			return i
		}
	}
	return -1
}

// understood are the Unsafe options of requests whose meaning this proxy knows
// and keeps.
func understood(number uint16) bool {
	switch number {
	case coap.URIHost, coap.Observe, coap.URIPort, coap.URIPath, coap.MaxAge, coap.URIQuery,
		coap.Block1, coap.Block2, coap.ProxyURI, coap.ProxyScheme, coap.NoResponse:
		return true
	}
	return false
}

// checkRequestOption refuses what RFC 7252 §5.7.1 tells a proxy to: an Unsafe
// option that it does not know, and, as §5.4.3 and §5.4.5 say, a critical one
// that it would act upon with a length out of range or a second time.
func checkRequestOption(before uint16, follows bool, number uint16, value []byte) *refusal {
	if !coap.Unsafe(number) {
		return nil
	}
	if !understood(number) {
		return refuse(coap.BadOption, "option "+coap.OptionName(number)+" is not supported and not safe to forward")
	}
	if !coap.Critical(number) {
		return nil
	}
	d, _ := coap.Define(number)
	if len(value) < d.Min || len(value) > d.Max {
		return refuse(coap.BadOption, "option "+d.Name+" has a length out of range")
	}
	if number == coap.URIHost && !utf8.Valid(value) {
		return refuse(coap.BadOption, "option Uri-Host is not text")
	}
	if follows && before == number && !d.Repeatable {
		return refuse(coap.BadOption, "option "+d.Name+" stands twice")
	}
	return nil
}

// checkResponse reads a response's options: it reports whether it has an
// Observe option, and false if it has an Unsafe one that is not known, which
// §5.7.1 answers with 5.02.
func checkResponse(body []byte) (observe, sealed, ok bool) {
	w := coap.Walk(body)
	for w.Next() {
		switch {
		case w.Number == coap.Observe:
			observe = true
		case w.Number == coap.OSCORE:
			sealed = true
		case coap.Unsafe(w.Number) && !understood(w.Number):
			return observe, sealed, false
		}
	}
	return observe, sealed, true
}

// nameInHopLimit puts this proxy's name before those in the diagnostic payload
// of a 5.08 (RFC 8768 §4).
func nameInHopLimit(body []byte, identity string) []byte {
	opts, payload, err := coap.Split(body)
	if err != nil {
		return body
	}
	names := []byte(identity)
	if len(payload) > 0 {
		names = append(append(names, ' '), payload...)
	}
	return coap.AppendBody(nil, opts, names)
}

func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c|0x20 != s[i] {
			return false
		}
	}
	return true
}
