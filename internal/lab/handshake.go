package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/mallory"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/edhoc"
	"github.com/oscorelay/oscorelay/keys/handshake"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// handshakes is EDHOC through the relay: two parties of this process, over UDP.
var handshakes = []struct {
	name string
	run  func(context.Context, *shakers) (string, error)
}{
	{"handshake", shake},
	{"handshake, bytes flipped", shakeFlipped},
	{"handshake, replayed", shakeReplayed},
	{"handshake, reflected", shakeReflected},
	{"handshake, two swapped", shakeSwapped},
}

// shakers are a client and a server that trust each other, and the relay.
type shakers struct {
	client, server *handshake.Service
	ep             *gocoap.Endpoint
	ring           *keys.Keyring // the server's
	relay          *mallory.Relay
	seen           int
	mu             sync.Mutex // what a script and its step share
	close          []func()
}

func newShaker(name string, kid byte) (edhoc.Identity, *edhoc.Store, error) {
	key, err := edhoc.GenerateKey(edhoc.P256)
	if err != nil {
		return edhoc.Identity{}, nil, err
	}
	cred, err := edhoc.NewCCS(edhoc.CCSParams{Subject: name, KID: []byte{kid}, Public: key.Public()})
	if err != nil {
		return edhoc.Identity{}, nil, err
	}
	exchanger, err := key.Exchanger()
	return edhoc.Identity{Credential: cred, Exchanger: exchanger}, edhoc.NewStore(edhoc.StoreConfig{}), err
}

func newShakers() (s *shakers, err error) {
	s = &shakers{ring: keys.New(keys.NewMemory())}
	defer func() {
		if err != nil {
			s.end()
		}
	}()
	device, deviceKnows, err := newShaker("device", 0x11)
	if err != nil {
		return s, err
	}
	server, serverKnows, err := newShaker("server", 0x0a)
	if err != nil {
		return s, err
	}
	if err := errors.Join(deviceKnows.Pin("server", server.Credential), serverKnows.Pin("device", device.Credential)); err != nil {
		return s, err
	}
	ring := keys.New(keys.NewMemory())
	if s.client, err = handshake.New(handshake.Config{Ring: ring, EDHOC: edhoc.Config{Identities: []edhoc.Identity{device}}, Store: deviceKnows}); err != nil {
		return s, err
	}
	s.server, err = handshake.New(handshake.Config{
		Ring: s.ring, EDHOC: edhoc.Config{Identities: []edhoc.Identity{server}}, Store: serverKnows, Message4: true, Rate: 10000, RateTotal: 10000,
	})
	if err != nil {
		return s, err
	}
	s.ep = gocoap.New(gocoap.Config{Keyring: ring})
	l, err := coapnet.NewListenUDP("udp4", "127.0.0.1:0")
	if err != nil {
		return s, err
	}
	quiet := options.WithErrors(func(error) {}) // connections that end
	u := udp.NewServer(append(gocoap.New(gocoap.Config{Keyring: s.ring, EDHOC: s.server}).UDPServer(nil), quiet)...)
	done := make(chan error, 1)
	go func() { done <- u.Serve(l) }()
	s.close = append(s.close, func() {
		u.Stop()
		<-done
		_ = l.Close() // closed already
	})
	if s.relay, err = mallory.New(l.LocalAddr().String()); err != nil {
		return s, err
	}
	s.close = append(s.close, func() { _ = s.relay.Close() })
	return s, nil
}

func (s *shakers) end() {
	for _, f := range s.close {
		f()
	}
}

// shake runs one handshake through the relay.
func (s *shakers) shake(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := udp.Dial(s.relay.Addr(), append(s.ep.UDPClient(nil), options.WithErrors(func(error) {}))...)
	if err != nil {
		return err
	}
	defer conn.Close()
	hs, err := s.client.To(handshake.Peer{Name: "server", Message4: true})
	if err != nil {
		return err
	}
	_, err = s.ep.Handshake(ctx, conn, hs)
	return err
}

// saw says what the relay saw since the step before.
func (s *shakers) saw() string {
	packets := s.relay.Capture()
	n := len(packets) - s.seen
	s.seen = len(packets)
	return fmt.Sprintf("%d, EDHOC", n)
}

// script edits the payload of every EDHOC message; n is its number, 1 to 4. The
// relay calls edit while it holds s.mu.
func (s *shakers) script(edit func(n int, payload []byte) []byte) {
	last := 0
	s.relay.SetScript(func(p mallory.Packet) [][]byte {
		s.mu.Lock()
		defer s.mu.Unlock()
		return [][]byte{mallory.Edit(p.Data, func(d *coap.Datagram, _ *coap.Options, payload *[]byte) {
			switch {
			case len(*payload) == 0:
				return
			case p.Direction == mallory.ToServer && (*payload)[0] == 0xf5:
				last = 1
			case p.Direction == mallory.ToServer:
				last = 3
			case d.Code != coap.Changed:
				return
			}
			n := last
			if p.Direction == mallory.ToClient {
				n++
			}
			*payload = edit(n, bytes.Clone(*payload))
		})}
	})
}

