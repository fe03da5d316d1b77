package oscore

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
)

// TestEveryBitOfARequest flips each bit of a sealed request. What OSCORE
// protects is refused, the window stays, and the genuine request still passes.
// What it does not protect (outer options) may arrive changed, and with them
// alone.
func TestEveryBitOfARequest(t *testing.T) {
	proof.Checklist(t, "O-8.2-3", "O-4.1.3.2-1")
	for _, a := range AEADs() {
		for name, m := range map[string]Message{"plain": get, "observe and host": msg(coap.FETCH, "payload", option{coap.URIHost, "h"}, option{coap.Observe, ""})} {
			t.Run(fmt.Sprintf("%v/%s", a, name), func(t *testing.T) {
				p := testParams()
				p.AEAD, p.IDContext = a, []byte("ctx")
				client, server := newPair(t, p, p.Swap())
				var pending Pending
				client.jump(300)
				sealed := must(client.SealRequest(nil, &pending, m))(t)
				value, _ := coap.Find(sealed.Body, coap.OSCORE)
				at := bytes.Index(sealed.Body, value)
				before, _ := server.WindowState()
				var r Request
				for bit := range 8 * len(sealed.Body) {
					forged := Message{sealed.Code, bytes.Clone(sealed.Body)}
					forged.Body[bit/8] ^= 1 << (bit % 8)
					opened, err := server.OpenRequest(nil, &r, forged)
					if err == nil && !outsideOnly(t, sealed, forged) {
						t.Fatalf("bit %d of byte %d flipped: accepted as %x", bit%8, bit/8, opened)
					}
					if err == nil {
						// Acceptance is right, but spends the number: begin anew.
						server.SetWindow(Restore(before))
						if opened.Code != m.Code {
							t.Fatal("an outer option changed the code")
						}
						continue
					}
					switch err {
					case ErrDecrypt, ErrDecode, ErrNoContext, ErrUnprotected:
					default:
						t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
					}
					if i := bit / 8; i >= len(sealed.Body)-5 && err != ErrDecrypt {
						t.Fatalf("byte %d of the ciphertext: %v, want ErrDecrypt", i, err)
					} else if i > at && i < at+3 && err != ErrDecrypt && err != ErrDecode {
						t.Fatalf("byte %d of the Partial IV: %v", i-at-1, err)
					}
					if r.valid() {
						t.Fatal("a usable Request is left")
					}
					if after, _ := server.WindowState(); fmt.Sprint(after) != fmt.Sprint(before) {
						t.Fatalf("bit %d moved the window", bit)
					}
				}
				sameMessage(t, must(server.OpenRequest(nil, &r, sealed))(t), m)
			})
		}
	}
}

// outsideOnly reports whether two protected messages have the same OSCORE
// option and ciphertext.
func outsideOnly(t *testing.T, a, b Message) bool {
	t.Helper()
	_, pa, erra := coap.Split(a.Body)
	_, pb, errb := coap.Split(b.Body)
	va, _ := coap.Find(a.Body, coap.OSCORE)
	vb, _ := coap.Find(b.Body, coap.OSCORE)
	return erra == nil && errb == nil && bytes.Equal(pa, pb) && bytes.Equal(va, vb)
}

func TestEveryBitOfAResponse(t *testing.T) {
	proof.Checklist(t, "O-8.4-2", "O-2-3")
	for _, a := range AEADs() {
		for _, numbered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/numbered %v", a, numbered), func(t *testing.T) {
				p := testParams()
				p.AEAD = a
				client, server := newPair(t, p, p.Swap())
				server.jump(70000)
				x := request(t, client, server, get)
				seal := x.seal
				if numbered {
					seal = x.number
				}
				sealed := seal(t, content)
				failures := client.Usage().Failed
				for bit := range 8 * len(sealed.Body) {
					forged := Message{sealed.Code, bytes.Clone(sealed.Body)}
					forged.Body[bit/8] ^= 1 << (bit % 8)
					_, err := x.p.Open(nil, forged)
					switch err {
					case ErrDecrypt, ErrDecode, ErrUnprotected:
					case nil:
						// A flag bit that adds an empty kid context or a kid changes
						// nothing that a response is verified by.
						if !sameVerified(t, sealed, forged) {
							t.Fatalf("bit %d of byte %d flipped: accepted", bit%8, bit/8)
						}
						x.p.done = false
					default:
						t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
					}
					if x.p.Done() {
						t.Fatal("a forgery ended the exchange")
					}
				}
				if client.Usage().Failed == failures {
					t.Error("failed decryptions are not counted")
				}
				sameMessage(t, must(x.p.Open(nil, sealed))(t), content)
			})
		}
	}
}

// sameVerified reports whether two responses have the same Partial IV and
// ciphertext: kid and kid context of a response are not protected (§5).
func sameVerified(t *testing.T, a, b Message) bool {
	t.Helper()
	oa, _, _ := FindOption(a)
	ob, _, _ := FindOption(b)
	_, pa, _ := coap.Split(a.Body)
	_, pb, _ := coap.Split(b.Body)
	return bytes.Equal(oa.PartialIV, ob.PartialIV) && bytes.Equal(pa, pb)
}
