package oscore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/ccm"
	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
)

func TestLease(t *testing.T) {
	proof.Checklist(t, "O-7.2-1", "O-7.2.1-1", "O-7.5-1", "O-B.1.1-1")
	c := must(New(testParams()))(t)
	var p Pending
	spend := func() (uint64, error) {
		if _, err := c.SealRequest(nil, &p, get); err != nil {
			return 0, err
		}
		return p.PartialIV(), nil
	}
	spends := func(numbers ...uint64) {
		t.Helper()
		for _, n := range numbers {
			if got, err := spend(); err != nil || got != n {
				t.Fatalf("spent %d, %v, want %d", got, err, n)
			}
		}
	}
	_, err := spend()
	want(t, err, ErrLeaseExhausted) // of unknown past: nothing to send with
	want(t, c.Extend(0, 0), ErrLease)
	want(t, c.Extend(5, 4), ErrLease)
	want(t, c.Extend(0, MaxSequence+2), ErrLease)
	want(t, c.Extend(0, math.MaxUint64), ErrLease)
	want(t, c.Extend(10, 12), nil)
	spends(10)
	want(t, c.Extend(10, 20), ErrLease) // given already
	want(t, c.Extend(11, 20), ErrLease) // leased already
	want(t, c.Extend(12, 14), nil)      // goes on where the first ends
	if left := c.LeaseLeft(); left != 3 {
		t.Errorf("%d left, want 3", left)
	}
	spends(11, 12)
	want(t, c.Extend(20, 21), nil) // 13 is given up
	spends(20)
	_, err = spend()
	want(t, err, ErrLeaseExhausted)
	if c.NextSequence() != 21 || c.LeaseLeft() != 0 {
		t.Errorf("next %d, left %d", c.NextSequence(), c.LeaseLeft())
	}
	want(t, c.Extend(21, 30), nil)
	c.EndLease()
	_, err = spend()
	want(t, err, ErrLeaseExhausted)
	want(t, c.Extend(MaxSequence, MaxSequence+1), nil)
	spends(MaxSequence)
	_, err = spend()
	want(t, err, ErrSequenceExhausted)
}

func TestBeginOnAContextInUsePanics(t *testing.T) {
	for name, use := range map[string]func(*Context){
		"begun":    (*Context).Begin,
		"leased":   func(c *Context) { _ = c.Extend(0, 1) },
		"spent":    func(c *Context) { _ = c.Extend(0, 1); _, _ = c.take(); c.EndLease() },
		"windowed": func(c *Context) { c.SetWindow(Fresh(0)) },
		"wiped":    (*Context).Wipe,
	} {
		t.Run(name, func(t *testing.T) {
			c := must(New(testParams()))(t)
			use(c)
			defer func() {
				if recover() == nil {
					t.Error("Begin did not panic")
				}
			}()
			c.Begin()
		})
	}
}

// TestEchoRecovery is Appendix B.1.2: the server lost its window.
func TestEchoRecovery(t *testing.T) {
	proof.Checklist(t, "O-B.1.2-1", "O-7.5-1")
	client, server := testPair(t)
	captured := request(t, client, server, get).sealed
	// Reboot: numbers go on from a lease, the window is gone.
	server = must(New(testParams().Swap()))(t)
	want(t, server.Extend(1000, 1010), nil)
	var r Request
	opened, err := server.OpenRequest(nil, &r, captured)
	want(t, err, ErrUnproven)
	sameMessage(t, opened, get)
	if r.Proven() {
		t.Fatal("a replay counts as proven")
	}
	_, err = r.Seal(nil, content)
	want(t, err, ErrUnproven)
	_, err = server.SealResponse(nil, &r, content)
	want(t, err, ErrUnproven)

	x := &trip{client: client, server: server}
	sealed := must(client.SealRequest(nil, &x.p, get))(t)
	_, err = server.OpenRequest(nil, &x.r, sealed)
	want(t, err, ErrUnproven)
	for _, echo := range []string{"", strings.Repeat("e", 41)} {
		_, err = server.SealChallenge(nil, &x.r, []byte(echo))
		want(t, err, ErrInvalid)
	}
	echo := strings.Repeat("e", 40)
	challenge := must(server.SealChallenge(nil, &x.r, []byte(echo)))(t)
	if o, _, _ := FindOption(challenge); pivNumber(o.PartialIV) != 1000 {
		t.Errorf("challenge under Partial IV %x, want 1000", o.PartialIV)
	}
	sameMessage(t, must(x.p.Open(nil, challenge))(t), msg(coap.Unauthorized, "", option{coap.Echo, echo}))

	var p Pending
	again := must(client.SealRequest(nil, &p, msg(coap.GET, "", option{coap.URIPath, "temp"}, option{coap.Echo, echo})))(t)
	opened, err = server.OpenRequest(nil, &r, again)
	want(t, err, ErrUnproven)
	if got, _ := coap.Find(opened.Body, coap.Echo); string(got) != echo {
		t.Fatalf("Echo %q", got)
	}
	want(t, server.AcceptEcho(&r), nil)
	want(t, server.AcceptEcho(&r), nil) // proven is proven
	if !server.WindowOpen() || !r.Proven() {
		t.Fatal("the window is not open")
	}
	sameMessage(t, must(p.Open(nil, must(r.Seal(nil, content))(t)))(t), content)
	for _, m := range []Message{captured, sealed, again} {
		_, err := server.OpenRequest(nil, &r, m)
		want(t, err, ErrReplay)
	}
	// A malformed message is no reason to answer under an old nonce.
	server.SetWindow(Window{})
	opened, err = server.OpenRequest(nil, &r, forge(t, client, []byte{0x01, 0xff}))
	if want(t, err, ErrUnproven); opened.Body != nil {
		t.Error("a malformed message was handed out")
	}
	_, err = r.Seal(nil, msg(coap.BadRequest, ""))
	want(t, err, ErrUnproven)
	other := must(New(testParams().Swap()))(t)
	want(t, other.AcceptEcho(&r), ErrContextChanged)
}