func shake(ctx context.Context, s *shakers) (string, error) {
	var lengths [5]int
	s.script(func(n int, payload []byte) []byte {
		lengths[n] = len(payload)
		return payload
	})
	if err := s.shake(ctx); err != nil {
		return "", err
	}
	if s.ring.Len() != 1 {
		return "", errors.New("the server has no context")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d+%d+%d+%d bytes", lengths[1], lengths[2], lengths[3], lengths[4]), nil
}

var errUnnoticed = errors.New("a handshake came to its end")

// shakeFlipped flips a bit of each byte of each message.
func shakeFlipped(ctx context.Context, s *shakers) (string, error) {
	before, _ := s.ring.Get("edhoc:device")
	flips := 0
	for message := 1; message <= 4; message++ {
		for i := 0; ; i++ {
			var reached bool // s.mu
			s.script(func(n int, payload []byte) []byte {
				if n == message && i < len(payload) {
					reached = true
					payload[i] ^= 1 << (i % 8)
				}
				return payload
			})
			err := s.shake(ctx)
			s.mu.Lock()
			flipped := reached
			s.mu.Unlock()
			if !flipped {
				break
			}
			flips++
			if err == nil {
				return "", fmt.Errorf("%w: message_%d, byte %d", errUnnoticed, message, i)
			}
			if after, _ := s.ring.Get("edhoc:device"); message < 4 && after != before {
				return "", fmt.Errorf("message_%d, byte %d: the server has another context", message, i)
			}
		}
		before, _ = s.ring.Get("edhoc:device")
	}
	return fmt.Sprintf("%d flips, none unnoticed", flips), nil
}

// shakeReplayed sends what the client sent again, under new message IDs.
func shakeReplayed(ctx context.Context, s *shakers) (string, error) {
	s.script(func(_ int, payload []byte) []byte { return payload })
	from := len(s.relay.Capture())
	if err := s.shake(ctx); err != nil {
		return "", err
	}
	before, _ := s.ring.Get("edhoc:device")
	n := 0
	for _, p := range s.relay.Capture()[from:] {
		if _, _, payload, ok := mallory.Parse(p.Data); !ok || p.Direction != mallory.ToServer || len(payload) == 0 {
			continue
		}
		answered := len(s.relay.Capture())
		if err := s.relay.Inject(mallory.ToServer, mallory.Edit(p.Data, func(d *coap.Datagram, _ *coap.Options, _ *[]byte) { d.MessageID += 1000 })); err != nil {
			return "", err
		}
		for deadline := time.Now().Add(5 * time.Second); len(s.relay.Capture()) < answered+2; {
			if time.Now().After(deadline) {
				return "", errors.New("a replay was not answered")
			}
			time.Sleep(time.Millisecond)
		}
		n++
	}
	if after, _ := s.ring.Get("edhoc:device"); after != before || s.ring.Len() != 1 {
		return "", errors.New("a replay changed the server's context")
	}
	return fmt.Sprintf("%d replays, no context", n), nil
}

// shakeReflected answers the client with its own messages.
func shakeReflected(ctx context.Context, s *shakers) (string, error) {
	for reflected := 2; reflected <= 4; reflected += 2 {
		var own []byte
		s.script(func(n int, payload []byte) []byte {
			if n == reflected-1 {
				own = payload[1:]
			}
			if n == reflected {
				return own
			}
			return payload
		})
		if s.shake(ctx) == nil {
			return "", fmt.Errorf("%w: the client took its own message_%d", errUnnoticed, reflected-1)
		}
	}
	return "own messages refused", nil
}

// shakeSwapped puts each message of one session into another.
func shakeSwapped(ctx context.Context, s *shakers) (string, error) {
	var first [5][]byte
	s.script(func(n int, payload []byte) []byte {
		first[n] = payload
		return payload
	})
	if err := s.shake(ctx); err != nil {
		return "", err
	}
	for message := 2; message <= 4; message++ {
		s.script(func(n int, payload []byte) []byte {
			switch {
			case n != message:
				return payload
			case n == 3: // behind this session's C_R
				return append(payload[:1], first[3][1:]...)
			}
			return first[n]
		})
		if s.shake(ctx) == nil {
			return "", fmt.Errorf("%w: with another session's message_%d", errUnnoticed, message)
		}
	}
	return "sessions told apart", nil
}

// runHandshakes runs them all.
func runHandshakes(r *run) error {
	s, err := newShakers()
	if err != nil {
		return err
	}
	defer s.end()
	for _, step := range handshakes {
		verdict, err := step.run(r.ctx, s)
		if err := r.row(PartHandshake, step.name, verdict, s.saw(), err); err != nil {
			return err
		}
	}
	return nil
}
