package ours

import (
	"bytes"
	"slices"
	"time"

	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
)

// notifyAfter is the time between two notifications, as with every peer; that
// of a large representation is longer, so that its blocks can be fetched.
const (
	notifyAfter      = 200 * time.Millisecond
	notifyLargeAfter = 2 * time.Second
)

var hello = []byte("Hello World!")

// reply is what a resource answers.
type reply struct {
	code    codes.Code
	format  message.MediaType
	payload []byte
	options message.Options
}

func text(code codes.Code, payload []byte, options ...message.Option) reply {
	return reply{code, message.TextPlain, payload, options}
}

// router serves the resources of the interop specification.
func (s *Server) router() mux.Handler {
	r := mux.NewRouter()
	handle := func(path string, method codes.Code, f func(*mux.Message) reply) {
		s.handle(r, path, func(w mux.ResponseWriter, m *mux.Message) {
			if m.Code() != method {
				_ = w.SetResponse(codes.MethodNotAllowed, message.TextPlain, nil)
				return
			}
			s.answer(w, f(m))
		})
	}
	handle("/oscore/hello/coap", codes.GET, func(*mux.Message) reply { return text(codes.Content, hello) })
	handle("/oscore/hello/1", codes.GET, func(*mux.Message) reply { return text(codes.Content, hello) })
	handle("/oscore/hello/2", codes.GET, func(m *mux.Message) reply {
		if q, err := m.Queries(); err != nil || !slices.Equal(q, []string{"first=1"}) {
			return text(codes.BadRequest, []byte("query first=1 expected"))
		}
		return text(codes.Content, hello, message.Option{ID: message.ETag, Value: []byte{0x2b}})
	})
	handle("/oscore/hello/3", codes.GET, func(m *mux.Message) reply {
		if a, err := m.Accept(); err != nil || a != message.TextPlain {
			return text(codes.BadRequest, []byte("Accept 0 expected"))
		}
		return text(codes.Content, hello, message.Option{ID: message.MaxAge, Value: []byte{5}})
	})
	handle("/oscore/hello/6", codes.POST, func(m *mux.Message) reply { return text(codes.Changed, s.body(m)) })
	handle("/oscore/hello/7", codes.PUT, func(m *mux.Message) reply {
		if m.HasOption(message.IfNoneMatch) {
			return reply{code: codes.PreconditionFailed}
		}
		if tag, err := m.Options().GetBytes(message.IfMatch); err != nil || !bytes.Equal(tag, []byte{0x7b}) {
			return text(codes.BadRequest, []byte("If-Match 7b expected"))
		}
		return reply{code: codes.Changed}
	})
	handle("/oscore/test", codes.DELETE, func(*mux.Message) reply { return reply{code: codes.Deleted} })
	s.observable(r, "/oscore/observe1", notifyAfter, []reply{
		text(codes.Content, []byte("one")), text(codes.Content, []byte("two")),
		text(codes.InternalServerError, []byte("Terminate Observe")),
	})
	s.observable(r, "/oscore/observe2", notifyAfter, []reply{text(codes.Content, []byte("one")), text(codes.Content, []byte("two"))})
	s.observable(r, "/oscore/observe-large", notifyLargeAfter, []reply{
		{code: codes.Content, format: message.AppOctets, payload: peer.Large()[:3000]},
		{code: codes.Content, format: message.AppOctets, payload: peer.Large()[1:4000]},
	})
	s.serveLarge(r)
	return r
}

func (s *Server) handle(r *mux.Router, path string, f mux.HandlerFunc) {
	err := r.Handle(path, mux.HandlerFunc(func(w mux.ResponseWriter, m *mux.Message) {
		s.mu.Lock()
		s.handled[path]++
		s.mu.Unlock()
		f(w, m)
	}))
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) answer(w mux.ResponseWriter, a reply) {
	if a.payload == nil {
		_ = w.SetResponse(a.code, a.format, nil, a.options...)
		return
	}
	_ = w.SetResponse(a.code, a.format, bytes.NewReader(a.payload), a.options...)
}

func (s *Server) body(m *mux.Message) []byte {
	b, err := m.ReadBody()
	if err != nil {
		s.t.Errorf("our server: body of a request: %v", err)
	}
	return b
}

// serveLarge serves 20 KB to GET, keeps what is PUT and gives back what is
// POSTed.
func (s *Server) serveLarge(r *mux.Router) {
	s.handle(r, "/oscore/large", func(w mux.ResponseWriter, m *mux.Message) {
		a := reply{code: codes.MethodNotAllowed}
		switch m.Code() {
		case codes.GET:
			s.mu.Lock()
			a = reply{code: codes.Content, format: message.AppOctets, payload: s.large}
			s.mu.Unlock()
		case codes.PUT:
			b := s.body(m)
			s.mu.Lock()
			s.large = b
			s.mu.Unlock()
			a = reply{code: codes.Changed}
		case codes.POST:
			a = reply{code: codes.Changed, format: message.AppOctets, payload: s.body(m)}
		}
		s.answer(w, a)
	})
}

// observable serves a resource whose representation changes by itself: each
// further reply is a notification.
func (s *Server) observable(r *mux.Router, path string, every time.Duration, states []reply) {
	s.handle(r, path, func(w mux.ResponseWriter, m *mux.Message) {
		first := states[0]
		observe, err := m.Observe()
		if err != nil || observe != 0 || m.Code() != codes.GET {
			s.answer(w, first)
			return
		}
		first.options = append(message.Options{{ID: message.Observe, Value: []byte{1}}}, first.options...)
		s.answer(w, first)
		conn, token := w.Conn(), append(message.Token{}, m.Token()...)
		go func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for i, state := range states[1:] {
				select {
				case <-tick.C:
				case <-conn.Context().Done():
					return
				}
				n := conn.AcquireMessage(conn.Context())
				n.SetCode(state.code)
				n.SetType(message.Confirmable)
				n.SetToken(token)
				if state.code == codes.Content {
					n.SetObserve(uint32(i + 2))
				}
				n.SetContentFormat(state.format)
				n.SetBody(bytes.NewReader(state.payload))
				err := conn.WriteMessage(n)
				conn.ReleaseMessage(n)
				if err != nil {
					return // the client has cancelled
				}
			}
		}()
	})
}
