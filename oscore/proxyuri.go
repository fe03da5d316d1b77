package oscore

import (
	"fmt"
	"strings"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// errProxyURI wraps coap.ErrFormat: the caller's message is malformed.
func errProxyURI(why string) error {
	return fmt.Errorf("oscore: Proxy-Uri %s: %w", why, coap.ErrFormat)
}

// splitProxyURI moves path and query of a Proxy-Uri into Uri-Path and
// Uri-Query, which travel inside, and leaves scheme, host and port (§4.1.3.3,
// RFC 7252 §6.4). It refuses what it cannot divide with certainty, rather than
// let a part of it travel outside.
func splitProxyURI(body []byte) ([]byte, error) {
	opts, payload, err := coap.Split(body)
	if err != nil {
		return nil, err
	}
	uri, _ := opts.Get(coap.ProxyURI)
	origin, path, query, err := divideURI(string(uri))
	if err != nil {
		return nil, err
	}
	// RFC 7252 §5.10.2: Proxy-Uri takes precedence over the Uri-* options.
	opts = opts.Without(coap.ProxyURI, coap.URIHost, coap.URIPort, coap.URIPath, coap.URIQuery)
	opts = opts.Add(coap.ProxyURI, []byte(origin))
	if path = strings.TrimPrefix(path, "/"); path != "" {
		if opts, err = addUnescaped(opts, coap.URIPath, path, "/"); err != nil {
			return nil, err
		}
	}
	if query != "" {
		if opts, err = addUnescaped(opts, coap.URIQuery, query[1:], "&"); err != nil {
			return nil, err
		}
	}
	return coap.AppendBody(nil, opts, payload), nil
}

// divideURI divides an absolute URI (RFC 3986 §3) into scheme://authority,
// which it returns in lower case, path, and query with its question mark.
func divideURI(uri string) (origin, path, query string, err error) {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok || !validScheme(scheme) {
		return "", "", "", errProxyURI("is not an absolute URI")
	}
	if strings.IndexByte(rest, '#') >= 0 {
		return "", "", "", errProxyURI("has a fragment")
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority, rest := rest[:end], rest[end:]
	if at := strings.IndexByte(rest, '?'); at >= 0 {
		path, query = rest[:at], rest[at:]
	} else {
		path = rest
	}
	if authority == "" || authority[0] == ':' {
		return "", "", "", errProxyURI("has no host")
	}
	for _, c := range []byte(authority) {
		if !isAlnum(c) && strings.IndexByte("-._~%!$&'()*+,;=:[]", c) < 0 {
			// Userinfo ("@") would be a secret in the open; the rest is no URI.
			return "", "", "", errProxyURI("has a character in its host that is not allowed there")
		}
	}
	return strings.ToLower(scheme + "://" + authority), path, query, nil
}

func validScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || !isAlnum(c) && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// addUnescaped adds one option a part of s, percent-decoded (RFC 7252 §6.4).
func addUnescaped(opts coap.Options, number uint16, s, separator string) (coap.Options, error) {
	for part := range strings.SplitSeq(s, separator) {
		value, ok := unescape(part)
		if !ok {
			return nil, errProxyURI("has a malformed percent-encoding")
		}
		if len(value) > 255 {
			return nil, errProxyURI("has a path segment or query argument above 255 bytes")
		}
		opts = opts.Add(number, value)
	}
	return opts, nil
}

func unescape(s string) ([]byte, bool) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		if i+2 >= len(s) {
			return nil, false
		}
		hi, lo := unhex(s[i+1]), unhex(s[i+2])
		if hi|lo > 15 {
			return nil, false
		}
		out = append(out, hi<<4|lo)
		i += 2
	}
	return out, true
}

// unhex returns a hexadecimal digit's value, 255 for what is none.
func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 255
}