// TestRederivation is Appendix B.2, Figure 14.
func TestRederivation(t *testing.T) {
	proof.Checklist(t, "O-B.2-1", "O-B.2-3", "O-B.2-4")
	for _, a := range AEADs() {
		derive := func(p Params, id, kidContext string) *Context {
			p.AEAD, p.IDContext = a, []byte(id)
			c := must(New(p))(t)
			c.Begin()
			want(t, c.SetKIDContext(WrapBstr([]byte(kidContext))), nil)
			return c
		}
		client, server := testParams(), testParams().Swap()
		// 1. request #1 under R1
		x := &trip{client: derive(client, "R1r1r1r1", "R1r1r1r1"), server: derive(server, "R1r1r1r1", "")}
		x.server.SetWindow(Window{}) // the server knows nothing of R1's past
		sealed := must(x.client.SealRequest(nil, &x.p, get))(t)
		if o, _, _ := FindOption(sealed); string(o.KIDContext) != "\x48R1r1r1r1" {
			t.Fatalf("kid context %x", o.KIDContext)
		}
		_, err := x.server.OpenRequest(nil, &x.r, sealed)
		want(t, err, ErrUnproven)
		// 2. response #1 under R2 || R1, nonce of the request as it is
		second := derive(server, "R2r2r2r2R1r1r1r1", "")
		answer := must(x.r.SealUnder(nil, second, WrapBstr([]byte("R2r2r2r2")), msg(coap.Unauthorized, "")))(t)
		o, _, _ := FindOption(answer)
		if o.PartialIV != nil || string(o.KIDContext) != "\x48R2r2r2r2" {
			t.Fatalf("option of response #1: %+v", o)
		}
		_, ciphertext, _ := coap.Split(answer.Body)
		twin := derive(client, "R2r2r2r2R1r1r1r1", "")
		plaintext := must(twin.keys.open(nil, x.p.nonceBytes(), ciphertext, x.p.aadBytes()))(t)
		equal(t, "response #1 under the request's literal nonce", plaintext, []byte{byte(coap.Unauthorized)})
		// 3. the client opens it with its own second context only
		_, err = x.p.Open(nil, answer)
		want(t, err, ErrDecrypt)
		_, err = x.p.OpenUnder(nil, derive(client, "R2r2r2r3R1r1r1r1", ""), answer)
		want(t, err, ErrDecrypt)
		sameMessage(t, must(x.p.OpenUnder(nil, twin, answer))(t), msg(coap.Unauthorized, ""))
		// 4. and 5. request and response #2 under R2 || R3
		y := request(t, derive(client, "R2r2r2r2R3r3r3r3", "R2r2r2r2R3r3r3r3"), derive(server, "R2r2r2r2R3r3r3r3", ""), get)
		sameMessage(t, must(y.p.Open(nil, y.seal(t, content)))(t), content)
		_, err = y.server.OpenRequest(nil, &y.r, y.sealed)
		want(t, err, ErrReplay)
		_, err = y.server.OpenRequest(nil, &y.r, sealed)
		want(t, err, ErrNoContext)

		// The first context itself, or one of another algorithm, is no second.
		_, err = x.r.SealUnder(nil, x.server, nil, content)
		want(t, err, ErrContextChanged)
		q := server
		q.AEAD = AESCCM16_64_128
		if a == AESCCM16_64_128 {
			q.AEAD = AESCCM16_128_128
		}
		_, err = x.r.SealUnder(nil, must(New(q))(t), nil, content)
		want(t, err, ErrContextChanged)
		_, err = x.p.OpenUnder(nil, must(New(q.Swap()))(t), answer)
		want(t, err, ErrContextChanged)
	}
	c := must(New(testParams()))(t)
	want(t, c.SetKIDContext(make([]byte, MaxKIDContext+1)), ErrInvalid)
	x := newTrip(t, get)
	_, err := x.r.SealUnder(nil, must(New(testParams()))(t), make([]byte, MaxKIDContext+1), content)
	want(t, err, ErrInvalid)
}

