package explain

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/testvectors"
)

// vector is one of C.1 to C.8 of RFC 8613.
type vector struct {
	Client struct {
		MasterSecret string  `json:"master_secret"`
		MasterSalt   string  `json:"master_salt"`
		SenderID     string  `json:"sender_id"`
		RecipientID  string  `json:"recipient_id"`
		IDContext    *string `json:"id_context"`
	} `json:"client"`
	AADArray  string `json:"aad_array"`
	AAD       string `json:"aad"`
	Nonce     string `json:"nonce"`
	Protected string `json:"oscore_message"`
}

func vectors(t testing.TB) map[string]vector {
	t.Helper()
	b, err := testvectors.FS.ReadFile("rfc8613.json")
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	out := map[string]vector{}
	for name, r := range raw {
		if !strings.HasPrefix(name, "C.") {
			continue
		}
		var v vector
		if err := json.Unmarshal(r, &v); err != nil {
			t.Fatal(err)
		}
		out[name] = v
	}
	return out
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// clientParams returns the client's parameters of C.1, C.2 or C.3.
func clientParams(t testing.TB, v vector) oscore.Params {
	p := oscore.Params{
		MasterSecret: unhex(t, v.Client.MasterSecret), MasterSalt: unhex(t, v.Client.MasterSalt),
		SenderID: unhex(t, v.Client.SenderID), RecipientID: unhex(t, v.Client.RecipientID),
	}
	if v.Client.IDContext != nil {
		p.IDContext = unhex(t, *v.Client.IDContext)
	}
	return p
}

// TestAppendixC explains and opens the messages of RFC 8613 Appendix C with
// the keys of either end, and shows the AAD and the nonce that it prints.
func TestAppendixC(t *testing.T) {
	vs := vectors(t)
	for _, tc := range []struct {
		name, context string
		messages      []string
	}{
		{"C.4", "C.1", []string{"C.4"}},
		{"C.5", "C.2", []string{"C.5"}},
		{"C.6", "C.3", []string{"C.6"}},
		{"C.7", "C.1", []string{"C.4", "C.7"}},
		{"C.8", "C.1", []string{"C.4", "C.8"}},
	} {
		for _, end := range []string{"client", "server"} {
			t.Run(tc.name+" "+end, func(t *testing.T) {
				p, requestBy := clientParams(t, vs[tc.context]), "sender"
				if end == "server" {
					p, requestBy = p.Swap(), "recipient"
				}
				s, err := NewSession(&p, true)
				if err != nil {
					t.Fatal(err)
				}
				for i, name := range tc.messages {
					v := vs[name]
					r := s.Datagram(unhex(t, v.Protected))
					if r.Opened == nil || r.Malformed != "" || r.Closed != "" {
						t.Fatalf("%s: %+v", name, r)
					}
					if got := []string{r.Crypto.AADArray.String(), r.Crypto.EncStructure.String(), r.Crypto.Nonce.String()}; got[0] != v.AADArray || got[1] != v.AAD || got[2] != v.Nonce {
						t.Errorf("%s: AAD and nonce %v, want %s, %s, %s", name, got, v.AADArray, v.AAD, v.Nonce)
					}
					if i == 0 {
						if r.Opened.Code != "0.01 GET" || r.Opened.By != requestBy || !hasOption(r.Opened.Options, coap.URIPath, `"tv1"`) || r.Code != "0.02 POST" {
							t.Errorf("%s: %+v", name, r.Opened)
						}
						continue
					}
					if r.Opened.Code != "2.05 Content" || r.Opened.Request != 1 || r.Opened.By == requestBy || r.Opened.Payload.Text != "Hello World!" {
						t.Errorf("%s: %+v", name, r.Opened)
					}
				}
			})
		}
	}
}

func hasOption(options []Option, number uint16, meaning string) bool {
	for _, o := range options {
		if o.Number == number && o.Meaning == meaning {
			return true
		}
	}
	return false
}

func TestOptionValue(t *testing.T) {
	for _, tc := range []struct {
		value    string
		problem  string
		sequence uint64
		fields   string // the fields' names
		rederive string
	}{
		{value: "", fields: "(empty)"},
		{value: "0914", sequence: 20, fields: "flags, Partial IV, kid"},
		{value: "091400", sequence: 20, fields: "flags, Partial IV, kid"},
		{value: "19140837cbf3210017a2d3", sequence: 20, fields: "flags, Partial IV, s, kid context, kid"},
		{value: "0dffffffffff00", sequence: oscore.MaxSequence, fields: "flags, Partial IV, kid"},
		{value: "191403420102", sequence: 20, fields: "flags, Partial IV, s, kid context, kid", rederive: "0102"},
		{value: "1100014002", problem: "left over", fields: "flags, Partial IV, s, kid context, ?", rederive: ""},
		{value: "00", problem: "all zero", fields: "flags"},
		{value: "8100", problem: "reserved flag bits", fields: "flags"},
		{value: "4100", problem: "reserved flag bits", fields: "flags"},
		{value: "06000000000000", problem: "reserved", fields: "flags"},
		{value: "0f00000000000000", problem: "reserved", fields: "flags"},
		{value: "0914000000", sequence: 20, fields: "flags, Partial IV, kid"},
		{value: "0a0014", sequence: 20, problem: "leading zero", fields: "flags, Partial IV, kid"},
		{value: "0b14", problem: "3 bytes, 1 are left", fields: "flags"},
		{value: "1114", sequence: 20, problem: "length byte is missing", fields: "flags, Partial IV"},
		{value: "11140301", sequence: 20, problem: "3 bytes, 1 are left", fields: "flags, Partial IV, s"},
	} {
		t.Run(tc.value, func(t *testing.T) {
			o := OptionValue(unhex(t, tc.value))
			var names []string
			for _, f := range o.Fields {
				names = append(names, f.Name)
			}
			if got := strings.Join(names, ", "); got != tc.fields {
				t.Errorf("fields %q, want %q", got, tc.fields)
			}
			if tc.problem == "" && o.Problem != "" || !strings.Contains(o.Problem, tc.problem) {
				t.Errorf("problem %q, want %q", o.Problem, tc.problem)
			}
			if o.Sequence != nil && *o.Sequence != tc.sequence || o.Sequence == nil && tc.sequence != 0 {
				t.Errorf("sequence %v, want %d", o.Sequence, tc.sequence)
			}
			if tc.rederive != "" && (o.Rederive == nil || o.Rederive.String() != tc.rederive) {
				t.Errorf("byte string %v, want %s", o.Rederive, tc.rederive)
			}
		})
	}
}

// FuzzOptionValue holds that the explainer and the parser agree on what is
// refused.
func FuzzOptionValue(f *testing.F) {
	for _, s := range []string{"", "\x09\x14", "\x19\x14\x03\x42\x01\x02", "\x00", "\x11\x14\x03\x01"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		o := OptionValue(value)
		_, err := oscore.ParseOption(value)
		if (err != nil) != (o.Problem != "") {
			t.Fatalf("%x: parser %v, explainer %q", value, err, o.Problem)
		}
	})
}

