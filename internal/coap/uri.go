package coap

import (
	"errors"
	"strings"
)

// ErrPath is a path or query that cannot stand in options.
var ErrPath = errors.New("coap: path segment or query argument above 255 bytes")

// AddPath adds the Uri-Path options of an absolute path such as "/3/0/13"
// (RFC 7252 §6.4); "/" and "" add none. Segments are taken as they are, with no
// percent decoding.
func (o Options) AddPath(path string) (Options, error) {
	path = strings.TrimPrefix(path, "/")
	if path == "" {
		return o, nil
	}
	for segment := range strings.SplitSeq(path, "/") {
		if len(segment) > 255 {
			return nil, ErrPath
		}
		o = o.Add(URIPath, []byte(segment))
	}
	return o, nil
}

// AddQuery adds the Uri-Query options of a query such as "ep=a&lt=60".
func (o Options) AddQuery(query string) (Options, error) {
	if query == "" {
		return o, nil
	}
	for arg := range strings.SplitSeq(query, "&") {
		if len(arg) > 255 {
			return nil, ErrPath
		}
		o = o.Add(URIQuery, []byte(arg))
	}
	return o, nil
}

// Path returns the body's Uri-Path options as an absolute path.
func Path(body []byte) string {
	var room [64]byte
	return string(AppendPath(room[:0], body))
}

// AppendPath appends the path to dst.
func AppendPath(dst, body []byte) []byte {
	start := len(dst)
	w := Walk(body)
	for w.Next() && w.Number <= URIPath {
		if w.Number == URIPath {
			dst = append(append(dst, '/'), w.Value...)
		}
	}
	if len(dst) == start {
		dst = append(dst, '/')
	}
	return dst
}
