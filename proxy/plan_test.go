package proxy

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
)

func testRules(t *testing.T, cfg Config) rules {
	t.Helper()
	cfg.Listen = ":0"
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRules(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var anywhere = &Forward{Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}

func opts(list ...any) (o coap.Options) {
	for i := 0; i < len(list); i += 2 {
		switch v := list[i+1].(type) {
		case string:
			o = o.Add(uint16(list[i].(int)), []byte(v))
		case int:
			o = o.AddUint(uint16(list[i].(int)), uint32(v))
		}
	}
	return o
}

// TestForwardOptions: where a request for a forward-proxy goes and what of its
// options goes on (RFC 7252 §5.7.2, §6.4).
func TestForwardOptions(t *testing.T) {
	for name, c := range map[string]struct {
		in, out coap.Options
		to      target
	}{
		"Proxy-Uri, origin only": {opts(35, "coap://192.0.2.1", 9, "x"), opts(9, "x"), newTarget("192.0.2.1", 5683)},
		"Proxy-Uri, port":        {opts(35, "coap://192.0.2.1:7/"), nil, newTarget("192.0.2.1", 7)},
		"Proxy-Uri, IPv6":        {opts(35, "coap://[2001:db8::1]:7"), nil, newTarget("2001:db8::1", 7)},
		"Proxy-Uri, name":        {opts(35, "COAP://Example.ORG"), opts(3, "example.org"), newTarget("example.org", 5683)},
		"Proxy-Uri, whole":       {opts(35, "coap://h/a/b%2Fc?x=1&y=%26"), opts(3, "h", 11, "a", 11, "b/c", 15, "x=1", 15, "y=&"), newTarget("h", 5683)},
		"Proxy-Uri takes precedence": {
			opts(3, "other", 7, 9, 11, "p", 15, "q", 35, "coap://192.0.2.1", 39, "coaps"), nil, newTarget("192.0.2.1", 5683),
		},
		"Proxy-Scheme":          {opts(3, "192.0.2.1", 7, 9, 9, "x", 39, "coap"), opts(9, "x"), newTarget("192.0.2.1", 9)},
		"Proxy-Scheme, no port": {opts(3, "h", 11, "p", 39, "coap"), opts(3, "h", 11, "p"), newTarget("h", 5683)},
		"unknown, safe":         {opts(35, "coap://192.0.2.1", 65001&^2, "v", 292, "tag"), opts(292, "tag", 65001&^2, "v"), newTarget("192.0.2.1", 5683)},
	} {
		t.Run(name, func(t *testing.T) {
			r := testRules(t, Config{Forward: anywhere, HopLimit: -1})
			p, bad := r.plan(nil, coap.AppendBody(nil, c.in, []byte("payload")), nil)
			if bad != nil {
				t.Fatalf("refused: %v %s", bad.code, bad.why)
			}
			if want := coap.AppendBody(nil, c.out, []byte("payload")); !bytes.Equal(p.body, want) {
				t.Errorf("body %x, want %x", p.body, want)
			}
			if p.target != c.to || !p.open {
				t.Errorf("target %+v, want %+v", p.target, c.to)
			}
		})
	}
}

// TestRefusals: what a proxy must refuse, and with which code.
func TestRefusals(t *testing.T) {
	both := Config{Forward: anywhere, Routes: []Route{{Host: "h", To: "192.0.2.1:5683"}}}
	reverse := Config{Routes: []Route{{To: "192.0.2.1:5683"}}}
	for name, c := range map[string]struct {
		cfg  Config
		in   coap.Options
		code coap.Code
	}{
		"unknown, critical, unsafe": {reverse, opts(65003, "v"), coap.BadOption},
		"unknown, elective, unsafe": {reverse, opts(65002, "v"), coap.BadOption},
		"Q-Block1":                  {reverse, opts(19, 1), coap.BadOption},
		"no forward-proxy":          {reverse, opts(35, "coap://192.0.2.1"), coap.ProxyingNotSupported},
		"no forward-proxy, scheme":  {reverse, opts(3, "h", 39, "coap"), coap.ProxyingNotSupported},
		"other scheme":              {both, opts(35, "coaps://192.0.2.1"), coap.ProxyingNotSupported},
		"other Proxy-Scheme":        {both, opts(3, "h", 39, "http"), coap.ProxyingNotSupported},
		"relative":                  {both, opts(35, "/path"), coap.BadRequest},
		"no host":                   {both, opts(35, "coap://:99/"), coap.BadRequest},
		"user information":          {both, opts(35, "coap://me:secret@192.0.2.1"), coap.BadRequest},
		"fragment":                  {both, opts(35, "coap://192.0.2.1/#a"), coap.BadRequest},
		"port 0":                    {both, opts(35, "coap://192.0.2.1:0"), coap.BadRequest},
		"port 65536":                {both, opts(35, "coap://192.0.2.1:65536"), coap.BadRequest},
		"scheme without host":       {both, opts(39, "coap"), coap.BadRequest},
		"two Proxy-Uri":             {both, opts(35, "coap://192.0.2.1", 35, "coap://192.0.2.2"), coap.BadOption},
		"empty Proxy-Uri":           {both, opts(35, ""), coap.BadOption},
		"two Uri-Host":              {both, opts(3, "h", 3, "i"), coap.BadOption},
		"Uri-Host that is no text":  {both, opts(3, "\xff"), coap.BadOption},
		"no route":                  {both, opts(3, "other"), coap.NotFound},
		"Hop-Limit 0":               {both, opts(3, "h", 16, "\x00"), coap.BadRequest},
		"Hop-Limit, two bytes":      {both, opts(3, "h", 16, "\x01\x01"), coap.BadRequest},
		"Hop-Limit 1":               {both, opts(3, "h", 16, 1), coap.HopLimitReached},
	} {
		t.Run(name, func(t *testing.T) {
			r := testRules(t, c.cfg)
			_, bad := r.plan(nil, coap.AppendBody(nil, c.in, nil), nil)
			if bad == nil || bad.code != c.code {
				t.Fatalf("%+v, want %v", bad, c.code)
			}
			if bytes.Contains(bad.body(), []byte("secret")) {
				t.Error("the answer repeats what it was sent")
			}
		})
	}
}

// TestRoutes: by Uri-Host, kid and kid context, in their order.
func TestRoutes(t *testing.T) {
	r := testRules(t, Config{Routes: []Route{
		{Host: "A.example", To: "192.0.2.1:1"},
		{KID: []byte{1}, KIDContext: []byte{7, 7}, To: "192.0.2.1:2"},
		{KID: []byte{1}, To: "192.0.2.1:3"},
		{KID: []byte{}, To: "192.0.2.1:4"},
		{KIDContext: []byte{9}, To: "192.0.2.1:5"},
		{To: "192.0.2.1:6"},
	}})
	for name, c := range map[string]struct {
		in   coap.Options
		port uint16
	}{
		"host":             {opts(3, "a.EXAMPLE", 9, "\x09\x05\x01"), 1},
		"kid and context":  {opts(9, "\x19\x05\x02\x07\x07\x01"), 2},
		"kid":              {opts(9, "\x09\x05\x01"), 3},
		"other context":    {opts(9, "\x19\x05\x01\x08\x01"), 3},
		"empty kid":        {opts(9, "\x09\x05"), 4},
		"context":          {opts(9, "\x19\x05\x01\x09\x02"), 5},
		"another kid":      {opts(9, "\x09\x05\x03"), 6},
		"no option":        {nil, 6},
		"malformed option": {opts(9, "\x1f\x05"), 6},
	} {
		t.Run(name, func(t *testing.T) {
			p, bad := r.plan(nil, coap.AppendBody(nil, c.in, nil), nil)
			if bad != nil || p.target.port != c.port {
				t.Fatalf("to port %d, want %d; %+v", p.target.port, c.port, bad)
			}
		})
	}
}

// TestHopLimit: decremented, put in where it is missing, and the names gather
// in the answer (RFC 8768 §3, §4).
func TestHopLimit(t *testing.T) {
	r := testRules(t, Config{Routes: []Route{{To: "192.0.2.1:1"}}})
	for in, want := range map[byte]byte{0: 16, 2: 1, 255: 254} {
		var o coap.Options
		if in != 0 {
			o = o.Add(coap.HopLimit, []byte{in})
		}
		p, bad := r.plan(nil, coap.AppendBody(nil, o, nil), nil)
		if bad != nil {
			t.Fatal(bad)
		}
		if v, _ := coap.Find(p.body, coap.HopLimit); !bytes.Equal(v, []byte{want}) {
			t.Errorf("Hop-Limit %d became %d, want %d", in, v, want)
		}
	}
	body := nameInHopLimit(coap.AppendPayload(nil, []byte("first")), "second")
	if !bytes.Equal(body, coap.AppendPayload(nil, []byte("second first"))) {
		t.Errorf("%q", body)
	}
}

// TestConfigErrors: each names what is wrong.
func TestConfigErrors(t *testing.T) {
	for name, cfg := range map[string]Config{
		"nothing":         {},
		"nowhere":         {Listen: ":0"},
		"no network":      {Listen: ":0", Forward: &Forward{}},
		"hop limit":       {Listen: ":0", Forward: anywhere, HopLimit: 256},
		"route, no port":  {Listen: ":0", Routes: []Route{{To: "192.0.2.1"}}},
		"route, port 0":   {Listen: ":0", Routes: []Route{{To: "192.0.2.1:0"}}},
		"via, no port":    {Listen: ":0", Forward: &Forward{Via: "h"}},
		"listen, no port": {Listen: "127.0.0.1", Forward: anywhere},
	} {
		if _, err := Listen(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzPlan: no request makes the proxy panic; what it lets pass is in order,
// asks nothing of the next server that is for a proxy, and keeps its payload.
func FuzzPlan(f *testing.F) {
	f.Add(coap.AppendBody(nil, opts(35, "coap://h/a?b", 9, "\x09\x05\x01"), []byte("x")))
	f.Add(coap.AppendBody(nil, opts(3, "h", 7, 1, 39, "coap"), nil))
	f.Add(coap.AppendBody(nil, opts(6, "", 16, 3, 258, 2), nil))
	cfg, err := Config{Listen: ":0", Forward: anywhere, Routes: []Route{{To: "192.0.2.1:1"}, {KID: []byte{1}, To: "192.0.2.1:2"}}}.withDefaults()
	if err != nil {
		f.Fatal(err)
	}
	r, err := newRules(&cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		in, payload, err := coap.Split(body)
		if err != nil {
			return // refused by the message layer
		}
		p, bad := r.plan(nil, body, nil)
		if bad != nil {
			return
		}
		out, passed, err := coap.Split(p.body)
		if err != nil || !bytes.Equal(passed, payload) {
			t.Fatalf("%x became %x: %v", body, p.body, err)
		}
		for _, o := range out {
			if o.Number == coap.ProxyURI || o.Number == coap.ProxyScheme {
				t.Fatalf("%x passed on %s", body, coap.OptionName(o.Number))
			}
		}
		// What is safe to forward passes as it is.
		safe := func(list coap.Options) (kept coap.Options) {
			for _, o := range list {
				if !coap.Unsafe(o.Number) && o.Number != coap.HopLimit {
					kept = append(kept, o)
				}
			}
			return kept
		}
		if !safe(in).Equal(safe(out)) {
			t.Fatalf("%x became %x", body, p.body)
		}
		_, _, _ = checkResponse(body)
	})
}

// What omit leaves, where the body stands, is what writing the other options
// anew would give.
func TestOmit(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	numbers := []uint16{1, 3, 7, 12, 13, 14, 26, 39, 268, 269, 270, 281, 282, 538, 539, 65535}
	for range 20_000 {
		var all coap.Options
		for range random.IntN(6) {
			all = all.Add(numbers[random.IntN(len(numbers))], bytes.Repeat([]byte{byte(random.Uint32())}, []int{0, 1, 12, 13, 268, 269, 300}[random.IntN(7)]))
		}
		without := numbers[random.IntN(len(numbers)):][:1]
		if len(all) > 0 {
			without = []uint16{all[random.IntN(len(all))].Number, all[0].Number}
		}
		payload := bytes.Repeat([]byte{0xff}, random.IntN(3))
		body := coap.AppendBody([]byte("before"), all, payload)
		want := coap.AppendBody([]byte("before"), all.Without(without...), payload)
		if got := omit(body, len("before"), without...); !bytes.Equal(got, want) {
			t.Fatalf("%v without %v:\n%x\n%x", all, without, got, want)
		}
	}
}
