package terminate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/internal/freeport"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// In all tests of this package a released buffer holds what is no CoAP, instead
// of zeros: a message that still stood in one would come out as that.
func init() {
	release = func(b []byte) {
		for i := range b {
			b[i] = 0xa5
		}
	}
}

// talker is a device that speaks for itself, in as few steps as there are.
type talker struct {
	t    *testing.T
	name string
	ctx  *oscore.Context
	conn *net.UDPConn
	mid  uint16
	echo []byte

	downs int // requests that it has answered
}

func newTalker(t *testing.T, e keys.Entry, at netip.AddrPort) *talker {
	p := e.Params
	p.SenderID, p.RecipientID = p.RecipientID, p.SenderID
	ctx, err := oscore.New(p)
	if err != nil {
		t.Fatal(err)
	}
	ctx.Begin()
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &talker{t: t, name: e.Name, ctx: ctx, conn: conn}
}

func (d *talker) send(dg coap.Datagram) error {
	_, err := d.conn.Write(dg.Append(nil))
	return err
}

// ask sends a text of its own and returns the answer's; requests of the backend
// that come meanwhile are answered by what they say.
func (d *talker) ask(text []byte, con bool) ([]byte, error) {
	for range 3 { // with another Echo
		opts := coap.Options{{Number: coap.URIPath, Value: []byte("echo")}}
		if d.echo != nil {
			opts = opts.Add(coap.Echo, d.echo)
		}
		var pending oscore.Pending
		sealed, err := d.ctx.SealRequest(nil, &pending, oscore.Message{Code: byte(coap.POST), Body: coap.AppendBody(nil, opts, text)})
		if err != nil {
			return nil, err
		}
		d.mid++
		dg := coap.Datagram{Type: coap.NonConfirmable, Code: coap.Code(sealed.Code), MessageID: d.mid, Token: fmt.Appendf(nil, "%s%d", d.name[len(d.name)-2:], d.mid), Body: sealed.Body}
		if con {
			dg.Type = coap.Confirmable
		}
		if err := d.send(dg); err != nil {
			return nil, err
		}
		m, err := d.answer(&pending, dg.Token)
		if err != nil {
			return nil, err
		}
		got, payload, err := coap.Split(m.Body)
		if err != nil {
			return nil, err
		}
		if v, ok := got.Get(coap.Echo); ok {
			d.echo = bytes.Clone(v)
		}
		if coap.Code(m.Code) != coap.Unauthorized {
			return payload, nil
		}
	}
	return nil, fmt.Errorf("%s: asked for an Echo again and again", d.name)
}

func (d *talker) answer(pending *oscore.Pending, token []byte) (oscore.Message, error) {
	buf := make([]byte, 2048)
	for {
		if err := d.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return oscore.Message{}, err
		}
		n, err := d.conn.Read(buf)
		if err != nil {
			return oscore.Message{}, err
		}
		dg, err := coap.ParseDatagram(buf[:n])
		if err != nil {
			return oscore.Message{}, fmt.Errorf("%s: %w: % x", d.name, err, buf[:n])
		}
		in := oscore.Message{Code: byte(dg.Code), Body: dg.Body}
		switch {
		case dg.Code.IsRequest():
			if err := d.serve(dg, in); err != nil {
				return oscore.Message{}, err
			}
		case bytes.Equal(dg.Token, token):
			m, err := pending.Open(nil, in)
			if err != nil {
				return m, fmt.Errorf("%s: its answer: %w", d.name, err)
			}
			return m, nil
		}
	}
}

// serve answers a request of the backend by what it says.
func (d *talker) serve(dg coap.Datagram, in oscore.Message) error {
	var req oscore.Request
	m, err := d.ctx.OpenRequest(nil, &req, in)
	if err == oscore.ErrReplay {
		return nil // a retransmission; the answer is under way
	}
	if err != nil {
		return fmt.Errorf("%s: a request: %w", d.name, err)
	}
	_, payload, err := coap.Split(m.Body)
	if err != nil || !bytes.HasPrefix(payload, []byte(d.name+" ")) {
		return fmt.Errorf("%s got a request for another: %q", d.name, payload)
	}
	sealed, err := req.Seal(nil, oscore.Message{Code: byte(coap.Content), Body: coap.AppendPayload(nil, payload)})
	if err != nil {
		return err
	}
	d.downs++
	out := coap.Datagram{Type: coap.NonConfirmable, Code: coap.Code(sealed.Code), MessageID: dg.MessageID, Token: dg.Token, Body: sealed.Body}
	if dg.Type == coap.Confirmable {
		out.Type = coap.Acknowledgement
	}
	return d.send(out)
}

