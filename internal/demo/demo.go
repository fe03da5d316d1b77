// Package demo is a CoAP server's worth of resources to try OSCORE on: those of
// the IETF OSCORE interoperability specification, and a few larger ones.
//
//	/oscore/hello/coap   GET   plain text, also without OSCORE
//	/oscore/hello/1      GET   plain text
//	/oscore/hello/2      GET   with ETag 2b when asked with ?first=1
//	/oscore/hello/3      GET   with Max-Age 5
//	/oscore/hello/6      POST  echoes
//	/oscore/hello/7      GET, PUT with If-Match and If-None-Match
//	/oscore/observe1     GET   observable: "one", then "two" …, one a second
//	/oscore/observe2     GET   observable, ends with an error
//	/oscore/test         DELETE
//	/large               GET, PUT 20 KB
//	/value               GET, PUT, observable: notifies when it is put
//	/counter             POST  counts how often it ran
//	/callback            POST  sends a GET for the path in the payload back to the client
//	/.well-known/core    GET   link format, with osc (RFC 8613 §9)
//
// Every request that reaches a handler is reported to the caller, so that a
// test can count what was acted on.
package demo

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
)

// LargeSize is the length of /large before anything is put there, in bytes.
const LargeSize = 20480

// Options vary a Server.
type Options struct {
	// Handled is called with every request that reaches a handler: its peer
	// ("" for a plain request) and Partial IV, method and path.
	Handled func(peer string, partialIV uint64, method codes.Code, path string, payload []byte)
	// Interval is the time between the notifications of the observe resources;
	// 0 means one second.
	Interval time.Duration
	// Links are added to /.well-known/core.
	Links string
}

// Server holds the resources. It is a mux.Handler, safe for concurrent use.
type Server struct {
	opts Options

	mu       sync.Mutex
	hello7   []byte
	large    []byte
	value    []byte
	counter  int
	watchers []watcher // of /value
}

// watcher is a client that observes /value.
type watcher struct {
	conn  mux.Conn
	token message.Token
}

// New returns a server.
func New(o Options) *Server {
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	return &Server{opts: o, hello7: []byte("Hello World!"), large: Large(), value: []byte("0")}
}

// Large returns what /large holds at first.
func Large() []byte {
	b := make([]byte, LargeSize)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// Links is the content of /.well-known/core.
const Links = `</oscore/hello/coap>,</oscore/hello/1>;osc,</oscore/hello/2>;osc,</oscore/hello/3>;osc,` +
	`</oscore/hello/6>;osc,</oscore/hello/7>;osc,</oscore/observe1>;osc;obs,</oscore/observe2>;osc;obs,` +
	`</oscore/test>;osc,</large>;osc;sz=20480,</value>;osc;obs,</counter>;osc,</callback>;osc`

func links(more string) string {
	if more == "" {
		return Links
	}
	return Links + "," + more
}

// PlainPath reports whether a path may be had without OSCORE.
func PlainPath(method codes.Code, path string) bool {
	return method == codes.GET && (path == "/oscore/hello/coap" || path == "/.well-known/core")
}

// answer is what a resource says.
type answer struct {
	code    codes.Code
	format  message.MediaType
	payload []byte
	options message.Options
}

func text(code codes.Code, s string) answer {
	return answer{code: code, format: message.TextPlain, payload: []byte(s)}
}

// ServeCOAP answers a request.
func (s *Server) ServeCOAP(w mux.ResponseWriter, r *mux.Message) {
	path, err := r.Path()
	if err != nil {
		path = "/"
	}
	body, err := r.ReadBody()
	if err != nil {
		_ = w.SetResponse(codes.BadRequest, message.TextPlain, nil)
		return
	}
	if s.opts.Handled != nil {
		peer, _ := gocoap.Peer(r.Context())
		piv, _ := gocoap.PartialIV(r.Context())
		s.opts.Handled(peer, piv, r.Code(), path, body)
	}
	a := s.answer(w, r, path, body)
	if a.code == 0 {
		return // answered through the connection
	}
	if len(a.payload) == 0 {
		_ = w.SetResponse(a.code, a.format, nil, a.options...) // no Content-Format either
		return
	}
	_ = w.SetResponse(a.code, a.format, bytes.NewReader(a.payload), a.options...)
}

func (s *Server) answer(w mux.ResponseWriter, r *mux.Message, path string, body []byte) answer {
	method := r.Code()
	switch path {
	case "/.well-known/core":
		return answer{code: codes.Content, format: message.AppLinkFormat, payload: []byte(links(s.opts.Links))}
	case "/oscore/hello/coap", "/oscore/hello/1":
		return only(method, codes.GET, func() answer { return text(codes.Content, "Hello World!") })
	case "/oscore/hello/2":
		return only(method, codes.GET, func() answer {
			a := text(codes.Content, "Hello World!")
			if q, err := r.Queries(); err == nil && slices.Contains(q, "first=1") {
				a.options = message.Options{{ID: message.ETag, Value: []byte{0x2b}}}
			}
			return a
		})
	case "/oscore/hello/3":
		return only(method, codes.GET, func() answer {
			a := text(codes.Content, "Hello World!")
			a.options = message.Options{{ID: message.MaxAge, Value: []byte{5}}}
			return a
		})
	case "/oscore/hello/6":
		return only(method, codes.POST, func() answer { return text(codes.Changed, string(body)) })
	case "/oscore/hello/7":
		return s.conditional(r, method, body)
	case "/oscore/observe1":
		return s.observe(w, r, []string{"one", "two", "three", "four", "five"}, false)
	case "/oscore/observe2":
		return s.observe(w, r, []string{"one", "two"}, true)
	case "/oscore/test":
		return only(method, codes.DELETE, func() answer { return answer{code: codes.Deleted} })
	case "/large":
		return s.stored(&s.large, method, body)
	case "/value":
		return s.watched(w, r, method, body)
	case "/callback":
		return only(method, codes.POST, func() answer { return callback(w, r, string(body)) })
	case "/counter":
		return only(method, codes.POST, func() answer {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.counter++
			return text(codes.Changed, fmt.Sprint(s.counter))
		})
	}
	return text(codes.NotFound, "")
}

func only(got, want codes.Code, f func() answer) answer {
	if got != want {
		return answer{code: codes.MethodNotAllowed}
	}
	return f()
}

// conditional is /oscore/hello/7: ETag 7b names the first representation.
func (s *Server) conditional(r *mux.Message, method codes.Code, body []byte) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch method {
	case codes.GET:
		a := answer{code: codes.Content, format: message.TextPlain, payload: slices.Clone(s.hello7)}
		a.options = message.Options{{ID: message.ETag, Value: []byte{0x7b}}}
		return a
	case codes.PUT:
		tag, err := r.GetOptionBytes(message.IfMatch)
		if err == nil && len(tag) > 0 && !bytes.Equal(tag, []byte{0x7b}) || r.HasOption(message.IfNoneMatch) {
			return answer{code: codes.PreconditionFailed}
		}
		s.hello7 = slices.Clone(body)
		return answer{code: codes.Changed}
	}
	return answer{code: codes.MethodNotAllowed}
}

