package terminate

import (
	"bytes"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/keys/bolt"
	"github.com/oscorelay/oscorelay/oscore"
)

// registration is what a request of a device does at the registration interface
// of LwM2M (OMA-TS-LightweightM2M_Core §6.2).
type registration uint8

const (
	other registration = iota
	registers
	updates
	deregisters
)

const (
	registrationPath  = "/rd"
	bootstrapPath     = "/bs"
	bootstrapPackPath = "/bspack"
)

var registrations, doubleSlash = []byte(registrationPath + "/"), []byte("//")

// register binds a registration to the context that it came under, since the
// backend cannot: an endpoint name or a location that is not the device's own is
// refused with the code returned. A registration without a name gets the
// context's.
func (g *Gateway) register(u *uplink, m oscore.Message) (out oscore.Message, bad coap.Code) {
	var room [64]byte
	path := coap.AppendPath(room[:0], m.Body)
	if bytes.Contains(path, doubleSlash) || isDotted(string(path)) || isProxied(m.Body) {
		return m, coap.BadOption // another way to write a path that is bound, or past the backend
	}
	switch code := coap.Code(m.Code); {
	case string(path) == registrationPath && code == coap.POST, string(path) == bootstrapPath, string(path) == bootstrapPackPath:
		if string(path) == registrationPath {
			u.what = registers
		}
		name, has := endpointName(m.Body)
		switch {
		case !has:
			opts, payload, err := coap.Split(m.Body)
			if err != nil {
				return m, coap.BadRequest
			}
			opts = opts.Add(coap.URIQuery, []byte("ep="+u.dev.endpoint))
			m.Body = coap.AppendBody(nil, opts, payload)
		case name != u.dev.endpoint:
			g.trouble(time.Now(), u.dev, "it registers as "+printable(name)+", its context stands for "+printable(u.dev.endpoint))
			return m, coap.BadRequest
		}
	case bytes.HasPrefix(path, registrations):
		if string(path) != u.dev.location {
			return m, coap.NotFound // the device registers anew
		}
		u.path = u.dev.location
		switch code {
		case coap.POST:
			u.what = updates
		case coap.DELETE:
			u.what = deregisters
		}
	}
	return m, 0
}

// registered learns from the backend's answer where a registration stands, and
// reports whether that is being written to the store.
func (g *Gateway) registered(u *uplink, code coap.Code, body []byte) bool {
	d := u.dev
	var location string
	switch {
	case u.what == registers && code == coap.Created:
		location = locationOf(body)
	case u.path != d.location: // of an earlier registration
		return false
	case u.what == deregisters && code == coap.Deleted, u.what == updates && code == coap.NotFound:
	default:
		return false
	}
	if location == d.location {
		return false
	}
	d.location = location
	g.keepLocation(d)
	return true
}

func (g *Gateway) keepLocation(d *device) {
	if d.location == "" {
		g.forgetLocation(d.name)
		return
	}
	g.put(d, factLocation, d.locationFact())
}

func (g *Gateway) forgetLocation(name string) {
	g.db.add(func(tx *bolt.Tx) error { return tx.DeleteFact(name, g.fact(factLocation)) })
}

// endpointName returns the ep of a registration.
func endpointName(body []byte) (name string, has bool) {
	w := coap.Walk(body)
	for w.Next() {
		if w.Number != coap.URIQuery {
			continue
		}
		if v, ok := strings.CutPrefix(string(w.Value), "ep="); ok {
			if has {
				return "\x00", true // two names are nobody's
			}
			name, has = v, true
		} else if strings.Contains(string(w.Value), "&ep=") {
			return "\x00", true // a server that joins options would read a second one
		}
	}
	return name, has
}

// isDotted reports whether a path has a segment that RFC 7252 §5.10.1 forbids, and
// that a server may resolve.
func isDotted(path string) bool {
	return strings.Contains(path, "/.") && (strings.Contains(path+"/", "/./") || strings.Contains(path+"/", "/../"))
}

// isProxied reports whether a request asks to be forwarded (RFC 7252 §5.7.2):
// inside OSCORE that is not the backend's to do.
func isProxied(body []byte) bool {
	for w := coap.Walk(body); w.Next() && w.Number <= coap.ProxyScheme; {
		if w.Number == coap.ProxyURI || w.Number == coap.ProxyScheme {
			return true
		}
	}
	return false
}

// pathIs reports whether a body's path is that one.
func pathIs(body []byte, path string) bool {
	var room [64]byte
	return string(coap.AppendPath(room[:0], body)) == path
}

// locationOf returns the path in a response's Location-Path.
func locationOf(body []byte) string {
	var b strings.Builder
	w := coap.Walk(body)
	for w.Next() {
		if w.Number == coap.LocationPath {
			b.WriteByte('/')
			b.Write(w.Value)
		}
	}
	return b.String()
}

// printable returns a name that a device gave, for a log.
func printable(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
