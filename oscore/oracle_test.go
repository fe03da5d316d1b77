package oscore

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/testvectors"
)

// oracleParams are input parameters in the files of the second implementation.
type oracleParams struct {
	AEAD         AEAD      `json:"aead"`
	HKDF         HKDF      `json:"hkdf"`
	MasterSecret hexBytes  `json:"master_secret"`
	MasterSalt   hexBytes  `json:"master_salt"`
	IDContext    *hexBytes `json:"id_context"` // null: absent
	SenderID     hexBytes  `json:"sender_id"`
	RecipientID  hexBytes  `json:"recipient_id"`
}

func (o oracleParams) params() Params {
	p := Params{
		AEAD: o.AEAD, HKDF: o.HKDF, MasterSecret: Secret(o.MasterSecret), MasterSalt: o.MasterSalt,
		SenderID: o.SenderID, RecipientID: o.RecipientID,
	}
	if o.IDContext != nil {
		p.IDContext = *o.IDContext
	}
	return p
}

type oracleMessage struct {
	Code      byte     `json:"code"`
	Body      hexBytes `json:"body"`
	Plaintext hexBytes `json:"plaintext"`
	AAD       hexBytes `json:"aad"`
	Nonce     hexBytes `json:"nonce"`
	OuterCode byte     `json:"outer_code"`
	Protected hexBytes `json:"protected"`
}

type oracleExchange struct {
	Params           oracleParams  `json:"params"`
	Sequence         uint64        `json:"sequence"`
	ResponseSequence uint64        `json:"response_sequence"`
	Request          oracleMessage `json:"request"`
	Response         oracleMessage `json:"response"`
	Numbered         oracleMessage `json:"numbered_response"`
}

func loadOracle[T any](t *testing.T, file string) []T {
	t.Helper()
	raw, err := testvectors.FS.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Vectors []T }
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Vectors) == 0 {
		t.Fatal("no vectors in " + file)
	}
	return v.Vectors
}

func TestDerivationAgainstOracle(t *testing.T) {
	proof.Checklist(t, "O-3.2.1-1", "O-3.2.1-2")
	type pair struct {
		AEAD
		HKDF
	}
	seen := map[pair]bool{}
	for i, v := range loadOracle[struct {
		oracleParams
		SenderKey    hexBytes `json:"sender_key"`
		RecipientKey hexBytes `json:"recipient_key"`
		CommonIV     hexBytes `json:"common_iv"`
	}](t, "oscore_derivation.json") {
		p := v.params()
		k, err := p.Derive()
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%d %v %v", i, p.AEAD, p.HKDF)
		equal(t, name+" sender key", k.SenderKey, v.SenderKey)
		equal(t, name+" recipient key", k.RecipientKey, v.RecipientKey)
		equal(t, name+" common IV", k.CommonIV, v.CommonIV)
		seen[pair{p.AEAD, p.HKDF}] = true
	}
	for _, a := range AEADs() {
		for _, h := range HKDFs() {
			if !seen[pair{a, h}] {
				t.Errorf("no vector for %v with %v", a, h)
			}
		}
	}
}

func TestMessagesAgainstOracle(t *testing.T) {
	proof.Checklist(t, "O-5.4-1", "O-5.4-2", "O-5-1", "O-6.1-1", "O-6.1-3", "O-6.2-1", "O-8.1-1", "O-8.2-1", "O-8.3-1", "O-8.4-1", "O-4.1.2-1")
	seen := map[AEAD]bool{}
	for i, v := range loadOracle[oracleExchange](t, "oscore_messages.json") {
		p := v.Params.params()
		seen[p.AEAD] = true
		t.Run(fmt.Sprintf("%d %v", i, p.AEAD), func(t *testing.T) {
			client, server := newPair(t, p, p.Swap())
			client.jump(v.Sequence)
			server.jump(v.ResponseSequence)
			var pending Pending
			sealed, err := client.SealRequest(nil, &pending, Message{v.Request.Code, v.Request.Body})
			if err != nil {
				t.Fatal(err)
			}
			v.Request.check(t, sealed, pending.aadBytes(), pending.nonceBytes())
			var request Request
			opened, err := server.OpenRequest(nil, &request, sealed)
			if err != nil {
				t.Fatal(err)
			}
			sameMessage(t, opened, Message{v.Request.Code, v.Request.Body})
			equal(t, "request nonce", request.nonceBytes(), v.Request.Nonce)
			equal(t, "request AAD", request.aadBytes(), v.Request.AAD)

			response := Message{v.Response.Code, v.Response.Body}
			if _, ok := coap.Find(response.Body, coap.Observe); ok && !request.Observes() {
				t.Fatal("vector answers with Observe what did not register")
			}
			first, err := request.Seal(nil, response)
			if err != nil {
				t.Fatal(err)
			}
			v.Response.check(t, first, request.aadBytes(), request.nonceBytes())
			second, err := server.SealResponse(nil, &request, response)
			if err != nil {
				t.Fatal(err)
			}
			v.Numbered.check(t, second, request.aadBytes(), server.nonce[:p.AEAD.NonceLen()])
			for _, m := range []Message{first, second} {
				pending.done = false // to open both
				opened, err := pending.Open(nil, m)
				if err != nil {
					t.Fatal(err)
				}
				if opened.Code != response.Code {
					t.Errorf("code %x, want %x", opened.Code, response.Code)
				}
				if !request.Observes() {
					equal(t, "response", opened.Body, response.Body)
				}
			}
		})
	}
	for _, a := range AEADs() {
		if !seen[a] {
			t.Errorf("no vector for %v", a)
		}
	}
}

func (m oracleMessage) check(t *testing.T, sealed Message, aad, nonce []byte) {
	t.Helper()
	if sealed.Code != m.OuterCode {
		t.Errorf("outer code %x, want %x", sealed.Code, m.OuterCode)
	}
	equal(t, "AAD", aad, m.AAD)
	equal(t, "nonce", nonce, m.Nonce)
	equal(t, "protected body", sealed.Body, m.Protected)
}

// jump makes n the next sequence number.
func (c *Context) jump(n uint64) { c.next = n }

func sameMessage(t testing.TB, got, want Message) {
	t.Helper()
	if got.Code != want.Code || string(got.Body) != string(want.Body) {
		t.Errorf("got %x %x, want %x %x", got.Code, got.Body, want.Code, want.Body)
	}
}
