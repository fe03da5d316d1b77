package oscore

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/testvectors"
)

// hexBytes is a byte string that JSON holds in hex.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(s []byte) (err error) {
	*h, err = hex.DecodeString(string(s))
	if *h == nil && err == nil {
		*h = []byte{}
	}
	return err
}

// derivation is one side of C.1 to C.3.
type derivation struct {
	MasterSecret   hexBytes `json:"master_secret"`
	MasterSalt     hexBytes `json:"master_salt"`
	IDContext      hexBytes `json:"id_context"`
	SenderID       hexBytes `json:"sender_id"`
	RecipientID    hexBytes `json:"recipient_id"`
	SenderInfo     hexBytes `json:"info_sender_key"`
	RecipientInfo  hexBytes `json:"info_recipient_key"`
	IVInfo         hexBytes `json:"info_common_iv"`
	SenderKey      hexBytes `json:"sender_key"`
	RecipientKey   hexBytes `json:"recipient_key"`
	CommonIV       hexBytes `json:"common_iv"`
	SenderNonce    hexBytes `json:"sender_nonce"`
	RecipientNonce hexBytes `json:"recipient_nonce"`
}

func (d derivation) params() Params {
	return Params{MasterSecret: Secret(d.MasterSecret), MasterSalt: d.MasterSalt, IDContext: d.IDContext, SenderID: d.SenderID, RecipientID: d.RecipientID}
}

// message is one of C.4 to C.8.
type message struct {
	Request    hexBytes `json:"unprotected_coap_request"`
	Response   hexBytes `json:"unprotected_coap_response"`
	Sequence   uint64   `json:"sender_sequence_number"`
	AAD        hexBytes `json:"aad"`
	Plaintext  hexBytes `json:"plaintext"`
	Key        hexBytes `json:"encryption_key"`
	Nonce      hexBytes `json:"nonce"`
	Option     hexBytes `json:"oscore_option_value"`
	Ciphertext hexBytes `json:"ciphertext"`
	Protected  hexBytes `json:"oscore_message"`
}

type appendixC struct {
	C1, C2, C3         struct{ Client, Server derivation }
	C4, C5, C6, C7, C8 message
}

func loadAppendixC(t testing.TB) (v appendixC) {
	t.Helper()
	raw, err := testvectors.FS.ReadFile("rfc8613.json")
	if err != nil {
		t.Fatal(err)
	}
	// The file's keys are "C.1" and so on.
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(raw), `"C.`, `"C`)), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDerivation(t *testing.T) {
	proof.Checklist(t, "O-3.2.1-1", "O-3.2.1-2", "O-3.1-1")
	v := loadAppendixC(t)
	for name, d := range map[string]derivation{
		"C.1 client": v.C1.Client, "C.1 server": v.C1.Server, "C.2 client": v.C2.Client,
		"C.2 server": v.C2.Server, "C.3 client": v.C3.Client, "C.3 server": v.C3.Server,
	} {
		p := d.params()
		equal(t, name+" sender info", p.appendInfo(nil, p.SenderID, "Key", 16), d.SenderInfo)
		equal(t, name+" recipient info", p.appendInfo(nil, p.RecipientID, "Key", 16), d.RecipientInfo)
		equal(t, name+" IV info", p.appendInfo(nil, nil, "IV", 13), d.IVInfo)
		k, err := p.Derive()
		if err != nil {
			t.Fatal(err)
		}
		equal(t, name+" sender key", k.SenderKey, d.SenderKey)
		equal(t, name+" recipient key", k.RecipientKey, d.RecipientKey)
		equal(t, name+" common IV", k.CommonIV, d.CommonIV)
		c, err := New(p)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, name+" sender nonce", c.keys.sender.nonce[:], d.SenderNonce)
		equal(t, name+" recipient nonce", c.keys.recipient.nonce[:], d.RecipientNonce)
	}
}

