package gocoap_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/keys/edhoc"
	"github.com/oscorelay/oscorelay/keys/handshake"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// hasEDHOC tells a combined request.
func hasEDHOC(d datagram) bool { return d.from == fromClient && d.Options.HasOption(21) }

// isHandshake tells a request to the EDHOC resource.
func isHandshake(d datagram) bool { return d.from == fromClient && !d.sealed() && !d.empty() }

// raw is a datagram around a message's body.
func raw(m oscore.Message, mid uint16) []byte {
	return append([]byte{0x41, m.Code, byte(mid >> 8), byte(mid), 0x77}, m.Body...)
}

// TestInnerEDHOC: an EDHOC option inside is a critical option that nobody
// processed, in a combined request and in any other: the answer is 4.02,
// protected, and no handler runs (RFC 9668 §3.3.1 step 8).
func TestInnerEDHOC(t *testing.T) {
	proof.Checklist(t, "C-09")
	for _, combined := range []bool{false, true} {
		t.Run(fmt.Sprintf("combined %v", combined), func(t *testing.T) {
			client, server := shakers(t, nil)
			var calls atomic.Int32
			ctx := within(t)
			addr := serveUDP(t, server.ep, hello(&calls))
			conn, err := udp.Dial(addr, client.ep.UDPClient(nil)...)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			hs, err := client.To(handshake.Peer{Name: "server", Combined: combined})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.ep.Handshake(ctx, conn, hs); err != nil {
				t.Fatal(err)
			}
			peer, _ := client.ring.Get("edhoc:server")
			s := stranger(t, addr)
			for i, inner := range []coap.Options{
				coap.Options{}.Add(coap.URIPath, []byte("hello")).Add(coap.EDHOC, nil),
				coap.Options{}.Add(coap.URIPath, []byte("hello")),
			} {
				var pending oscore.Pending
				sealed, err := peer.SealRequestAs(nil, &pending,
					oscore.Message{Code: byte(codes.GET), Body: coap.AppendBody(nil, inner, nil)}, oscore.Message{Code: byte(codes.POST)})
				if err != nil {
					t.Fatal(err)
				}
				if hs.Pending() {
					var ok bool
					if sealed, ok, err = hs.Combine(sealed); err != nil || !ok {
						t.Fatal(ok, err)
					}
				}
				got := ask(t, s, raw(sealed, uint16(i)))
				if !got.sealed() {
					t.Fatalf("unprotected answer %v", got.Message.String())
				}
				opened, err := pending.Open(nil, oscore.Message{Code: byte(got.Code), Body: got.raw[4+len(got.Token):]})
				want := map[int]codes.Code{0: codes.BadOption, 1: codes.Content}[i]
				if err != nil || codes.Code(opened.Code) != want {
					t.Errorf("%v, %v, want %v", codes.Code(opened.Code), err, want)
				}
			}
			if calls.Load() != 1 {
				t.Errorf("%d calls", calls.Load())
			}
		})
	}
}

// TestCombinedAccess: a combined request passes the same access checks as any
// other.
func TestCombinedAccess(t *testing.T) {
	proof.Checklist(t, "C-17")
	client, server := shakers(t, func(_ *handshake.Config, c *gocoap.Config) {
		c.Allow = func(_ string, _ codes.Code, path string) bool { return path != "/secret" }
	})
	var calls atomic.Int32
	ctx := within(t)
	addr := serveUDP(t, server.ep, hello(&calls))
	for _, combined := range []bool{false, true} {
		c, err := client.shake(t, ctx, addr, handshake.Peer{Name: "server", Combined: combined})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Get(ctx, "/secret")
		if err != nil || resp.Code() != codes.Forbidden {
			t.Errorf("forbidden path: %v, %v", resp, err)
		}
	}
	if calls.Load() != 0 {
		t.Errorf("%d calls", calls.Load())
	}
}

