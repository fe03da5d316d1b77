package oscore

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
)

// The places where implementations of RFC 8613 were seen to go wrong, one test
// each, as far as the calculator can show them.

func TestWrongTurn01_WindowBeforeAuthentication(t *testing.T) {
	proof.Checklist(t, "O-8.2-3", "O-7.4-1")
	client, server := testPair(t)
	var p Pending
	genuine := must(client.SealRequest(nil, &p, get))(t)
	forged := must(client.SealRequest(nil, &p, get))(t)
	before, _ := server.WindowState()
	var r Request
	// A forgery with a number far ahead, then one with the genuine number.
	far := withOption(t, forged, []byte{0x0d, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	_, err := server.OpenRequest(nil, &r, far)
	want(t, err, ErrDecrypt)
	broken := Message{genuine.Code, bytes.Clone(genuine.Body)}
	broken.Body[len(broken.Body)-1] ^= 1
	_, err = server.OpenRequest(nil, &r, broken)
	want(t, err, ErrDecrypt)
	after, _ := server.WindowState()
	if after.Next != before.Next || after.Bits[0] != before.Bits[0] {
		t.Errorf("a forged message moved the window: %v, was %v", after, before)
	}
	if r.valid() {
		t.Error("a forged message left a usable Request")
	}
	if _, err := server.OpenRequest(nil, &r, genuine); err != nil {
		t.Error("genuine after forged:", err)
	}
}

func TestWrongTurn02_EchoVerifiedPartialIVIsTheFloor(t *testing.T) {
	client, server := testPair(t)
	server.SetWindow(Window{})
	var old []Message
	for range 5 {
		var p Pending
		old = append(old, must(client.SealRequest(nil, &p, get))(t))
	}
	var r Request
	_, err := server.OpenRequest(nil, &r, old[4])
	want(t, err, ErrUnproven)
	want(t, server.AcceptEcho(&r), nil)
	for _, m := range old {
		_, err := server.OpenRequest(nil, &r, m)
		want(t, err, ErrReplay)
	}
	var p Pending
	if _, err := server.OpenRequest(nil, &r, must(client.SealRequest(nil, &p, get))(t)); err != nil || !r.Proven() {
		t.Errorf("first number above the floor: %v, proven %v", err, r.Proven())
	}
	// One that lies below it can prove itself, once; it cannot be answered
	// before it did. What the window does not reach is given up.
	_, err = server.OpenRequest(nil, &r, old[3])
	want(t, err, ErrLate)
	_, err = r.Seal(nil, content)
	want(t, err, ErrUnproven)
	var again Request
	_, err = server.OpenRequest(nil, &again, old[3])
	want(t, err, ErrLate)
	want(t, server.AcceptEcho(&r), nil)
	want(t, server.AcceptEcho(&again), ErrReplay)
	if again.Proven() || errors.Is(server.AcceptEcho(&again), ErrLate) {
		t.Error("a number was taken twice")
	}
	if _, err = r.Seal(nil, content); err != nil {
		t.Error(err)
	}
	for range defaultWindow {
		if _, err := server.OpenRequest(nil, &r, must(client.SealRequest(nil, &p, get))(t)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = server.OpenRequest(nil, &r, old[2])
	if want(t, err, ErrReplay); errors.Is(err, ErrLate) {
		t.Error("a number before the window can be proven")
	}
}

func TestWrongTurn03_ReplayProtectionIsNeverOff(t *testing.T) {
	proof.Checklist(t, "O-7.4-2", "O-7.4-3")
	t.Run("once", func(t *testing.T) {
		x := newTrip(t, get)
		var r Request
		_, err := x.server.OpenRequest(nil, &r, x.sealed)
		want(t, err, ErrReplay)
		if r.valid() {
			t.Error("a replay left a usable Request")
		}
	})
	t.Run("no window", func(t *testing.T) {
		// Two copies arrive while the window is lost; both come back with the
		// same Echo. One of them is proven.
		client, server := testPair(t)
		server.SetWindow(Window{})
		var p Pending
		m := must(client.SealRequest(nil, &p, get))(t)
		var a, b Request
		_, err := server.OpenRequest(nil, &a, m)
		want(t, err, ErrUnproven)
		_, err = server.OpenRequest(nil, &b, m)
		want(t, err, ErrUnproven)
		want(t, server.AcceptEcho(&a), nil)
		want(t, server.AcceptEcho(&b), ErrReplay)
		if !a.Proven() || b.Proven() {
			t.Errorf("proven: %v %v", a.Proven(), b.Proven())
		}
		_, err = b.Seal(nil, content)
		want(t, err, ErrUnproven)
	})
	t.Run("default is closed", func(t *testing.T) {
		c := must(New(testParams()))(t)
		if c.WindowOpen() {
			t.Error("a context of unknown past has an open window")
		}
		var w Window
		if w.Check(5) == nil || w.Accept(5) == nil {
			t.Error("the zero window accepts")
		}
	})
}

func TestWrongTurn04_NonceServesOneResponse(t *testing.T) {
	proof.Checklist(t, "O-7.2-1", "O-8.3-3", "O-8.3-2")
	x := newTrip(t, get)
	first := x.seal(t, content)
	_, err := x.r.Seal(nil, content)
	want(t, err, ErrNonceSpent)
	second := x.number(t, content)
	o1, _, _ := FindOption(first)
	o2, _, _ := FindOption(second)
	if o1.PartialIV != nil || o2.PartialIV == nil {
		t.Errorf("Partial IVs %x and %x: want none, then one of the server's own", o1.PartialIV, o2.PartialIV)
	}
	t.Run("concurrent", func(t *testing.T) {
		for range 50 {
			x := newTrip(t, get)
			var wg sync.WaitGroup
			errs := make([]error, 8)
			for i := range errs {
				wg.Go(func() { _, errs[i] = x.r.Seal(nil, content) })
			}
			wg.Wait()
			won := 0
			for _, err := range errs {
				if err == nil {
					won++
				} else {
					want(t, err, ErrNonceSpent)
				}
			}
			if won != 1 {
				t.Fatalf("%d of 8 concurrent responses got the request's nonce, want 1", won)
			}
		}
	})
	t.Run("second context", func(t *testing.T) {
		x := newTrip(t, get)
		other := must(New(x.server.paramsForTest([]byte("R2"))))(t)
		if _, err := x.r.SealUnder(nil, other, nil, content); err != nil {
			t.Fatal(err)
		}
		_, err := x.r.Seal(nil, content)
		want(t, err, ErrNonceSpent)
		// R2 must not be used again (Appendix B.2), whatever the request.
		y := request(t, x.client, x.server, get)
		_, err = y.r.SealUnder(nil, other, nil, content)
		want(t, err, ErrNonceSpent)
	})
}

// paramsForTest returns testParams as the server holds them, with an ID
// Context.
func (*Context) paramsForTest(idContext []byte) Params {
	p := testParams()
	p.IDContext = idContext
	return p.Swap()
}

func TestWrongTurn05_MalformedOptionIsRefusedInOrder(t *testing.T) {
	proof.Checklist(t, "O-6.1-2", "O-8.2-2")
	for name, value := range malformedOptions {
		t.Run(name, func(t *testing.T) {
			if o, err := ParseOption(value); err != ErrDecode {
				t.Errorf("ParseOption: %+v, %v", o, err)
			}
			client, server := testPair(t)
			var p Pending
			m := withOption(t, must(client.SealRequest(nil, &p, get))(t), value)
			var r Request
			_, err := server.OpenRequest(nil, &r, m)
			want(t, err, ErrDecode)
			_, err = p.Open(nil, m)
			want(t, err, ErrDecode)
			_, protected, err := FindOption(m)
			want(t, err, ErrDecode)
			if !protected {
				t.Error("FindOption takes it for an unprotected message")
			}
		})
	}
}

var malformedOptions = map[string][]byte{
	"flags zero":                   {0x00},
	"flags zero, bytes left":       {0x00, 0x01},
	"reserved bit 5":               {0x29, 0x00, 0x01},
	"reserved bit 6":               {0x49, 0x00, 0x01},
	"reserved bit 7":               {0x89, 0x00, 0x01},
	"all reserved":                 {0xe9, 0x00, 0x01},
	"n = 6":                        {0x0e, 1, 2, 3, 4, 5, 6, 1},
	"n = 7":                        {0x0f, 1, 2, 3, 4, 5, 6, 7, 1},
	"Partial IV cut":               {0x0d, 1, 2, 3},
	"Partial IV missing":           {0x09},
	"kid context length missing":   {0x19, 0x01},
	"kid context cut":              {0x19, 0x01, 0x05, 0xaa},
	"kid context cut to nothing":   {0x11, 0x01, 0x01},
	"bytes left without a kid":     {0x01, 0x01, 0x02},
	"bytes left after kid context": {0x11, 0x01, 0x01, 0xaa, 0xbb},
	"leading zero":                 {0x0a, 0x00, 0x01, 0x01},
	"leading zeros, value 0":       {0x0d, 0, 0, 0, 0, 0, 0x01},
	"above 255 bytes":              append([]byte{0x09, 0x01}, make([]byte, 254)...),
}

func TestWrongTurn06_LeadingZerosInPartialIV(t *testing.T) {
	proof.Checklist(t, "O-5-2")
	client, server := testPair(t)
	var p Pending
	m := must(client.SealRequest(nil, &p, get))(t)
	var r Request
	_, err := server.OpenRequest(nil, &r, withOption(t, m, []byte{0x0a, 0x00, 0x00, 0x01}))
	want(t, err, ErrDecode)
	for n, piv := range map[uint64][]byte{
		0: {0}, 1: {1}, 255: {255}, 256: {1, 0}, 1<<16 - 1: {255, 255}, 1 << 16: {1, 0, 0}, 1 << 24: {1, 0, 0, 0},
		1 << 32: {1, 0, 0, 0, 0}, MaxSequence: {255, 255, 255, 255, 255},
	} {
		var buf [maxPIVLen]byte
		if got := buf[:putPIV(&buf, n)]; !bytes.Equal(got, piv) || pivNumber(piv) != n {
			t.Errorf("Partial IV of %d: %x, want %x", n, got, piv)
		}
	}
}

func TestWrongTurn07_OptionTwiceOrNoPayload(t *testing.T) {
	proof.Checklist(t, "O-2-2")
	client, server := testPair(t)
	var p Pending
	m := must(client.SealRequest(nil, &p, get))(t)
	opts, payload, _ := coap.Split(m.Body)
	value, _ := opts.Get(coap.OSCORE)
	var r Request
	for name, body := range map[string][]byte{
		"twice":            coap.AppendBody(nil, opts.Add(coap.OSCORE, value), payload),
		"twice, other":     coap.AppendBody(nil, opts.Add(coap.OSCORE, nil), payload),
		"no payload":       coap.AppendBody(nil, opts, nil),
		"marker only":      append(coap.AppendBody(nil, opts, nil), 0xff),
		"no payload, host": coap.AppendBody(nil, opts.Add(coap.URIHost, []byte("h")), nil),
		"broken options":   {0x9f, 0xff, 0x01},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := server.OpenRequest(nil, &r, Message{m.Code, body})
			want(t, err, ErrDecode)
			_, err = p.Open(nil, Message{codeChanged, body})
			want(t, err, ErrDecode)
		})
	}
	_, err := server.OpenRequest(nil, &r, get)
	want(t, err, ErrUnprotected)
	_, err = p.Open(nil, content)
	want(t, err, ErrUnprotected)
}

func TestWrongTurn08_OuterCodeAndClassEOptionsStayOutside(t *testing.T) {
	proof.Checklist(t, "O-4.2-3", "O-8.2-1", "O-4.1.3.1-1", "O-4.1.3.6-3")
	evil := []option{
		{coap.IfMatch, "x"},
		{coap.ETag, "x"},
		{coap.IfNoneMatch, ""},
		{coap.Observe, "\x01"},
		{coap.LocationPath, "x"},
		{coap.URIPath, "evil"},
		{coap.ContentFormat, "\x2a"},
		{coap.MaxAge, ""},
		{coap.URIQuery, "evil"},
		{coap.Accept, "\x2a"},
		{coap.LocationQuery, "x"},
		{coap.Block2, "\x06"},
		{coap.Block1, "\x0e"},
		{coap.Size2, "\x01"},
		{coap.Size1, "\x01"},
		{coap.Echo, "evil"},
		{coap.NoResponse, "\x1a"},
		{coap.RequestTag, "evil"},
		{coap.QBlock1, "\x06"},
		{coap.QBlock2, "\x06"},
		{2048, "elective"},
		{2049, "critical"},
		{65000, "x"},
	}
	add := func(m Message, code coap.Code) Message {
		opts, payload, _ := coap.Split(m.Body)
		for _, o := range evil {
			opts = opts.Add(o.number, []byte(o.value))
		}
		return Message{byte(code), coap.AppendBody(nil, opts, payload)}
	}
	client, server := testPair(t)
	var p Pending
	sealed := must(client.SealRequest(nil, &p, get))(t)
	var r Request
	opened := must(server.OpenRequest(nil, &r, add(sealed, coap.DELETE)))(t)
	sameMessage(t, opened, get)
	response := must(r.Seal(nil, content))(t)
	sameMessage(t, must(p.Open(nil, add(response, coap.NotFound)))(t), content)
}

func TestWrongTurn09_OSCOREOptionInsideThePlaintext(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.7-1")
	client, server := testPair(t)
	inner := msg(coap.GET, "", option{coap.URIPath, "a"}, option{coap.OSCORE, "\x09\x01\x01"})
	var p Pending
	_, err := client.SealRequest(nil, &p, inner)
	want(t, err, ErrNested)
	_, err = client.SealRequestAs(nil, &p, get, msg(coap.POST, "", option{coap.OSCORE, ""}))
	want(t, err, ErrNested)
	if client.NextSequence() != 0 {
		t.Error("a refused message spent a sequence number")
	}
	var r Request
	_, err = server.OpenRequest(nil, &r, forge(t, client, append([]byte{inner.Code}, inner.Body...)))
	want(t, err, ErrPlaintext)
	x := request(t, client, server, get)
	response := msg(coap.Content, "", option{coap.OSCORE, ""})
	_, err = x.r.Seal(nil, response)
	want(t, err, ErrNested)
	_, err = x.p.Open(nil, x.forgeResponse(t, append([]byte{response.Code}, response.Body...), &Option{}))
	want(t, err, ErrPlaintext)
}

func TestWrongTurn10_EmptyKIDContextIsNotAbsent(t *testing.T) {
	proof.Checklist(t, "O-5-7", "O-5-5")
	absent, empty := testParams(), testParams()
	empty.IDContext = []byte{}
	ka, ke := must(absent.Derive())(t), must(empty.Derive())(t)
	if ka.SenderKey.Equal(ke.SenderKey) || ka.RecipientKey.Equal(ke.RecipientKey) || bytes.Equal(ka.CommonIV, ke.CommonIV) {
		t.Error("absent and empty ID Context derive the same")
	}
	ca, sa := newPair(t, absent, absent.Swap())
	ce, se := newPair(t, empty, empty.Swap())
	var p Pending
	ma, me := must(ca.SealRequest(nil, &p, get))(t), must(ce.SealRequest(nil, &p, get))(t)
	oa, _, _ := FindOption(ma)
	oe, _, _ := FindOption(me)
	if oa.KIDContext != nil || oe.KIDContext == nil || len(oe.KIDContext) != 0 {
		t.Errorf("kid contexts %#v and %#v, want absent and empty", oa.KIDContext, oe.KIDContext)
	}
	var r Request
	_, err := sa.OpenRequest(nil, &r, me)
	want(t, err, ErrNoContext)
	_, err = se.OpenRequest(nil, &r, ma) // without kid context it may be anybody's
	want(t, err, ErrDecrypt)
	_, err = se.OpenRequest(nil, &r, me)
	want(t, err, nil)
	if ca.IDContext() != nil || ce.IDContext() == nil {
		t.Error("IDContext does not tell absent from empty")
	}
}

func TestWrongTurn11_MalformedPlaintextAfterValidAEAD(t *testing.T) {
	for name, plaintext := range map[string][]byte{
		"marker without payload": {0x01, 0xff},
		"option cut":             {0x01, 0xb4, 't'},
		"delta 15":               {0x01, 0xf0},
		"length 15":              {0x01, 0x0f},
		"option above 65535":     {0x01, 0xe0, 0xff, 0xff},
		"empty code":             {0x00, 0xb1, 'a'},
		"response code":          {0x45},
		"class 1":                {0x21},
		"class 6":                {0xc1},
		"observe of 4 bytes":     {0x01, 0x64, 1, 2, 3, 4},
		"observe twice":          {0x01, 0x60, 0x00},
		"extended delta cut":     {0x01, 0xd0},
		"extended length cut":    {0x01, 0x0d},
	} {
		t.Run("request/"+name, func(t *testing.T) {
			client, server := testPair(t)
			var r Request
			m := forge(t, client, plaintext)
			opened, err := server.OpenRequest(nil, &r, m)
			want(t, err, ErrPlaintext)
			if opened.Body != nil {
				t.Error("a malformed message was handed out")
			}
			if _, err := r.Seal(nil, msg(coap.BadRequest, "")); err != nil {
				t.Error("the request is authentic and can be answered:", err)
			}
			_, err = server.OpenRequest(nil, &r, m)
			want(t, err, ErrReplay)
		})
		if plaintext[0] == 0x45 {
			continue
		}
		t.Run("response/"+name, func(t *testing.T) {
			x := newTrip(t, observe)
			if plaintext[0] == 0x01 {
				plaintext = append([]byte{0x45}, plaintext[1:]...)
			}
			_, err := x.p.Open(nil, x.forgeResponse(t, plaintext, &Option{}))
			want(t, err, ErrPlaintext)
			if x.p.Done() {
				t.Error("a malformed response ended the exchange")
			}
		})
	}
	t.Run("no code", func(t *testing.T) {
		client, server := testPair(t)
		var r Request
		_, err := server.OpenRequest(nil, &r, forge(t, client, nil))
		want(t, err, ErrDecrypt)
		x := newTrip(t, get)
		_, err = x.p.Open(nil, x.forgeResponse(t, nil, &Option{}))
		want(t, err, ErrDecrypt)
	})
	t.Run("request code in a response", func(t *testing.T) {
		x := newTrip(t, get)
		_, err := x.p.Open(nil, x.forgeResponse(t, []byte{0x01}, &Option{}))
		want(t, err, ErrPlaintext)
	})
}

func TestWrongTurn12_NotificationsOrderedByPartialIV(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.5.2-2", "O-4.1.3.5.2-4", "O-4.1.3.5.2-5", "O-7.4.1-1", "O-7.4.1-2", "O-7.4.1-3", "O-7.4.1-4")
	x := newTrip(t, observe)
	x.server.jump(1<<24 - 2)
	first := x.seal(t, notify)
	var later []Message // their three low bytes wrap around at the third
	for range 5 {
		later = append(later, x.number(t, notify))
	}
	open := func(m Message, wanted error) Message {
		t.Helper()
		opened, err := x.p.Open(nil, m)
		want(t, err, wanted)
		return opened
	}
	open(first, nil)
	open(first, ErrNotification)
	open(later[1], nil)
	open(later[0], ErrStale) // came late
	open(later[1], ErrStale) // came twice
	opened := open(later[3], nil)
	if v, _ := coap.Find(opened.Body, coap.Observe); !bytes.Equal(v, []byte{1}) {
		t.Errorf("Observe value %x, want 01: the low bytes of Partial IV 1000001", v)
	}
	if n, ok := x.p.Notification(); !ok || n != 1<<24+1 {
		t.Errorf("Notification Number %d %v, want %d", n, ok, 1<<24+1)
	}
	// A greater outer Observe value changes nothing.
	opts, payload, _ := coap.Split(later[2].Body)
	lied := coap.AppendBody(nil, opts.Without(coap.Observe).AddUint(coap.Observe, 0xffffff), payload)
	open(Message{later[2].Code, lied}, ErrStale)
	broken := Message{later[4].Code, bytes.Clone(later[4].Body)}
	broken.Body[len(broken.Body)-1] ^= 1
	open(broken, ErrDecrypt)
	open(later[4], nil)
}

func TestWrongTurn13_ReplayedRegistration(t *testing.T) {
	proof.Checklist(t, "O-8-2")
	x := newTrip(t, observe)
	var again Request
	_, err := x.server.OpenRequest(nil, &again, x.sealed)
	want(t, err, ErrReplay)
	// The observation that the first arrival began goes on, through 100 others.
	for range 100 {
		request(t, x.client, x.server, get)
	}
	if _, err := x.p.Open(nil, x.number(t, notify)); err != nil {
		t.Error(err)
	}
}

func TestWrongTurn15_IDsUniqueAndLastNumber(t *testing.T) {
	proof.Checklist(t, "O-3.3-1", "O-3.3-2", "O-7.2.1-1", "O-7.2.1-2", "O-3.2-1")
	t.Run("equal IDs", func(t *testing.T) {
		for _, id := range [][]byte{nil, {}, {1}, {1, 2, 3}} {
			p := testParams()
			p.SenderID, p.RecipientID = id, bytes.Clone(id)
			_, err := New(p)
			want(t, err, errEqualIDs)
		}
	})
	t.Run("IDs too long for the nonce", func(t *testing.T) {
		for _, a := range AEADs() {
			for _, side := range []string{"sender", "recipient"} {
				p := testParams()
				p.AEAD = a
				id := &p.SenderID
				if side == "recipient" {
					id = &p.RecipientID
				}
				*id = make([]byte, a.MaxIDLen())
				if _, err := New(p); err != nil {
					t.Errorf("%v: %v", a, err)
				}
				*id = make([]byte, a.MaxIDLen()+1)
				if _, err := New(p); err == nil || !strings.Contains(err.Error(), side) {
					t.Errorf("%v: a %s ID above the limit: %v", a, side, err)
				}
			}
		}
	})
	t.Run("last number", func(t *testing.T) {
		client, server := testPair(t)
		client.jump(MaxSequence)
		x := request(t, client, server, get)
		if x.r.PartialIV() != MaxSequence {
			t.Fatalf("last number is %d", x.r.PartialIV())
		}
		var p Pending
		_, err := client.SealRequest(nil, &p, get)
		want(t, err, ErrSequenceExhausted)
		_, err = client.SealRequestAs(nil, &p, get, Message{Code: codePOST})
		want(t, err, ErrSequenceExhausted)
		server.jump(MaxSequence + 1)
		_, err = server.SealResponse(nil, &x.r, content)
		want(t, err, ErrSequenceExhausted)
		want(t, client.Extend(MaxSequence, MaxSequence+1), ErrLease)
		want(t, client.Extend(MaxSequence+1, MaxSequence+2), ErrLease)
		if p.valid() {
			t.Error("a refused request left a usable Pending")
		}
		// The exchange that is open still ends: it needs no number.
		if _, err := x.p.Open(nil, x.seal(t, content)); err != nil {
			t.Error(err)
		}
	})
}

func TestWrongTurn16_StateOfAnExchangeAfterAForgery(t *testing.T) {
	proof.Checklist(t, "O-8.4-2", "O-8.4.2-1")
	x := newTrip(t, observe)
	first, second := x.seal(t, notify), x.number(t, notify)
	other := request(t, x.client, x.server, get)
	answer := other.seal(t, content)
	state := func() [4]any { n, ok := x.p.Notification(); return [4]any{x.p.Done(), x.p.nonceUsed, n, ok} }
	before := state()
	for name, c := range map[string]struct {
		m    Message
		want error
	}{
		"another's response": {answer, ErrDecrypt},
		"plain error":        {msg(coap.Unauthorized, "Replay detected"), ErrUnprotected},
		"cut":                {Message{codeContent, []byte{0x90, 0xff, 1, 2, 3}}, ErrDecrypt},
		"own request":        {x.sealed, ErrDecrypt},
		"number raised":      {withOption(t, second, []byte{0x01, 0x63}), ErrDecrypt},
		"number added":       {withOption(t, first, []byte{0x01, 0x00}), ErrDecrypt},
		"number removed":     {withOption(t, second, nil), ErrDecrypt},
	} {
		_, err := x.p.Open(nil, c.m)
		want(t, err, c.want)
		if state() != before {
			t.Fatalf("%s changed the exchange: %v, was %v", name, state(), before)
		}
	}
	for _, m := range []Message{first, second} {
		if _, err := x.p.Open(nil, m); err != nil {
			t.Error("genuine after forged:", err)
		}
	}
}