// seal returns a datagram that the owner of p sends, with that sequence number.
func seal(t testing.TB, p oscore.Params, sequence uint64, kidContext []byte, m oscore.Message) (oscore.Message, *oscore.Pending) {
	t.Helper()
	c, err := oscore.New(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Extend(sequence, sequence+2); err != nil {
		t.Fatal(err)
	}
	if kidContext != nil {
		c.SetKIDContext(kidContext)
	}
	var pending oscore.Pending
	out, err := c.SealRequest(nil, &pending, m)
	if err != nil {
		t.Fatal(err)
	}
	return out, &pending
}

// answer returns the sealed response of the peer of p to a request.
func answer(t testing.TB, requester oscore.Params, kidContext []byte, sealed, m oscore.Message) oscore.Message {
	t.Helper()
	c, err := oscore.New(requester.Swap())
	if err != nil {
		t.Fatal(err)
	}
	if kidContext != nil {
		c.SetKIDContext(kidContext)
	}
	c.Begin()
	var r oscore.Request
	if _, err := c.OpenRequest(nil, &r, sealed); err != nil {
		t.Fatal(err)
	}
	out, err := r.Seal(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func datagram(m oscore.Message, token string) []byte {
	return coap.Datagram{Type: coap.Confirmable, Code: coap.Code(m.Code), MessageID: 7, Token: []byte(token), Body: m.Body}.Append(nil)
}

func frame(m oscore.Message, token string) []byte {
	return coap.Frame{Code: coap.Code(m.Code), Token: []byte(token), Body: m.Body}.Append(nil)
}

var (
	testParams = oscore.Params{MasterSecret: oscore.Secret("0123456789abcdef"), MasterSalt: []byte("salt"), SenderID: []byte("c"), RecipientID: []byte("s")}
	getTemp    = oscore.Message{Code: byte(coap.GET), Body: []byte("\xb4temp")}
	content    = oscore.Message{Code: byte(coap.Content), Body: []byte("\xffwarm")}
)

// TestClosed names why a message does not open.
func TestClosed(t *testing.T) {
	p := testParams
	request, _ := seal(t, p, 5, nil, getTemp)
	response := answer(t, p, nil, request, content)
	with := func(change func(*oscore.Params)) oscore.Params {
		q := p.Clone()
		change(&q)
		return q
	}
	withContext := with(func(q *oscore.Params) { q.IDContext = []byte("net") })
	contextRequest, _ := seal(t, withContext, 5, nil, getTemp)
	flipped := bytes.Clone(datagram(request, "t"))
	flipped[len(flipped)-1] ^= 1
	for _, tc := range []struct {
		name     string
		keys     oscore.Params
		messages [][]byte
		want     string
	}{
		{"no option 9", p, [][]byte{datagram(getTemp, "t")}, "no option 9"},
		{"another kid", with(func(q *oscore.Params) { q.SenderID = []byte("x") }), [][]byte{datagram(request, "t")}, "the kid is 63, but the keys are for recipient ID 73 and sender ID 78"},
		{"kid context but no ID Context", p, [][]byte{datagram(contextRequest, "t")}, "kid context is 6e6574 and the keys' ID Context is absent"},
		{"another kid context", with(func(q *oscore.Params) { q.IDContext = []byte("other") }), [][]byte{datagram(contextRequest, "t")}, "kid context is 6e6574 and the keys' ID Context is 6f74686572"},
		{"another secret", with(func(q *oscore.Params) { q.MasterSecret = oscore.Secret("x") }), [][]byte{datagram(request, "t")}, "the authentication tag does not fit. Kid and kid context fit; secret"},
		{"one bit changed", p, [][]byte{flipped}, "the authentication tag does not fit"},
		{"response alone", p, [][]byte{datagram(response, "t")}, "a response needs its request"},
		{"response to a request not given", p, [][]byte{datagram(mustSeal(t, p, 6), "u"), datagram(response, "t")}, "the request that it answers is probably missing"},
		{"response under another ID", with(func(q *oscore.Params) { q.RecipientID = []byte("x") }), [][]byte{datagram(request, "t"), datagram(response, "t")}, "Message 1 opened, so the other ID is wrong"},
		{"cut short", p, [][]byte{datagram(oscore.Message{Code: 2, Body: request.Body[:len(request.Body)-12]}, "t")}, "AES-CCM-16-64-128 needs more than 8"},
		{"no ciphertext", p, [][]byte{datagram(oscore.Message{Code: 2, Body: unhex(t, "92090563")}, "t")[:8]}, "ciphertext is missing"},
		{"request without kid", p, [][]byte{datagram(oscore.Message{Code: 2, Body: unhex(t, "920105ff0102030405060708090a")}, "t")}, "must have a kid"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := NewSession(&tc.keys, true)
			if err != nil {
				t.Fatal(err)
			}
			var r *Report
			for _, m := range tc.messages {
				r = s.Datagram(m)
			}
			if r.Opened != nil || !strings.Contains(r.Closed, tc.want) {
				t.Errorf("closed for %q, want %q; malformed %q", r.Closed, tc.want, r.Malformed)
			}
		})
	}
}

func mustSeal(t *testing.T, p oscore.Params, sequence uint64) oscore.Message {
	m, _ := seal(t, p, sequence, nil, getTemp)
	return m
}

// TestNotes holds the remarks that a capture as a whole gives rise to.
func TestNotes(t *testing.T) {
	p := testParams
	first, _ := seal(t, p, 5, nil, getTemp)
	second, _ := seal(t, p, 5, nil, oscore.Message{Code: byte(coap.PUT), Body: []byte("\xb4temp\xff1")})
	response := answer(t, p, nil, first, content)
	for _, tc := range []struct {
		name     string
		messages [][]byte
		want     string
	}{
		{"replay", [][]byte{datagram(first, "t"), datagram(first, "t")}, "same kid, Partial IV and ciphertext as message 1"},
		{"nonce reuse", [][]byte{datagram(first, "t"), datagram(second, "t")}, "DANGER"},
		{"plain answer", [][]byte{datagram(first, "t"), datagram(oscore.Message{Code: byte(coap.BadRequest)}, "t")}, "4.00 means that the receiver's tag did not fit"},
		{"token changed", [][]byte{datagram(first, "t"), datagram(response, "u")}, "though it answers it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := NewSession(&p, false)
			if err != nil {
				t.Fatal(err)
			}
			var r *Report
			for _, m := range tc.messages {
				r = s.Datagram(m)
			}
			if !strings.Contains(strings.Join(r.Notes, "\n"), tc.want) {
				t.Errorf("notes %q, want %q", r.Notes, tc.want)
			}
		})
	}
}

// TestRederivation opens the first three messages of Appendix B.2.
func TestRederivation(t *testing.T) {
	p := testParams.Clone()
	r1, r2 := []byte("RRRRRRR1"), []byte("RRRRRRR2")
	p.IDContext = r1
	request, _ := seal(t, p, 0, oscore.WrapBstr(r1), getTemp)

	first, err := oscore.New(p.Swap())
	if err != nil {
		t.Fatal(err)
	}
	first.SetKIDContext(oscore.WrapBstr(r1))
	first.Begin()
	q := p.Swap()
	q.IDContext = append(bytes.Clone(r2), r1...)
	second, err := oscore.New(q)
	if err != nil {
		t.Fatal(err)
	}
	var r oscore.Request
	if _, err := first.OpenRequest(nil, &r, request); err != nil {
		t.Fatal(err)
	}
	response, err := r.SealUnder(nil, second, oscore.WrapBstr(r2), oscore.Message{Code: byte(coap.Unauthorized)})
	if err != nil {
		t.Fatal(err)
	}

	s, err := NewSession(&testParams, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Datagram(datagram(request, "t")); got.Opened == nil || got.OSCORE.Rederive.String() != hex.EncodeToString(r1) {
		t.Errorf("request #1: %q", got.Closed)
	}
	if got := s.Datagram(datagram(response, "t")); got.Opened == nil || got.Opened.Code != "4.01 Unauthorized" {
		t.Errorf("response #1: %q", got.Closed)
	}
}

// TestNotification opens notifications of an observation, whatever their order.
func TestNotification(t *testing.T) {
	p := testParams
	register, _ := seal(t, p, 9, nil, oscore.Message{Code: byte(coap.GET), Body: []byte("\x60\x54temp")})
	c, err := oscore.New(p.Swap())
	if err != nil {
		t.Fatal(err)
	}
	c.Begin()
	var r oscore.Request
	if _, err := c.OpenRequest(nil, &r, register); err != nil {
		t.Fatal(err)
	}
	var notifications [][]byte
	for range 3 {
		n, err := c.SealResponse(nil, &r, oscore.Message{Code: byte(coap.Content), Body: []byte("\x60\xffwarm")})
		if err != nil {
			t.Fatal(err)
		}
		notifications = append(notifications, datagram(n, "t"))
	}
	s, err := NewSession(&p, false)
	if err != nil {
		t.Fatal(err)
	}
	s.Datagram(datagram(register, "t"))
	for _, i := range []int{2, 0, 1} {
		got := s.Datagram(notifications[i])
		if got.Opened == nil || got.Opened.Options[0].Number != coap.Observe || *got.OSCORE.Sequence != uint64(i) {
			t.Errorf("notification %d: %+v", i, got)
		}
	}
}

func TestStream(t *testing.T) {
	p := testParams
	request, _ := seal(t, p, 5, nil, getTemp)
	response := answer(t, p, nil, request, content)
	b := append(frame(request, "t"), frame(response, "t")...)
	s, err := NewSession(&p, false)
	if err != nil {
		t.Fatal(err)
	}
	reports := s.Stream(append(b, 0xd0))
	if len(reports) != 3 || reports[0].Opened == nil || reports[1].Opened == nil || reports[1].Opened.Request != 1 || reports[2].Malformed == "" {
		t.Fatalf("%+v", reports)
	}
	if len(reports[0].Bytes)+len(reports[1].Bytes) != len(b) {
		t.Error("the frames' bytes do not add up")
	}
}

// TestFramingHint says what bytes in the wrong framing are.
func TestFramingHint(t *testing.T) {
	request, _ := seal(t, testParams, 5, nil, getTemp)
	s, err := NewSession(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Datagram(frame(request, "t")); !strings.Contains(strings.Join(r.Notes, ""), "--tcp") {
		t.Errorf("frame as datagram: %q %q", r.Malformed, r.Notes)
	}
	if r := s.Stream(datagram(request, "t")); r[0].Malformed == "" || !strings.Contains(strings.Join(r[0].Notes, ""), "leave --tcp out") {
		t.Errorf("datagram as frame: %q %q", r[0].Malformed, r[0].Notes)
	}
}

// TestOptions holds the meaning of option values.
func TestOptions(t *testing.T) {
	for _, tc := range []struct {
		number        uint16
		value         string
		code          coap.Code
		where         place
		meaning, flaw string
	}{
		{coap.Observe, "", coap.GET, plain, "0, register", ""},
		{coap.Observe, "01", coap.FETCH, plain, "1, deregister", ""},
		{coap.Observe, "0a", coap.Content, plain, "10, a notification", ""},
		{coap.ContentFormat, "2d16", coap.Content, inner, "11542, application/vnd.oma.lwm2m+tlv", ""},
		{coap.Block2, "2e", coap.Content, inner, "block 2 of 1024 bytes, from byte 2048 on; more follow", ""},
		{coap.Block1, "07", coap.PUT, plain, "block 0 of 1024 bytes each, several at once (BERT, TCP only)", ""},
		{coap.NoResponse, "1a", coap.POST, inner, "26, not interested in 2.xx, 4.xx, 5.xx", ""},
		{coap.URIPath, "74", coap.GET, outer, `"t"`, "Class E"},
		{coap.URIHost, "68", coap.GET, outer, `"h"`, ""},
		{coap.MaxAge, "", coap.Content, outer, "fresh for 0 s", ""},
		{coap.URIPath, "1b5b", coap.GET, plain, `"\x1b["`, ""},
		{coap.ETag, "", coap.Content, plain, "", "outside of 1 to 8"},
		{coap.OSCORE, "", coap.GET, inner, "", "must not stand inside"},
		{65001, "", coap.GET, plain, "not known here; critical: a receiver that does not know it refuses the message", ""},
		{65000, "", coap.GET, inner, "not known here; elective: a receiver that does not know it skips it", ""},
	} {
		o := newOption(tc.number, unhex(t, tc.value), tc.code, tc.where, false)
		if o.Meaning != tc.meaning || tc.flaw == "" && o.Problem != "" || !strings.Contains(o.Problem, tc.flaw) {
			t.Errorf("%d %s: %q, %q; want %q, %q", tc.number, tc.value, o.Meaning, o.Problem, tc.meaning, tc.flaw)
		}
	}
	if o := newOption(coap.URIHost, []byte("h"), coap.GET, plain, true); !strings.Contains(o.Problem, "only once") {
		t.Errorf("second Uri-Host: %q", o.Problem)
	}
}

func TestPayload(t *testing.T) {
	for _, tc := range []struct {
		payload, cbor, text string
		format              int64
	}{
		{"6869", "", "hi", -1},
		{"a16161f5", `{"a": true}`, "", 60},
		{"01ff", "1, (no well-formed CBOR from byte 1 on)", "", 112},
		{"1b5b324a", "", "", 0},   // an escape sequence must not reach the terminal
		{"e280ae61", "", "", 0},   // nor an override of the writing direction
		{"68690a", "", "hi\n", 0}, // lines may
	} {
		p := newPayload(unhex(t, tc.payload), tc.format)
		if p.CBOR != tc.cbor || p.Text != tc.text {
			t.Errorf("%s: %q, %q", tc.payload, p.CBOR, p.Text)
		}
	}
}

// FuzzSession explains foreign bytes in both framings, with keys and without,
// after a request whose response they may be.
func FuzzSession(f *testing.F) {
	for name, v := range vectors(f) {
		if v.Protected != "" {
			f.Add(unhex(f, v.Protected))
		}
		_ = name
	}
	request, _ := seal(f, testParams, 5, nil, getTemp)
	response := answer(f, testParams, nil, request, content)
	f.Add(datagram(request, "t"))
	f.Add(datagram(response, "t"))
	f.Add(append(frame(request, "t"), frame(response, "t")...))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range []*oscore.Params{nil, &testParams} {
			s, err := NewSession(p, true)
			if err != nil {
				t.Fatal(err)
			}
			s.Datagram(datagram(request, "t"))
			reports := append(s.Stream(b), s.Datagram(b))
			out, err := json.Marshal(reports)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(out, []byte(testParams.MasterSecret)) && !bytes.Contains(b, testParams.MasterSecret) {
				t.Fatal("the report holds the secret")
			}
			d, err := coap.ParseDatagram(b)
			whole := err == nil && coap.Check(d.Body) == nil
			if last := reports[len(reports)-1]; whole != (last.Malformed == "") {
				t.Fatalf("codec %v, explainer %q", err, last.Malformed)
			}
		}
	})
}