// TestEDHOCOptionValue: whatever value the EDHOC option has is ignored.
func TestEDHOCOptionValue(t *testing.T) {
	proof.Checklist(t, "C-02")
	client, server := shakers(t, nil)
	var calls atomic.Int32
	r := newRelay(t, serveUDP(t, server.ep, hello(&calls)))
	r.set(func(d datagram) [][]byte {
		if !hasEDHOC(d) {
			return [][]byte{d.raw}
		}
		d.Options = d.Options.Set(message.Option{ID: 21, Value: []byte("value")})
		return [][]byte{build(t, d.Message)}
	})
	ctx := within(t)
	c, err := client.shake(t, ctx, r.addr(), handshake.Peer{Name: "server", Combined: true})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := c.Get(ctx, "/hello"); err != nil || bodyOf(t, resp) != "hello edhoc:device" {
		t.Errorf("%v", err)
	}
	if len(r.find(hasEDHOC)) == 0 {
		t.Error("no combined request")
	}
}

// TestOneCombinedRequest: while the combined request of a session is
// outstanding no other request of the session goes out, combined or not.
func TestOneCombinedRequest(t *testing.T) {
	proof.Checklist(t, "C-03")
	client, server := shakers(t, nil)
	started, proceed := make(chan struct{}), make(chan struct{})
	var calls atomic.Int32
	h := mux.HandlerFunc(func(w mux.ResponseWriter, _ *mux.Message) {
		if calls.Add(1) == 1 {
			close(started)
			<-proceed
		}
		_ = w.SetResponse(codes.Content, message.TextPlain, text("x"))
	})
	r := newRelay(t, serveUDP(t, server.ep, h))
	ctx := within(t)
	c, err := client.shake(t, ctx, r.addr(), handshake.Peer{Name: "server", Combined: true})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	get := func() {
		if _, err := c.Get(ctx, "/x"); err != nil {
			t.Error(err)
		}
	}
	wg.Go(get)
	<-started
	for range 3 {
		wg.Go(get)
	}
	// The handler is slow, so that the request is acknowledged apart from its
	// answer: whatever else was to go out would have gone by then.
	r.await(1, func(d datagram) bool { return d.from == fromServer && isAck(d) })
	mids := map[int32]bool{}
	for _, d := range r.find(isSealedRequest) {
		mids[d.MessageID] = true
	}
	if len(mids) != 1 {
		t.Errorf("%d requests while the combined one is outstanding", len(mids))
	}
	close(proceed)
	wg.Wait()
	clear(mids)
	for _, d := range r.find(hasEDHOC) {
		mids[d.MessageID] = true
	}
	if len(mids) != 1 || calls.Load() != 4 {
		t.Errorf("%d combined requests, %d calls", len(mids), calls.Load())
	}
}

// TestCombinedBlocks: of a request in inner blocks the first alone is combined.
func TestCombinedBlocks(t *testing.T) {
	proof.Checklist(t, "C-04")
	client, server := shakers(t, nil)
	body := strings.Repeat("0123456789", 350)
	h := mux.HandlerFunc(func(w mux.ResponseWriter, m *mux.Message) {
		b, err := m.ReadBody()
		if err != nil || string(b) != body {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		_ = w.SetResponse(codes.Changed, message.TextPlain, nil)
	})
	r := newRelay(t, serveUDP(t, server.ep, h))
	ctx := within(t)
	c, err := client.shake(t, ctx, r.addr(), handshake.Peer{Name: "server", Combined: true})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Put(ctx, "/x", message.TextPlain, text(body))
	if err != nil || resp.Code() != codes.Changed {
		t.Fatal(resp, err)
	}
	var order []bool
	mids := map[int32]bool{}
	for _, d := range r.find(isSealedRequest) {
		if !mids[d.MessageID] {
			mids[d.MessageID] = true
			order = append(order, hasEDHOC(d))
		}
	}
	if fmt.Sprint(order) != "[true false false false]" {
		t.Errorf("combined: %v", order)
	}
}

// chainIdentity is a P-256 signature key in a certificate of about that many
// bytes, sent by value.
func chainIdentity(t testing.TB, name string, size int) edhoc.Identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{strings.Repeat("x", size/2)}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := edhoc.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	id, err := edhoc.ByValue(c)
	if err != nil {
		t.Fatal(err)
	}
	return edhoc.Identity{Credential: c, ID: id, Signer: key}
}