// TestLongestOption: the longest kid and kid context together fit option 9.
func TestLongestOption(t *testing.T) {
	p := testParams()
	p.SenderID = []byte("7 bytes")
	p.IDContext = make([]byte, MaxIDContext)
	client, server := newPair(t, p, p.Swap())
	want(t, client.SetKIDContext(WrapBstr(p.IDContext)), nil)
	client.jump(MaxSequence)
	x := request(t, client, server, observe)
	if value, _ := coap.Find(x.sealed.Body, coap.OSCORE); len(value) > 255 {
		t.Errorf("option of %d bytes", len(value))
	}
	p.IDContext = make([]byte, MaxIDContext+1)
	_, err := New(p)
	want(t, err, errIDContext)
}

func TestKIDContext(t *testing.T) {
	proof.Checklist(t, "O-5-5", "O-5-7")
	p := testParams()
	p.IDContext = []byte("ctx")
	client, server := newPair(t, p, p.Swap())
	for _, c := range []struct {
		send []byte
		want error
	}{
		{nil, nil},
		{[]byte("ctx"), nil},
		{WrapBstr([]byte("ctx")), nil},
		{[]byte{}, ErrNoContext},
		{[]byte("ct"), ErrNoContext},
		{[]byte("ctxx"), ErrNoContext},
		{WrapBstr([]byte("cty")), ErrNoContext},
		{WrapBstr(nil), ErrNoContext},
	} {
		want(t, client.SetKIDContext(c.send), nil)
		var pending Pending
		var r Request
		_, err := server.OpenRequest(nil, &r, must(client.SealRequest(nil, &pending, get))(t))
		wantNamed(t, fmt.Sprintf("%x", c.send), err, c.want)
	}
	p.OmitKIDContext = true
	omitting, _ := newPair(t, p, p.Swap())
	omitting.jump(100)
	var pending Pending
	sealed := must(omitting.SealRequest(nil, &pending, get))(t)
	if o, _, _ := FindOption(sealed); o.KIDContext != nil {
		t.Error("the kid context is sent although it is to be left out")
	}
	var r Request
	_, err := server.OpenRequest(nil, &r, sealed)
	want(t, err, nil)
	// Another kid is another context.
	q := testParams()
	q.SenderID, q.IDContext = []byte{0x02}, []byte("ctx")
	stranger, _ := newPair(t, q, q.Swap())
	_, err = server.OpenRequest(nil, &r, must(stranger.SealRequest(nil, &pending, get))(t))
	want(t, err, ErrNoContext)
}

// TestContextReplacedMeanwhile: a slow handler answers under the keys of its
// request or not at all.
func TestContextReplacedMeanwhile(t *testing.T) {
	x := newTrip(t, get)
	p := testParams()
	p.MasterSecret = Secret("a later secret !")
	_, later := newPair(t, p, p.Swap())
	_, err := later.SealResponse(nil, &x.r, content)
	want(t, err, ErrContextChanged)
	_, err = later.SealChallenge(nil, &x.r, []byte("e"))
	want(t, err, ErrContextChanged)
	sameMessage(t, must(x.p.Open(nil, x.seal(t, content)))(t), content)
}

