//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/edhoc"
	"github.com/oscorelay/oscorelay/keys/handshake"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// carried is a handshake over CoAP between us and aiocoap.
type carried struct{ oursByValue, theirsByValue, combined bool }

func (c carried) String() string {
	style := func(v bool) string { return map[bool]string{true: "value", false: "kid"}[v] }
	flow := "message_3 and message_4"
	if c.combined {
		flow = "combined request (RFC 9668)"
	}
	return fmt.Sprintf("our credential by %s, theirs by %s, %s", style(c.oursByValue), style(c.theirsByValue), flow)
}

// carriedCases are all of them.
func carriedCases() (all []carried) {
	for i := range 8 {
		all = append(all, carried{i&1 != 0, i&2 != 0, i&4 != 0})
	}
	return all
}

// carriedParty is our side.
type carriedParty struct {
	service *handshake.Service
	ring    *keys.Keyring
	ep      *gocoap.Endpoint
}

// newCarried returns our side, and aiocoap's key and credentials in diagnostic
// notation.
func newCarried(t testing.TB, c carried) (us carriedParty, own, theirs string) {
	t.Helper()
	me, _ := edhocParty(t, "ours", 0x0a)
	it, secret := edhocParty(t, "aiocoap", 0x11)
	if c.oursByValue {
		id, err := edhoc.ByValue(me.Credential)
		if err != nil {
			t.Fatal(err)
		}
		me.ID = id
	}
	store := edhoc.NewStore(edhoc.StoreConfig{})
	if err := store.Pin("aiocoap", it.Credential); err != nil {
		t.Fatal(err)
	}
	us.ring = keys.New(keys.NewMemory())
	var err error
	us.service, err = handshake.New(handshake.Config{
		OfferMessage4: true, // one server for both: aiocoap's client expects message_4 where it sends message_3 alone
		Ring:          us.ring, Store: store, EDHOC: edhoc.Config{Identities: []edhoc.Identity{me}, Suites: []edhoc.Suite{2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	us.ep = gocoap.New(gocoap.Config{Keyring: us.ring, EDHOC: us.service, PlainErrorWait: time.Second})
	private, err := ecdh.P256().NewPrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := edhoc.NewPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "aiocoap.key")
	if err := os.WriteFile(file, key.Append(nil), 0o600); err != nil {
		t.Fatal(err)
	}
	ccs := func(c *edhoc.Credential) string {
		s, err := cbor.Diagnose(c.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return "{14: " + s + "}"
	}
	style := "by-key-id"
	if c.theirsByValue {
		style = "by-value"
	}
	own = fmt.Sprintf(`"own_cred_style": %q, "own_cred": %s, "private_key_file": %q`, style, ccs(it.Credential), file)
	return us, own, `"peer_cred": ` + ccs(me.Credential)
}

// wireOf checks what passed: EDHOC in plain, everything else sealed, option 21
// where it belongs.
func wireOf(t *testing.T, capture peer.Capture, c carried) {
	t.Helper()
	requests, combined := 0, 0
	for _, m := range capture.Requests(t) {
		_, sealed := m.Option(peer.OptOSCORE)
		_, option := m.Option(21)
		switch {
		case option && !sealed:
			t.Errorf("EDHOC option without OSCORE: %s", m)
		case option:
			combined++
		case !sealed:
			requests++
			if path, ok := m.Option(peer.OptUriPath); !ok || string(path) != ".well-known" {
				t.Errorf("plain request: %s", m)
			}
		}
	}
	if c.combined && (combined != 1 || requests != 1) || !c.combined && (combined != 0 || requests != 2) {
		t.Errorf("%d requests with the EDHOC option, %d plain", combined, requests)
	}
	capture.Hides(t, "Hello World!")
}

func TestEDHOCOverCoAPToAiocoap(t *testing.T) {
	t.Parallel()
	version := peer.Version(t, "aiocoap")
	for _, c := range carriedCases() {
		t.Run(c.String(), func(t *testing.T) {
			us, own, theirs := newCarried(t, c)
			port := peer.FreePort(t)
			server := peer.AiocoapEDHOCServer(t, port, fmt.Sprintf(
				`{"coap://127.0.0.1:%d/*": {"edhoc-oscore": {"suite": 2, "method": 3, %s}}, ":ours": {"edhoc-oscore": {"suite": 2, "method": 3, %s}}}`, port, own, theirs))
			relay := peer.NewRelay(t, peer.Loopback(port))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			conn, err := udp.Dial(relay.Addr().String(), us.ep.UDPClient(nil)...)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			hs, err := us.service.To(handshake.Peer{Name: "aiocoap", Combined: c.combined, Message4: !c.combined})
			if err != nil {
				t.Fatal(err)
			}
			client, err := us.ep.Handshake(ctx, conn, hs)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				resp, err := client.Get(ctx, "/oscore/hello/1")
				if err != nil {
					t.Fatal(err)
				}
				if body, err := resp.ReadBody(); err != nil || !bytes.Equal(body, hello) || resp.Code() != codes.Content {
					t.Errorf("%v %q %v", resp.Code(), body, err)
				}
			}
			if n := server.Handled("/oscore/hello/1"); n != 3 {
				t.Errorf("%d requests reached the resource", n)
			}
			wireOf(t, relay.Capture(), c)
			proof.Interop(t, version, "our client → peer's server", "EDHOC, "+c.String())
		})
	}
}

func TestEDHOCOverCoAPFromAiocoap(t *testing.T) {
	t.Parallel()
	version := peer.Version(t, "aiocoap")
	for _, c := range carriedCases() {
		t.Run(c.String(), func(t *testing.T) {
			us, own, theirs := newCarried(t, c)
			l, err := coapnet.NewListenUDP("udp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			peers := make(chan string, 8)
			server := udp.NewServer(us.ep.UDPServer(mux.HandlerFunc(func(w mux.ResponseWriter, r *mux.Message) {
				name, _ := gocoap.Peer(r.Context())
				peers <- name
				_ = w.SetResponse(codes.Content, message.TextPlain, bytes.NewReader(hello))
			}))...)
			served := make(chan error, 1)
			go func() { served <- server.Serve(l) }()
			t.Cleanup(func() {
				server.Stop()
				<-served
				l.Close()
			})
			relay := peer.NewRelay(t, netip.MustParseAddrPort(l.LocalAddr().String()))
			client := peer.AiocoapEDHOCClient(t, relay.URI(), fmt.Sprintf(
				`{"%s/*": {"edhoc-oscore": {"suite": 2, "method": 3, "use_combined_edhoc": %v, %s, %s}}}`, relay.URI(), c.combined, own, theirs))
			result := client.Do(t, peer.Request{Method: "GET", Path: "/oscore/hello/1"})
			if result.Error != "" {
				t.Fatal(result.Error)
			}
			want{code: "2.05", payload: hello}.check(t, result.Answer)
			if name := <-peers; name != "edhoc:aiocoap" {
				t.Errorf("peer %q", name)
			}
			if us.ring.Len() != 1 || us.service.Sessions() != 0 {
				t.Error(errors.New("a session or a context is left over"))
			}
			wireOf(t, relay.Capture(), c)
			proof.Interop(t, version, "peer's client → our server", "EDHOC, "+c.String())
		})
	}
}