// stored is a resource that is read and written whole.
func (s *Server) stored(to *[]byte, method codes.Code, body []byte) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch method {
	case codes.GET:
		return answer{code: codes.Content, format: message.AppOctets, payload: slices.Clone(*to)}
	case codes.PUT:
		*to = slices.Clone(body)
		return answer{code: codes.Changed}
	}
	return answer{code: codes.MethodNotAllowed}
}

// observe answers with one text after the other, and ends with an error if
// asked.
func (s *Server) observe(w mux.ResponseWriter, r *mux.Message, texts []string, fail bool) answer {
	if r.Code() != codes.GET {
		return answer{code: codes.MethodNotAllowed}
	}
	if v, err := r.Observe(); err != nil || v != 0 {
		return text(codes.Content, texts[0])
	}
	conn, token := w.Conn(), slices.Clone(r.Token())
	go func() {
		tick := time.NewTicker(s.opts.Interval)
		defer tick.Stop()
		for i := 1; ; i++ {
			select {
			case <-tick.C:
			case <-conn.Done():
				return
			}
			a := text(codes.Content, texts[min(i, len(texts)-1)])
			if fail && i >= len(texts) {
				a = text(codes.InternalServerError, "Terminate Observe")
			}
			if notify(conn, token, a) != nil || a.code != codes.Content {
				return // the observation is over
			}
		}
	}()
	a := text(codes.Content, texts[0])
	a.options = message.Options{{ID: message.Observe}}
	return a
}

// watched is /value: a put notifies who observes it.
func (s *Server) watched(w mux.ResponseWriter, r *mux.Message, method codes.Code, body []byte) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch method {
	case codes.GET:
		a := answer{code: codes.Content, format: message.TextPlain, payload: slices.Clone(s.value)}
		if v, err := r.Observe(); err == nil && v == 0 {
			s.watchers = append(s.watchers, watcher{w.Conn(), slices.Clone(r.Token())})
			a.options = message.Options{{ID: message.Observe}}
		}
		return a
	case codes.PUT:
		s.value = slices.Clone(body)
		a := answer{code: codes.Content, format: message.TextPlain, payload: s.value}
		s.watchers = slices.DeleteFunc(s.watchers, func(x watcher) bool { return notify(x.conn, x.token, a) != nil })
		return answer{code: codes.Changed}
	}
	return answer{code: codes.MethodNotAllowed}
}

// callback sends a request of the server's own, sealed for the client that
// asked, and answers with what the client says.
func callback(w mux.ResponseWriter, r *mux.Message, path string) answer {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	resp, err := w.Conn().Get(ctx, path)
	if err != nil {
		return text(codes.BadGateway, err.Error())
	}
	body, err := resp.ReadBody()
	if err != nil {
		return text(codes.BadGateway, err.Error())
	}
	return text(codes.Changed, string(body))
}

func notify(conn mux.Conn, token message.Token, a answer) error {
	m := conn.AcquireMessage(conn.Context())
	defer conn.ReleaseMessage(m)
	m.SetCode(a.code)
	m.SetToken(token)
	m.SetType(message.Confirmable)
	m.SetContentFormat(a.format)
	m.SetBody(bytes.NewReader(a.payload))
	return conn.WriteMessage(m)
}