func TestWipe(t *testing.T) {
	for _, a := range AEADs() {
		p := testParams()
		p.AEAD = a
		client, server := newPair(t, p, p.Swap())
		x := request(t, client, server, get)
		var pending Pending
		sealed := must(client.SealRequest(nil, &pending, get))(t)
		server.Wipe()
		if server.LeaseLeft() != 0 || server.WindowOpen() {
			t.Errorf("lease %d, window %v", server.LeaseLeft(), server.WindowOpen())
		}
		_, err := server.SealRequest(nil, &pending, get)
		want(t, err, ErrSequenceExhausted)
		_, err = server.OpenRequest(nil, &x.r, sealed)
		want(t, err, ErrDecrypt)
		want(t, server.Extend(0, 10), ErrLease)
		client.Wipe()
		y := newTrip(t, get)
		y.server.Wipe()
		m, err := y.r.Seal(make([]byte, 0, 100), content)
		if want(t, err, ccm.ErrNoKey); m.Body != nil {
			t.Error("a wiped context sealed")
		}
	}
}

func TestUsage(t *testing.T) {
	client, server := testPair(t)
	x := request(t, client, server, get)
	x.seal(t, content)
	x.number(t, content)
	if u := server.Usage(); u.Encrypted != 2 {
		t.Errorf("%d encryptions at most, want 2", u.Encrypted)
	}
	broken := Message{x.sealed.Code, bytes.Clone(x.sealed.Body)}
	broken.Body[len(broken.Body)-1] ^= 1
	server.SetWindow(Fresh(0))
	for range 3 {
		var r Request
		_, err := server.OpenRequest(nil, &r, broken)
		want(t, err, ErrDecrypt)
	}
	if u := server.Usage(); u.Encrypted != 1 || u.Failed != 3 || u.Near() {
		t.Errorf("%+v", u)
	}
	// After a restart the bound is what it was: lease and window tell it.
	restarted := must(New(testParams().Swap()))(t)
	want(t, restarted.Extend(2000, 3000), nil)
	restarted.SetWindow(FromEcho(0, 99))
	if u := restarted.Usage(); u.Encrypted != 2100 {
		t.Errorf("%d encryptions at most after a restart, want 2100", u.Encrypted)
	}
	for _, c := range []struct {
		u    Usage
		near bool
	}{
		{Usage{Encrypted: limitQ/4*3 - 1, LimitQ: limitQ, LimitV: 1 << 14}, false},
		{Usage{Encrypted: limitQ / 4 * 3, LimitQ: limitQ, LimitV: 1 << 14}, true},
		{Usage{Failed: 1<<14/4*3 - 1, LimitQ: limitQ, LimitV: 1 << 14}, false},
		{Usage{Failed: 1 << 14 / 4 * 3, LimitQ: limitQ, LimitV: 1 << 14}, true},
	} {
		if c.u.Near() != c.near {
			t.Errorf("%+v: near %v", c.u, !c.near)
		}
	}
	for _, a := range AEADs() {
		wanted := uint64(1 << 20)
		if a.TagLen() == 8 {
			wanted = 1 << 14
		}
		p := testParams()
		p.AEAD = a
		if u := must(New(p))(t).Usage(); u.LimitV != wanted || u.LimitQ != 1<<20 {
			t.Errorf("%v: %+v", a, u)
		}
	}
}

func TestParamsRefused(t *testing.T) {
	proof.Checklist(t, "O-3.2-1", "O-3.2.1-1")
	for name, c := range map[string]struct {
		change func(*Params)
		text   string
	}{
		"secret missing":  {func(p *Params) { p.MasterSecret = nil }, "master secret"},
		"AEAD unknown":    {func(p *Params) { p.AEAD = 2000 }, "AEAD algorithm 2000"},
		"AEAD negative":   {func(p *Params) { p.AEAD = -1 }, "AEAD algorithm -1"},
		"HKDF unknown":    {func(p *Params) { p.HKDF = 4 }, "HKDF algorithm 4"},
		"HKDF by direct":  {func(p *Params) { p.HKDF = -10 }, "HKDF algorithm -10"},
		"window negative": {func(p *Params) { p.WindowSize = -1 }, "window size"},
		"window too big":  {func(p *Params) { p.WindowSize = 1025 }, "window size"},
		"ID too long":     {func(p *Params) { p.SenderID = make([]byte, 8) }, "sender ID 0000000000000000 of 8 bytes"},
	} {
		p := testParams()
		c.change(&p)
		_, err := New(p)
		if err == nil || !strings.HasPrefix(err.Error(), "oscore: ") || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q in it", name, err, c.text)
		}
		if _, err := p.Derive(); err == nil {
			t.Errorf("%s: Derive accepts", name)
		}
	}
	p := testParams()
	p.IDContext = []byte("x")
	q := p.Clone()
	q.MasterSecret[0]++
	q.MasterSalt[0]++
	q.IDContext[0]++
	q.SenderID[0]++
	if p.MasterSecret[0] == q.MasterSecret[0] || p.MasterSalt[0] == q.MasterSalt[0] || p.IDContext[0] == q.IDContext[0] || p.SenderID[0] == q.SenderID[0] {
		t.Error("Clone shares memory")
	}
	if s := p.Swap().Swap(); !bytes.Equal(s.SenderID, p.SenderID) || !bytes.Equal(s.RecipientID, p.RecipientID) {
		t.Error("Swap twice is not the same")
	}
}