// TestCombinedTooLarge: where message_3 and the request exceed
// MAX_UNFRAGMENTED_SIZE, message_3 goes first, in blocks if need be, and the
// request after it, as any other; its handler runs once.
func TestCombinedTooLarge(t *testing.T) {
	proof.Checklist(t, "C-05")
	for _, c := range []struct {
		name  string
		size  int // of the client's certificate
		limit int
		body  string
	}{
		{"a low limit", 0, 64, "x"},
		{"message_3 with a chain", 3600, 0, strings.Repeat("x", 1000)},
		{"message_3 with a chain, the request in blocks", 3600, 0, strings.Repeat("x", 3000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			me, it := chainIdentity(t, "device", c.size), chainIdentity(t, "server", 0)
			client := newShaker(t, "device", 0x11, func(h *handshake.Config, _ *gocoap.Config) {
				h.EDHOC.Identities, h.MaxUnfragmented = []edhoc.Identity{me}, c.limit
			})
			server := newShaker(t, "server", 0x0a, func(h *handshake.Config, _ *gocoap.Config) { h.EDHOC.Identities = []edhoc.Identity{it} })
			if err := errors.Join(client.store.Pin("server", it.Credential), server.store.Pin("device", me.Credential)); err != nil {
				t.Fatal(err)
			}
			var calls atomic.Int32
			r := newRelay(t, serveUDP(t, server.ep, mux.HandlerFunc(func(w mux.ResponseWriter, m *mux.Message) {
				calls.Add(1)
				b, err := m.ReadBody()
				if err != nil {
					t.Error(err)
				}
				_ = w.SetResponse(codes.Changed, message.TextPlain, bytes.NewReader(b[:1]))
			})))
			ctx := within(t)
			conn, err := client.shake(t, ctx, r.addr(), handshake.Peer{Name: "server", Combined: true})
			if err != nil {
				t.Fatal(err)
			}
			var resp *pool.Message
			if resp, err = conn.Post(ctx, "/x", message.TextPlain, text(c.body)); err != nil || bodyOf(t, resp) != "x" {
				t.Fatal(resp, err)
			}
			all := r.seen()
			lastPlain, firstSealed := 0, len(all)
			for i, d := range all {
				switch {
				case isHandshake(d):
					lastPlain = i
				case isSealedRequest(d):
					firstSealed = min(firstSealed, i)
				}
			}
			if len(r.find(hasEDHOC)) != 0 || lastPlain > firstSealed || calls.Load() != 1 {
				t.Errorf("%d combined, last of the handshake %d, first sealed %d, %d calls", len(r.find(hasEDHOC)), lastPlain, firstSealed, calls.Load())
			}
		})
	}
}

