package fetch

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// maxSZX is 1024 bytes, RFC 7959's largest block.
const maxSZX = 6

// DefaultPort is CoAP's (RFC 7252 §6.1).
const DefaultPort = "5683"

// target is where a source's requests go: what of the message stays the same.
type target struct {
	options coap.Options // Uri-Host, Uri-Path but for the last segment, Uri-Query
	file    string       // last segment
	image   string       // the image's, in outboard mode
}

// parseURI takes a coap URI apart (RFC 7252 §6.4).
func parseURI(raw string) (t target, hostport string, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return t, "", fmt.Errorf("%w: %w", ErrURI, err)
	}
	switch {
	case u.Scheme == "":
		return t, "", fmt.Errorf("%w: %q has no scheme; expected coap://host/path/<hash>.<u>.<p>.lwf", ErrURI, raw)
	case u.Scheme != "coap":
		return t, "", fmt.Errorf("%w: %q; use coap", ErrScheme, u.Scheme)
	case u.Hostname() == "":
		return t, "", fmt.Errorf("%w: %q has no host", ErrURI, raw)
	case u.Fragment != "" || u.User != nil:
		return t, "", fmt.Errorf("%w: %q: a coap URI has no fragment and no user", ErrURI, raw)
	}
	port := u.Port()
	if port == "" {
		port = DefaultPort
	}
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err != nil {
		t.options = t.options.Add(coap.URIHost, []byte(strings.ToLower(host)))
	}
	dir, file := "", strings.TrimPrefix(u.Path, "/")
	if i := strings.LastIndexByte(file, '/'); i >= 0 {
		dir, file = file[:i], file[i+1:]
	}
	if t.options, err = t.options.AddPath(dir); err == nil {
		t.options, err = t.options.AddQuery(u.RawQuery)
	}
	if err != nil || len(file) > 255 {
		return t, "", fmt.Errorf("%w: %q: a path segment or query argument is above 255 bytes", ErrURI, raw)
	}
	t.file = file
	return t, joinHostPort(host, port), nil
}

func joinHostPort(host, port string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + port
}

// body returns a GET's options (RFC 7959 §2.4).
func (t target) body(req Request) []byte {
	file := t.file
	if req.Image {
		file = t.image
	}
	opts := append(coap.Options{}, t.options...)
	opts = opts.Add(coap.URIPath, []byte(file))
	opts = opts.Add(coap.Block2, coap.Block{Num: req.Num, SZX: req.SZX}.Append(nil))
	if req.Tag != nil {
		opts = opts.Add(coap.RequestTag, req.Tag)
	}
	return coap.AppendBody(nil, opts, nil)
}

// parseAnswer reads a response. An unknown critical option makes it unusable
// (RFC 7252 §5.4.1); ok is then false.
func parseAnswer(code coap.Code, body []byte) (a Answer, ok bool) {
	a = Answer{Content: code == coap.Content, SZX: maxSZX}
	w := coap.Walk(body)
	for w.Next() {
		if w.Number == coap.Block2 {
			b, err := coap.ParseBlock(w.Value)
			if err != nil {
				return a, false
			}
			a.Offset, a.SZX = int64(b.Num)<<(b.SZX+4), b.SZX
		} else if _, known := coap.Define(w.Number); !known && coap.Critical(w.Number) || w.Number == coap.OSCORE {
			return a, false
		}
	}
	if w.Err() != nil {
		return a, false
	}
	a.Payload = w.Payload()
	return a, true
}
