package gocoap_test

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/edhoc"
	"github.com/oscorelay/oscorelay/keys/handshake"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	"github.com/plgd-dev/go-coap/v3/tcp"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// shaker is a side of handshakes: its keyring is empty before them.
type shaker struct {
	*handshake.Service
	ep    *gocoap.Endpoint
	ring  *keys.Keyring
	store *edhoc.Store
	cred  *edhoc.Credential
}

func newShaker(t testing.TB, name string, kid byte, change func(*handshake.Config, *gocoap.Config)) *shaker {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &shaker{ring: keys.New(keys.NewMemory()), store: edhoc.NewStore(edhoc.StoreConfig{})}
	if s.cred, err = edhoc.NewCCS(edhoc.CCSParams{Subject: name, KID: []byte{kid}, Public: key.PublicKey()}); err != nil {
		t.Fatal(err)
	}
	hs := handshake.Config{Ring: s.ring, EDHOC: edhoc.Config{Identities: []edhoc.Identity{{Credential: s.cred, Exchanger: key}}}, Store: s.store}
	cfg := gocoap.Config{Keyring: s.ring, PlainErrorWait: 50 * time.Millisecond}
	if change != nil {
		change(&hs, &cfg)
	}
	if s.Service, err = handshake.New(hs); err != nil {
		t.Fatal(err)
	}
	cfg.EDHOC = s.Service
	s.ep = gocoap.New(cfg)
	return s
}