func TestAppendixC(t *testing.T) {
	proof.Checklist(t, "O-2-1", "O-5-1", "O-5-2", "O-5-3", "O-5-4", "O-5-5", "O-5.4-1", "O-5.4-2", "O-6.1-1", "O-6.1-3", "O-6.2-1", "O-8.1-1", "O-8.3-1",
		"O-8.3-2", "O-8.3-3", "O-4.1.1-1", "O-4.1.2-1", "O-4.2-1", "O-4.2-2", "O-4.2-6", "O-4-1", "O-4-2")
	v := loadAppendixC(t)
	for _, c := range []struct {
		name           string
		client, server derivation
		m              message
	}{
		{"C.4", v.C1.Client, v.C1.Server, v.C4},
		{"C.5", v.C2.Client, v.C2.Server, v.C5},
		{"C.6", v.C3.Client, v.C3.Server, v.C6},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := newPair(t, c.client.params(), c.server.params())
			advance(t, client, c.m.Sequence)
			var p Pending
			sealed, err := client.SealRequest(nil, &p, body(t, c.m.Request))
			if err != nil {
				t.Fatal(err)
			}
			checkSealed(t, sealed, c.m, p.aadBytes(), p.nonceBytes())
			var r Request
			opened, err := server.OpenRequest(nil, &r, sealed)
			if err != nil {
				t.Fatal(err)
			}
			want := body(t, c.m.Request)
			if opened.Code != want.Code || !bytes.Equal(opened.Body, want.Body) {
				t.Errorf("opened %x %x, want %x %x", opened.Code, opened.Body, want.Code, want.Body)
			}
			equal(t, "request AAD", r.aadBytes(), c.m.AAD)
			equal(t, "request nonce", r.nonceBytes(), c.m.Nonce)
		})
	}
	t.Run("C.7", func(t *testing.T) {
		_, server, _, r := exchangeC4(t, v)
		sealed, err := r.Seal(nil, body(t, v.C7.Response))
		if err != nil {
			t.Fatal(err)
		}
		checkSealed(t, sealed, v.C7, r.aadBytes(), r.nonceBytes())
		_ = server
	})
	t.Run("C.8", func(t *testing.T) {
		_, server, p, r := exchangeC4(t, v)
		sealed, err := server.SealResponse(nil, r, body(t, v.C8.Response))
		if err != nil {
			t.Fatal(err)
		}
		checkSealed(t, sealed, v.C8, r.aadBytes(), v.C8.Nonce)
		opened, err := p.Open(nil, sealed)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "response", opened.Body, body(t, v.C8.Response).Body)
	})
}

// exchangeC4 runs C.4 and returns what C.7 and C.8 go on from.
func exchangeC4(t *testing.T, v appendixC) (client, server *Context, p *Pending, r *Request) {
	t.Helper()
	client, server = newPair(t, v.C1.Client.params(), v.C1.Server.params())
	advance(t, client, v.C4.Sequence)
	p, r = new(Pending), new(Request)
	sealed, err := client.SealRequest(nil, p, body(t, v.C4.Request))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.OpenRequest(nil, r, sealed); err != nil {
		t.Fatal(err)
	}
	return client, server, p, r
}

func checkSealed(t *testing.T, sealed Message, m message, aad, nonce []byte) {
	t.Helper()
	want := body(t, m.Protected)
	if sealed.Code != want.Code {
		t.Errorf("outer code %x, want %x", sealed.Code, want.Code)
	}
	equal(t, "AAD", aad, m.AAD)
	equal(t, "nonce", nonce, m.Nonce)
	opt, _ := coap.Find(sealed.Body, coap.OSCORE)
	equal(t, "option", opt, m.Option)
	equal(t, "body", sealed.Body, want.Body)
}

// newPair returns fresh contexts of both ends.
func newPair(t testing.TB, client, server Params) (*Context, *Context) {
	t.Helper()
	c, err := New(client)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(server)
	if err != nil {
		t.Fatal(err)
	}
	c.Begin()
	s.Begin()
	return c, s
}

// advance spends sequence numbers until the next one is n.
func advance(t *testing.T, c *Context, n uint64) {
	t.Helper()
	for c.NextSequence() < n {
		if _, err := c.take(); err != nil {
			t.Fatal(err)
		}
	}
}

// body returns the code and body of a datagram.
func body(t *testing.T, datagram []byte) Message {
	t.Helper()
	d, err := coap.ParseDatagram(datagram)
	if err != nil {
		t.Fatal(err)
	}
	return Message{byte(d.Code), d.Body}
}

func equal(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, want %x", what, got, want)
	}
}