// TestEarlierContextStays: a combined request that fails leaves the context of
// the handshake before in use, at both sides; the server's numbers tell that it
// never was another.
func TestEarlierContextStays(t *testing.T) {
	client, server := shakers(t, nil)
	var calls atomic.Int32
	r := newRelay(t, serveUDP(t, server.ep, hello(&calls)))
	ctx := within(t)
	c, err := client.shake(t, ctx, r.addr(), handshake.Peer{Name: "server"})
	if err != nil {
		t.Fatal(err)
	}
	get := func() {
		t.Helper()
		if resp, err := c.Get(ctx, "/x"); err != nil || bodyOf(t, resp) != "hello edhoc:device" {
			t.Fatal(err)
		}
	}
	get()
	before, _ := server.ring.Get("edhoc:device")
	r.set(func(d datagram) [][]byte {
		if hasEDHOC(d) {
			d.Payload = flip(d.Payload, 5)
			return [][]byte{build(t, d.Message)}
		}
		return [][]byte{d.raw}
	})
	for range 2 {
		failing, err := client.shake(t, ctx, r.addr(), handshake.Peer{Name: "server", Combined: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := failing.Get(ctx, "/x"); !errors.Is(err, gocoap.ErrHandshake) {
			t.Fatal(err)
		}
		get()
	}
	if after, _ := server.ring.Get("edhoc:device"); after != before || calls.Load() != 3 {
		t.Errorf("the server's context changed: %v, %d calls", after != before, calls.Load())
	}
}

// TestFirstAnswerConfirms: the first protected answer confirms a handshake, with
// message_3 alone, too: only then the context before it is given up.
func TestFirstAnswerConfirms(t *testing.T) {
	for _, p := range []handshake.Peer{{Name: "server"}, {Name: "server", Combined: true}} {
		client, server := shakers(t, nil)
		var calls atomic.Int32
		addr := serveUDP(t, server.ep, hello(&calls))
		ctx := within(t)
		conn, err := udp.Dial(addr, client.ep.UDPClient(nil)...)
		if err != nil {
			t.Fatal(err)
		}
		hs, err := client.To(p)
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.ep.Handshake(ctx, conn, hs)
		if err != nil || hs.Session().Confirmed() {
			t.Fatalf("confirmed before an answer: %v", err)
		}
		if _, err := c.Get(ctx, "/x"); err != nil || !hs.Session().Confirmed() {
			t.Errorf("%+v: not confirmed by an answer: %v", p, err)
		}
		conn.Close()
	}
}

// linkOf fetches the link of the EDHOC resource.
func linkOf(t *testing.T, change func(*handshake.Config, *gocoap.Config)) (path string, attributes map[string][]string) {
	t.Helper()
	s := newShaker(t, "server", 0x0a, func(h *handshake.Config, c *gocoap.Config) {
		c.AllowPlain = func(_ codes.Code, path string) bool { return path == "/.well-known/core" }
		if change != nil {
			change(h, c)
		}
	})
	addr := serveUDP(t, s.ep, mux.HandlerFunc(func(w mux.ResponseWriter, _ *mux.Message) {
		_ = w.SetResponse(codes.Content, message.AppLinkFormat, text(s.Link()))
	}))
	conn, err := udp.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp, err := conn.Get(within(t), "/.well-known/core")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(bodyOf(t, resp), ";")
	attributes = map[string][]string{}
	for _, a := range parts[1:] {
		name, value, given := strings.Cut(a, "=")
		if given {
			value = "=" + value
		}
		attributes[name] = append(attributes[name], value)
	}
	return strings.Trim(parts[0], "<>"), attributes
}

// TestLink: what /.well-known/core says of the EDHOC resource.
func TestLink(t *testing.T) {
	proof.Checklist(t, "C-15", "C-16")
	single := regexp.MustCompile(`^=-?[0-9]+$`)
	for _, c := range []struct {
		reverse, message4 bool
		methods, suites   string
	}{
		{false, false, "[=1 =3]", "[=2 =3 =5]"},
		{true, false, "[=1 =3]", "[=2 =3 =5]"},
		{false, true, "[=1 =3]", "[=2 =3 =5]"},
		{true, true, "[=3]", "[=3 =2]"},
	} {
		path, a := linkOf(t, func(h *handshake.Config, _ *gocoap.Config) {
			h.Reverse, h.Message4 = c.reverse, c.message4
			if c.methods == "[=3]" {
				h.EDHOC.Methods, h.EDHOC.Suites = []edhoc.Method{edhoc.StaticStatic}, []edhoc.Suite{3, 2}
			}
		})
		if path != "/.well-known/edhoc" || fmt.Sprint(a["rt"]) != "[=core.edhoc]" {
			t.Errorf("%s %v", path, a)
		}
		if fmt.Sprint(a["ed-method"]) != c.methods || fmt.Sprint(a["ed-csuite"]) != c.suites {
			t.Errorf("methods %v, suites %v", a["ed-method"], a["ed-csuite"])
		}
		// Valueless, once, and only where they hold: the combined request never
		// together with message_4 (RFC 9668 §5).
		for name, want := range map[string]bool{"ed-i": c.reverse, "ed-r": true, "ed-comb-req": !c.message4} {
			values, there := a[name]
			if there != want || want && (len(values) != 1 || values[0] != "") {
				t.Errorf("%+v: %s %q", c, name, values)
			}
		}
		for name, values := range a {
			switch name {
			case "rt", "ed-i", "ed-r", "ed-comb-req":
				continue
			case "ed-method", "ed-csuite", "ed-cred-t", "ed-idcred-t":
			default:
				t.Errorf("attribute %s is not registered", name)
			}
			seen := map[string]bool{}
			for _, v := range values {
				if !single.MatchString(v) || seen[v] {
					t.Errorf("%s %q: not a single value, or twice", name, v)
				}
				seen[v] = true
			}
		}
	}
	for _, p := range []handshake.Peer{{Combined: true, Message4: true}, {Combined: true, Reverse: true}} {
		if _, err := newShaker(t, "device", 1, nil).To(p); !errors.Is(err, handshake.ErrConfig) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