// shakers is a client and a server that trust each other.
func shakers(t testing.TB, change func(*handshake.Config, *gocoap.Config)) (client, server *shaker) {
	t.Helper()
	client, server = newShaker(t, "device", 0x11, nil), newShaker(t, "server", 0x0a, change)
	if err := errors.Join(client.store.Pin("server", server.cred), server.store.Pin("device", client.cred)); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// hello answers with the name of who asks.
func hello(calls *atomic.Int32) mux.Handler {
	return mux.HandlerFunc(func(w mux.ResponseWriter, r *mux.Message) {
		calls.Add(1)
		peer, _ := gocoap.Peer(r.Context())
		_ = w.SetResponse(codes.Content, message.TextPlain, text("hello "+peer))
	})
}

func (s *shaker) shake(t testing.TB, ctx context.Context, addr string, p handshake.Peer) (*gocoap.Client, error) {
	t.Helper()
	conn, err := udp.Dial(addr, s.ep.UDPClient(nil)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	hs, err := s.To(p)
	if err != nil {
		t.Fatal(err)
	}
	return s.ep.Handshake(ctx, conn, hs)
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestHandshake(t *testing.T) {
	proof.Checklist(t, "C-01", "C-06", "C-10")
	for _, transport := range []string{"udp", "tcp"} {
		for _, p := range []handshake.Peer{{}, {Combined: true}, {Reverse: true}, {Message4: true}, {Reverse: true, Message4: true}} {
			t.Run(fmt.Sprintf("%s combined %v reverse %v message_4 %v", transport, p.Combined, p.Reverse, p.Message4), func(t *testing.T) {
				client, server := shakers(t, func(h *handshake.Config, _ *gocoap.Config) { h.Reverse, h.Message4 = p.Reverse, p.Message4 })
				p.Name = "server"
				var calls atomic.Int32
				var conn mux.Conn
				var r *relay
				var err error
				if transport == "udp" {
					r = newRelay(t, serveUDP(t, server.ep, hello(&calls)))
					conn, err = udp.Dial(r.addr(), client.ep.UDPClient(nil)...)
				} else {
					conn, err = tcp.Dial(serveTCP(t, server.ep, hello(&calls)), client.ep.TCPClient(nil)...)
				}
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				hs, err := client.To(p)
				if err != nil {
					t.Fatal(err)
				}
				ctx := within(t)
				c, err := client.ep.Handshake(ctx, conn, hs)
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				for range 4 { // of which one carries message_3, if any does
					wg.Go(func() {
						resp, err := c.Get(ctx, "/hello")
						if err != nil {
							t.Error(err)
							return
						}
						if got := bodyOf(t, resp); got != "hello edhoc:device" {
							t.Errorf("%q", got)
						}
					})
				}
				wg.Wait()
				if calls.Load() != 4 || server.Sessions() != 0 || c.PeerName() != "edhoc:server" {
					t.Errorf("%d calls, %d sessions, %q", calls.Load(), server.Sessions(), c.PeerName())
				}
				if r == nil {
					return
				}
				with := r.find(func(d datagram) bool { return d.from == fromClient && d.Options.HasOption(21) })
				plain := r.find(func(d datagram) bool { return d.from == fromClient && !d.sealed() && !d.empty() })
				want := map[bool]int{true: 2, false: 1}[p.Combined]
				if p.Combined != (len(with) == 1) || p.Combined && len(with) > 1 || p.Combined && len(plain) != want-1 {
					t.Errorf("%d with the EDHOC option, %d plain", len(with), len(plain))
				}
				for _, d := range with {
					if v, err := d.Options.GetBytes(21); err != nil || len(v) != 0 || !d.sealed() {
						t.Errorf("option %x %v", v, err)
					}
				}
			})
		}
	}
}

// TestCombinedLost: when the answer to the combined request is lost, its
// retransmission is answered from memory, and the request runs once.
func TestCombinedLost(t *testing.T) {
	client, server := shakers(t, nil)
	var calls atomic.Int32
	r := newRelay(t, serveUDP(t, server.ep, hello(&calls)))
	var lost atomic.Int32
	r.set(func(d datagram) [][]byte {
		if isSealedResponse(d) && lost.Add(1) == 1 {
			return nil
		}
		return [][]byte{d.raw}
	})
	ctx := within(t)
	c, err := client.shake(t, ctx, r.addr(), handshake.Peer{Name: "server", Combined: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, "/hello"); err != nil {
		t.Fatal(err)
	}
	if calls.Load() != 1 || lost.Load() < 2 {
		t.Errorf("%d calls, %d responses", calls.Load(), lost.Load())
	}
}

// TestCombinedRefused changes the combined request on its way. Nothing of it
// reaches the handler, and only a message_3 that proved right leaves a context.
func TestCombinedRefused(t *testing.T) {
	proof.Checklist(t, "C-07", "C-08", "C-11")
	for _, c := range []struct {
		name    string
		change  func(t *testing.T, d datagram) message.Message
		code    codes.Code
		format  int // Content-Format of the answer; -1: none
		context bool
	}{
		{"message_3 broken", func(_ *testing.T, d datagram) message.Message {
			d.Payload = flip(d.Payload, 5)
			return d.Message
		}, codes.BadRequest, 64, false},
		{"ciphertext broken", func(_ *testing.T, d datagram) message.Message {
			d.Payload = flip(d.Payload, -1)
			return d.Message
		}, codes.BadRequest, -1, true},
		{"no OSCORE option", func(_ *testing.T, d datagram) message.Message {
			d.Options = d.Options.Remove(9)
			return d.Message
		}, codes.BadRequest, -1, false},
		{"EDHOC option twice", func(_ *testing.T, d datagram) message.Message {
			d.Options = d.Options.Add(message.Option{ID: 21})
			return d.Message
		}, codes.BadOption, -1, false},
		{"payload is no message_3", func(_ *testing.T, d datagram) message.Message {
			d.Payload = append([]byte{1}, d.Payload...)
			return d.Message
		}, codes.BadRequest, -1, false},
		{"message_3 alone", func(_ *testing.T, d datagram) message.Message {
			d.Payload = d.Payload[:1+int(d.Payload[0]&0x1f)]
			return d.Message
		}, codes.BadRequest, -1, false},
		{"another session's kid", func(t *testing.T, d datagram) message.Message {
			v, err := d.Options.GetBytes(9)
			if err != nil {
				t.Fatal(err)
			}
			d.Options = d.Options.Set(message.Option{ID: 9, Value: flip(v, -1)})
			return d.Message
		}, codes.BadRequest, 64, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := shakers(t, nil)
			var calls atomic.Int32
			r := newRelay(t, serveUDP(t, server.ep, hello(&calls)))
			r.set(func(d datagram) [][]byte {
				if isSealedRequest(d) {
					m := c.change(t, d)
					return [][]byte{build(t, m)}
				}
				return [][]byte{d.raw}
			})
			ctx := within(t)
			conn, err := client.shake(t, ctx, r.addr(), handshake.Peer{Name: "server", Combined: true})
			if err != nil {
				t.Fatal(err)
			}
			_, err = conn.Get(ctx, "/hello")
			if !errors.Is(err, gocoap.ErrHandshake) {
				t.Errorf("the request: %v", err)
			}
			var peer *edhoc.PeerError
			if errors.As(err, &peer) != (c.format == 64) {
				t.Errorf("an EDHOC error: %v", err)
			}
			if _, again := conn.Get(ctx, "/hello"); !errors.Is(again, gocoap.ErrHandshake) {
				t.Errorf("the next request: %v", again)
			}
			got := r.await(1, func(d datagram) bool { return d.from == fromServer && d.Code == c.code })[0]
			format := -1
			if f, err := got.Options.GetUint32(message.ContentFormat); err == nil {
				format = int(f)
			}
			if format != c.format || got.sealed() {
				t.Errorf("answer %v, Content-Format %d", got.Code, format)
			}
			if m, err := edhoc.ParseErrorMessage(got.Payload); c.format == 64 && (err != nil || m.Code != edhoc.CodeUnspecified) {
				t.Errorf("error message %+v, %v", m, err)
			}
			if calls.Load() != 0 || (server.ring.Len() == 1) != c.context || client.ring.Len() != 0 {
				t.Errorf("%d calls, %d and %d contexts", calls.Load(), client.ring.Len(), server.ring.Len())
			}
		})
	}
	t.Run("message_4 is required", func(t *testing.T) {
		client, server := shakers(t, func(h *handshake.Config, _ *gocoap.Config) { h.Message4 = true })
		var calls atomic.Int32
		ctx := within(t)
		conn, err := client.shake(t, ctx, serveUDP(t, server.ep, hello(&calls)), handshake.Peer{Name: "server", Combined: true})
		if err != nil {
			t.Fatal(err)
		}
		var peer *edhoc.PeerError
		if _, err := conn.Get(ctx, "/hello"); !errors.As(err, &peer) || peer.Message.Code != edhoc.CodeUnspecified {
			t.Errorf("%v", err)
		}
		if calls.Load() != 0 || server.ring.Len() != 0 || server.Sessions() != 0 {
			t.Errorf("%d calls, %d contexts, %d sessions", calls.Load(), server.ring.Len(), server.Sessions())
		}
	})
	t.Run("no EDHOC here", func(t *testing.T) {
		w := newWorld(t, setup{})
		w.relay.set(func(d datagram) [][]byte {
			if isSealedRequest(d) {
				d.Options = d.Options.Add(message.Option{ID: 21})
				return [][]byte{build(t, d.Message)}
			}
			return [][]byte{d.raw}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.client.Get(ctx, "/x"); err == nil {
			t.Error("answered")
		}
		if got := w.relay.await(1, func(d datagram) bool { return d.from == fromServer })[0]; got.Code != codes.BadOption || got.sealed() {
			t.Errorf("%v", got.Code)
		}
	})
}

// TestFlood: strangers send message_1 from many ports and addresses, as fast as
// they can. What they can cost is bounded, and a genuine handshake comes to its
// end meanwhile.
func TestFlood(t *testing.T) {
	const sessions, workers, queue = 32, 1, 16
	client, server := shakers(t, func(h *handshake.Config, _ *gocoap.Config) {
		h.MaxSessions, h.Workers, h.Queue, h.Rate, h.RateTotal = sessions, workers, queue, 50, 100
	})
	var calls atomic.Int32
	addr := serveUDP(t, server.ep, hello(&calls))
	attacker := newShaker(t, "attacker", 0x12, nil)
	if err := attacker.store.Pin("server", server.cred); err != nil {
		t.Fatal(err)
	}
	// One message_1 as the attacker's client makes it, sent again and again.
	r := newRelay(t, addr)
	attackerCtx, stop := context.WithCancel(t.Context())
	defer stop()
	first := make(chan datagram, 1)
	r.set(func(d datagram) [][]byte {
		select {
		case first <- d:
		default:
		}
		return nil
	})
	go func() { _, _ = attacker.shake(t, attackerCtx, r.addr(), handshake.Peer{Name: "server"}) }()
	message1 := <-first
	stop()
	to, err := net.ResolveUDPAddr("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	floodCtx, end := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	var sent, peak atomic.Int64
	for i := range 16 {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%4))}, to)
		if err != nil {
			t.Skipf("no second loopback address to flood from: %v", err)
		}
		flood.Go(func() {
			defer c.Close()
			m, b := message1.Message, make([]byte, 2048)
			for n := int32(0); floodCtx.Err() == nil; n++ {
				m.MessageID, m.Token = n&0xffff, message.Token{byte(i), byte(n >> 16), byte(n >> 8), byte(n)}
				if _, err := c.Write(build(t, m)); err == nil {
					sent.Add(1)
				}
				// The next follows the answer: the kernel's queue is not what is tested.
				_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				_, _ = c.Read(b)
				if n := int64(server.Sessions()); n > peak.Load() {
					peak.Store(n)
				}
			}
		})
	}
	for sent.Load() < 2000 {
		time.Sleep(time.Millisecond) // until the flood is under way
	}
	ctx := within(t)
	for range 3 {
		c, err := client.shake(t, ctx, addr, handshake.Peer{Name: "server", Combined: true})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Get(ctx, "/hello")
		if err != nil {
			t.Fatal(err)
		}
		if got := bodyOf(t, resp); got != "hello edhoc:device" {
			t.Errorf("%q", got)
		}
	}
	end()
	flood.Wait()
	stats := server.Stats()
	if peak.Load() > sessions || stats.PeakWorkers > workers || stats.PeakQueue > queue || server.ring.Len() != 1 {
		t.Errorf("%d sessions, %+v, %d contexts", peak.Load(), stats, server.ring.Len())
	}
	if stats.Messages > uint64(sent.Load()/4) {
		t.Errorf("%d of %d messages cost public-key operations", stats.Messages, sent.Load())
	}
	t.Logf("%d sent, %d processed, %d sessions at most", sent.Load(), stats.Messages, peak.Load())
}

// TestReplayedHandshake sends every datagram of a handshake again, from
// elsewhere and after its end: nothing comes of it.
func TestReplayedHandshake(t *testing.T) {
	for _, combined := range []bool{false, true} {
		client, server := shakers(t, nil)
		var calls atomic.Int32
		addr := serveUDP(t, server.ep, hello(&calls))
		r := newRelay(t, addr)
		ctx := within(t)
		c, err := client.shake(t, ctx, r.addr(), handshake.Peer{Name: "server", Combined: combined})
		if err != nil {
			t.Fatal(err)
		}
		var resp *pool.Message
		if resp, err = c.Get(ctx, "/hello"); err != nil || bodyOf(t, resp) != "hello edhoc:device" {
			t.Fatal(err)
		}
		before, _ := server.ring.Get("edhoc:device")
		s := stranger(t, addr)
		for _, d := range r.find(func(d datagram) bool { return d.from == fromClient && !d.empty() }) {
			got := ask(t, s, d.raw)
			if got.sealed() {
				t.Errorf("%v is answered %v", d.Message.String(), got.Message.String())
			}
		}
		if after, _ := server.ring.Get("edhoc:device"); after != before || calls.Load() != 1 || server.ring.Len() != 1 {
			t.Errorf("%d calls, %d contexts, changed %v", calls.Load(), server.ring.Len(), after != before)
		}
	}
}
