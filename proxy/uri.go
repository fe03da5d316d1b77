package proxy

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// coapPort is the default port of coap URIs (RFC 7252 §6.1).
const coapPort = 5683

// target is where a request goes. Addr is valid if the host is an address.
type target struct {
	host string
	addr netip.Addr
	port uint16

	block int // the largest payload that it takes; 0: any
}

func newTarget(host string, port uint16) target {
	t := target{host: host, port: port}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		t.addr = a.Unmap()
	}
	return t
}

// parseTarget reads "host:port".
func parseTarget(s string) (target, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return target{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return target{}, &net.AddrError{Err: "want host:port", Addr: s}
	}
	return newTarget(host, uint16(n)), nil
}

// decompose divides a Proxy-Uri into its target and the options that stand for
// it at the server (RFC 7252 §6.4, §5.7.2).
func decompose(value string) (target, coap.Options, *refusal) {
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return target{}, nil, refuse(coap.BadRequest, "Proxy-Uri is not an absolute URI")
	}
	if !strings.EqualFold(u.Scheme, "coap") {
		return target{}, nil, refuse(coap.ProxyingNotSupported, "scheme is not supported: coap is")
	}
	if u.User != nil || u.Fragment != "" || strings.HasSuffix(value, "#") {
		return target{}, nil, refuse(coap.BadRequest, "Proxy-Uri has user information or a fragment")
	}
	port := uint64(coapPort)
	if p := u.Port(); p != "" {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil || port == 0 {
			return target{}, nil, refuse(coap.BadRequest, "Proxy-Uri has a malformed port")
		}
	}
	t := newTarget(strings.ToLower(u.Hostname()), uint16(port))
	if t.host == "" {
		return target{}, nil, refuse(coap.BadRequest, "Proxy-Uri has no host")
	}
	var opts coap.Options
	if !t.addr.IsValid() { // a literal is the default value of Uri-Host
		opts = opts.Add(coap.URIHost, []byte(t.host))
	}
	if opts, err = addEscaped(opts, coap.URIPath, strings.TrimPrefix(u.EscapedPath(), "/"), "/", url.PathUnescape); err == nil {
		opts, err = addEscaped(opts, coap.URIQuery, u.RawQuery, "&", url.PathUnescape)
	}
	if err != nil {
		return target{}, nil, refuse(coap.BadRequest, "Proxy-Uri has a malformed or too long path or query")
	}
	return t, opts, nil
}

// addEscaped adds an option for each part, percent-decoded.
func addEscaped(opts coap.Options, number uint16, s, separator string, decode func(string) (string, error)) (coap.Options, error) {
	if s == "" {
		return opts, nil
	}
	for part := range strings.SplitSeq(s, separator) {
		v, err := decode(part)
		if err != nil {
			return nil, err
		}
		if len(v) > 255 {
			return nil, coap.ErrPath
		}
		opts = opts.Add(number, []byte(v))
	}
	return opts, nil
}