// TestParamsAreCopied: a context does not change with the caller's memory.
func TestParamsAreCopied(t *testing.T) {
	p := testParams()
	p.IDContext = []byte("ctx")
	client, server := newPair(t, p, p.Swap())
	for _, b := range [][]byte{p.MasterSecret, p.MasterSalt, p.IDContext, p.SenderID} {
		clear(b)
	}
	x := request(t, client, server, get)
	sameMessage(t, x.opened, get)
	if string(client.SenderID()) != "\x01" || string(server.RecipientID()) != "\x01" || string(client.IDContext()) != "ctx" {
		t.Error("IDs changed with the caller's memory")
	}
}

func TestAlgorithmNames(t *testing.T) {
	for _, a := range AEADs() {
		for _, s := range []string{a.String(), fmt.Sprint(int(a))} {
			if got, err := ParseAEAD(s); err != nil || got != a {
				t.Errorf("ParseAEAD(%q) = %v, %v", s, got, err)
			}
		}
		if a.KeyLen() == 0 || a.NonceLen() == 0 || a.TagLen() == 0 || a.MaxIDLen() != a.NonceLen()-6 {
			t.Errorf("%v: sizes %d %d %d", a, a.KeyLen(), a.NonceLen(), a.TagLen())
		}
	}
	if AEAD(0).String() != "AES-CCM-16-64-128" || HKDF(0).String() != "HKDF SHA-256" {
		t.Error("zero is not the default")
	}
	for s, h := range map[string]HKDF{
		"HKDF SHA-256": 5, "SHA-256": 5, "sha256": 5, "5": 5, "-10": 5, "SHA-384": 6, "6": 6, "SHA-512": 7, "7": 7, "-11": 7, "HKDF SHA-512": 7,
	} {
		if got, err := ParseHKDF(s); err != nil || got != h {
			t.Errorf("ParseHKDF(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "sha1", "-12", "10 "} {
		if a, err := ParseAEAD(s); err == nil {
			t.Errorf("ParseAEAD(%q) = %v", s, a)
		}
		if h, err := ParseHKDF(s); err == nil {
			t.Errorf("ParseHKDF(%q) = %v", s, h)
		}
	}
	if s := AEAD(77).String() + HKDF(77).String(); s != "AEAD(77)HKDF(77)" {
		t.Error(s)
	}
	if AEAD(77).MaxIDLen() != 0 || AEAD(77).KeyLen() != 0 {
		t.Error("an unknown algorithm has sizes")
	}
}

// TestSecretsStayOutOfEveryFormat prints everything that holds keys.
func TestSecretsStayOutOfEveryFormat(t *testing.T) {
	p := testParams()
	p.MasterSecret = Secret("SECRETSECRET")
	keys := must(p.Derive())(t)
	c, _ := newPair(t, p, p.Swap())
	x := newTrip(t, get)
	var out strings.Builder
	for _, v := range []any{p, &p, p.MasterSecret, &p.MasterSecret, keys, &keys, c, *c, Context{}, &x.p, &x.r, []any{c}, []any{p.MasterSecret}, map[string]Secret{"k": p.MasterSecret}} {
		// Not %p, which asks no Formatter: go vet refuses it for a struct.
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "p", p, "s", p.MasterSecret, "k", keys)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "p", p, "s", p.MasterSecret, "k", keys)
	raw := must(json.Marshal(map[string]any{"p": p, "k": keys}))(t)
	out.Write(raw)
	text := out.String()
	other := testParams()
	otherKeys := must(other.Derive())(t)
	for _, secret := range [][]byte{p.MasterSecret, keys.SenderKey, keys.RecipientKey, otherKeys.SenderKey, otherKeys.RecipientKey} {
		for _, form := range []string{
			"%s", "%x", "%X", "%d", "%v", "% x",
		} {
			if s := strings.Trim(fmt.Sprintf(form, secret), "[]"); strings.Contains(text, s) {
				t.Errorf("a secret is printed as %s", form)
			}
		}
	}
	if !strings.Contains(text, "[redacted]") {
		t.Error("nothing was redacted")
	}
}