// mirror is a backend that answers each request by what it says, and asks its
// sender the same.
func mirror(t *testing.T, conn *net.UDPConn) (answered func() int) {
	var mu sync.Mutex
	asked, good := map[string][]byte{}, 0
	go func() {
		buf := make([]byte, 2048)
		for n := 0; ; n++ {
			size, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			dg, err := coap.ParseDatagram(buf[:size])
			if err != nil {
				t.Errorf("at the backend: %v: % x", err, buf[:size])
				continue
			}
			_, payload, err := coap.Split(dg.Body)
			if err != nil {
				t.Errorf("at the backend: %v", err)
			}
			if dg.Code.IsResponse() {
				mu.Lock()
				if want, ok := asked[string(dg.Token)]; ok {
					if delete(asked, string(dg.Token)); dg.Code == coap.Content && !bytes.Equal(payload, want) {
						t.Errorf("an answer of another: %q, want %q", payload, want)
					} else if dg.Code == coap.Content {
						good++
					}
				}
				mu.Unlock()
				continue
			}
			if !dg.Code.IsRequest() {
				continue
			}
			out := coap.Datagram{Type: coap.NonConfirmable, Code: coap.Changed, MessageID: uint16(n), Token: dg.Token, Body: coap.AppendPayload(nil, payload)}
			if dg.Type == coap.Confirmable {
				out.Type, out.MessageID = coap.Acknowledgement, dg.MessageID
			}
			_, _ = conn.WriteToUDPAddrPort(out.Append(nil), from)
			// An unsafe one goes out from the journal's goroutine, after its batch.
			down := coap.Datagram{Type: coap.NonConfirmable, Code: coap.FETCH, MessageID: uint16(n) | 1<<15, Token: fmt.Appendf(nil, "%07x", n), Body: out.Body}
			if n%7 == 0 {
				down.Type, down.Code = coap.Confirmable, coap.POST
			}
			mu.Lock()
			asked[string(down.Token)] = bytes.Clone(payload)
			mu.Unlock()
			_, _ = conn.WriteToUDPAddrPort(down.Append(nil), from)
		}
	}()
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return good
	}
}

// TestReleasedBuffersHoldNobodysMessage has many devices speak at once, with
// bodies of every length, while each buffer that is released is overwritten and
// each request that was answered becomes another's: whoever got a byte that is
// not its own would tell.
func TestReleasedBuffersHoldNobodysMessage(t *testing.T) {
	const devices = 24
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	answered := mirror(t, conn)
	var entries []keys.Entry
	for i := range devices {
		entries = append(entries, newEntry(fmt.Sprintf("device-%02d", i), byte(i)))
	}
	base := t.TempDir()
	makeStore(t, base, entries...)
	store, err := openStore(base, false)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := store.Keyring(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g, err := Listen(Config{
		Name: "test", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Backend: conn.LocalAddr().(*net.UDPAddr).AddrPort(), UpstreamPort: freeport.Get(t),
		Store: store, Keyring: ring, Freshness: endpoint.FreshUnsafe, Workers: 4, DeviceNStart: 64, Drain: time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx) }()
	var wg sync.WaitGroup
	var mu sync.Mutex
	downs := 0
	for i, e := range entries {
		d := newTalker(t, e, g.Addr())
		wg.Go(func() {
			for n := range rounds {
				text := fmt.Appendf(nil, "%s %d ", d.name, n)
				text = append(text, bytes.Repeat([]byte{byte('a' + i)}, (n*37+i*11)%300)...)
				got, err := d.ask(text, n%2 == 0)
				if err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(got, text) {
					t.Errorf("%s got %q, want %q", d.name, got, text)
					return
				}
			}
			mu.Lock()
			downs += d.downs
			mu.Unlock()
		})
	}
	wg.Wait()
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := ring.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	if downs == 0 || answered() == 0 {
		t.Errorf("%d requests of the backend answered, %d taken by it: none crossed", downs, answered())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.spares) == 0 {
		t.Error("no request was used again")
	}
}
