package oscore

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// needsSplit reports whether a Proxy-Uri has a path or a query that must
// travel inside.
func needsSplit(uri []byte) bool {
	_, rest, ok := strings.Cut(string(uri), "://")
	return !ok || strings.ContainsAny(rest, "/?#@")
}

// splitProxyURI moves path and query of a Proxy-Uri into Uri-Path and
// Uri-Query, which travel inside, and leaves scheme, host and port (§4.1.3.3,
// RFC 7252 §6.4).
func splitProxyURI(body []byte) ([]byte, error) {
	opts, payload, err := coap.Split(body)
	if err != nil {
		return nil, err
	}
	raw, _ := opts.Get(coap.ProxyURI)
	u, err := url.Parse(string(raw))
	if err != nil || u.Scheme == "" || u.Host == "" || u.Fragment != "" || u.User != nil || u.Opaque != "" {
		return nil, fmt.Errorf("oscore: Proxy-Uri is no absolute CoAP URI: %w", coap.ErrFormat)
	}
	// RFC 7252 §5.10.2: Proxy-Uri takes precedence over the Uri-* options.
	opts = opts.Without(coap.ProxyURI, coap.URIHost, coap.URIPort, coap.URIPath, coap.URIQuery)
	opts = opts.Add(coap.ProxyURI, []byte(strings.ToLower(u.Scheme)+"://"+u.Host))
	if path := strings.TrimPrefix(u.EscapedPath(), "/"); path != "" {
		if opts, err = addUnescaped(opts, coap.URIPath, path, "/", url.PathUnescape); err != nil {
			return nil, err
		}
	}
	if u.RawQuery != "" {
		if opts, err = addUnescaped(opts, coap.URIQuery, u.RawQuery, "&", url.PathUnescape); err != nil {
			return nil, err
		}
	}
	return coap.AppendBody(nil, opts, payload), nil
}

// addUnescaped adds one option a part of s.
func addUnescaped(opts coap.Options, number uint16, s, separator string, unescape func(string) (string, error)) (coap.Options, error) {
	for part := range strings.SplitSeq(s, separator) {
		text, err := unescape(part)
		if err != nil || len(text) > 255 {
			return nil, fmt.Errorf("oscore: Proxy-Uri has a part that fits no option: %w", coap.ErrFormat)
		}
		opts = opts.Add(number, []byte(text))
	}
	return opts, nil
}
