package mallory

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// RFC 8613 C.4 and C.8.
var (
	sealedRequest  = unhex("44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e")
	sealedResponse = unhex("64445d1f00003974920100ff4d4c13669384b67354b2b6175ff4b8658c666a6cf88e")
	otherResponse  = unhex("62455d20aabb9100ff01020304")
	plainGet       = unhex("40010007b3747631")
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func rules(t testing.TB, lines ...string) *Rules {
	t.Helper()
	r, err := ParseRules("test", strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// packet is a datagram in the direction that its code says.
func packet(data []byte) Packet {
	p := Packet{Data: data, Client: "c"}
	if data[1]>>5 >= 2 {
		p.Direction = ToClient
	}
	return p
}

// apply gives what goes on, in hex.
func apply(r *Rules, data []byte) (all []string) {
	outs, _ := r.Apply(packet(data))
	for _, o := range outs {
		s := hex.EncodeToString(o.Data)
		if o.After > 0 {
			s += " after " + o.After.String()
		}
		all = append(all, s)
	}
	return all
}

// TestActions: each action on a request or a response.
func TestActions(t *testing.T) {
	request, response := hex.EncodeToString(sealedRequest), hex.EncodeToString(sealedResponse)
	for _, c := range []struct {
		rule string
		in   []byte
		want []string
	}{
		{"on any do drop", sealedRequest, nil},
		{"on response do drop", sealedRequest, []string{request}},
		{"on request do delay 250ms", sealedRequest, []string{request + " after 250ms"}},
		{"on request do duplicate 2", sealedRequest, []string{request, request, request}},
		{"on request do again 2s", sealedRequest, []string{request, request + " after 2s"}},
		{"on to-server do flip 1.0", sealedRequest, []string{"44035d1f" + request[8:]}},
		{"on to-server do flip 900.0", sealedRequest, []string{request}},
		{"on request do remove OSCORE", plainGet, []string{"40010007b3747631"}},
		{"on request do remove uri-path", plainGet, []string{"40010007"}},
		{`on request do set Uri-Path "ab"`, plainGet, []string{"40010007b26162"}},
		{`on request do add 11 "ab"`, plainGet, []string{"40010007b3747631026162"}},
		{"on request do add Hop-Limit uint:9", plainGet, []string{"40010007b37476315109"}},
		{"on request do set Observe empty", plainGet, []string{"40010007605374" + "7631"}},
		{"on request do code 0.03", plainGet, []string{"40030007b3747631"}},
		{"on request do type NON", plainGet, []string{"50010007b3747631"}},
		{"on request do token 0a0b", plainGet, []string{"420100070a0bb3747631"}},
		{"on request do id 258", plainGet, []string{"40010102b3747631"}},
		{`on request do payload "x"`, plainGet, []string{"40010007b3747631ff78"}},
		{"on response do payload empty", sealedResponse, []string{response[:22]}},
		{"on response code 2.05 do drop", sealedResponse, []string{response}},
		{"on response code 2.04 sealed type ACK do drop", sealedResponse, nil},
		{"on request plain do drop", sealedRequest, []string{request}},
		{"on request kid empty piv 20 option Uri-Host token 00003974 do drop", sealedRequest, nil},
		{"on request kid 01 do drop", sealedRequest, []string{request}},
		{"on request piv 21 do drop", sealedRequest, []string{request}},
	} {
		if got := apply(rules(t, c.rule), c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.rule, got, c.want)
		}
	}
}

// TestSelection: nth, every, first and chance count what the conditions fit.
func TestSelection(t *testing.T) {
	for rule, want := range map[string]string{
		"on request nth 2 do drop":   "1011111111",
		"on request every 3 do drop": "1101101101",
		"on request first 2 do drop": "0011111111",
		"on response do drop":        "1111111111",
	} {
		r, got := rules(t, rule), ""
		for range 10 {
			got += string(rune('0' + len(apply(r, sealedRequest))))
		}
		if got != want {
			t.Errorf("%s: %s, want %s", rule, got, want)
		}
	}
	dropped := func(seed string) (s string) {
		r := rules(t, seed, "on request chance 50 do drop")
		for range 40 {
			s += string(rune('0' + len(apply(r, sealedRequest))))
		}
		return s
	}
	if a := dropped("seed 7"); a != dropped("seed 7") || a == dropped("seed 8") || !strings.Contains(a, "1") || !strings.Contains(a, "0") {
		t.Errorf("chance by seed: %s", a)
	}
}

// TestFlipSealed flips one bit of what OSCORE protects, and nothing else.
func TestFlipSealed(t *testing.T) {
	r := rules(t, "on any do flip sealed")
	for range 300 {
		outs, _ := r.Apply(packet(sealedRequest))
		d, opts, payload, ok := Parse(outs[0].Data)
		_, was, wasPayload, _ := Parse(sealedRequest)
		host, _ := opts.Get(coap.URIHost)
		before, _ := was.Get(coap.OSCORE)
		after, _ := opts.Get(coap.OSCORE)
		if !ok || string(host) != "localhost" || d.MessageID != 0x5d1f || bytes.Equal(before, after) == bytes.Equal(payload, wasPayload) {
			t.Fatalf("%x", outs[0].Data)
		}
	}
	if got := apply(r, plainGet); len(got) != 1 || got[0] != hex.EncodeToString(plainGet) {
		t.Errorf("plain: %q", got)
	}
}

// TestSwapSplice: contents change places; header and token stay.
func TestSwapSplice(t *testing.T) {
	a, b := hex.EncodeToString(graft(sealedResponse, otherResponse)), hex.EncodeToString(graft(otherResponse, sealedResponse))
	r := rules(t, "on response do swap")
	if got := apply(r, sealedResponse); got != nil {
		t.Errorf("%q", got)
	}
	if got := apply(r, otherResponse); !slices.Equal(got, []string{a, b}) {
		t.Errorf("%q, want %q", got, []string{a, b})
	}
	r = rules(t, "on response do splice")
	apply(r, otherResponse)
	if got := apply(r, sealedResponse); !slices.Equal(got, []string{a}) {
		t.Errorf("%q, want %s", got, a)
	}
	if want := "64455d1f00003974" + "9100ff01020304"; a != want {
		t.Errorf("%s, want %s", a, want)
	}
}

// TestReorder: in reverse once all are there; as they came when none comes.
func TestReorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rules(t, "on any do reorder 2")
		var late []string
		var mu sync.Mutex
		r.late = func(o Out) {
			mu.Lock()
			defer mu.Unlock()
			late = append(late, hex.EncodeToString(o.Data))
		}
		apply(r, sealedRequest)
		if got := apply(r, plainGet); !slices.Equal(got, []string{hex.EncodeToString(plainGet), hex.EncodeToString(sealedRequest)}) {
			t.Errorf("%q", got)
		}
		time.Sleep(2 * patience)
		apply(r, sealedRequest)
		apply(r, sealedResponse) // the other direction waits by itself
		time.Sleep(2 * patience)
		mu.Lock()
		defer mu.Unlock()
		if len(late) != 2 {
			t.Errorf("%q", late)
		}
	})
}

// TestCopiesAreBounded: rules that multiply do not multiply without end.
func TestCopiesAreBounded(t *testing.T) {
	if got := apply(rules(t, "on any do duplicate 999", "on any do duplicate 999", "on any do duplicate 999"), plainGet); len(got) != maxCopies {
		t.Errorf("%d copies", len(got))
	}
}

// TestHold keeps back until released; what comes afterwards is held anew.
func TestHold(t *testing.T) {
	r := rules(t, "on request do hold later", "on request do drop")
	if outs, lines := r.Apply(packet(plainGet)); outs != nil || !slices.Equal(lines, []int{1}) {
		t.Errorf("%v by %v", outs, lines)
	}
	if outs := r.Release("later"); len(outs) != 1 || !bytes.Equal(outs[0].Data, plainGet) || r.Release("later") != nil {
		t.Errorf("%v", outs)
	}
}

// TestFresh: another message ID, and for a request another token; the rest stays.
func TestFresh(t *testing.T) {
	a := Fresh(sealedRequest, 0x1122334455667788)
	if want := "480277881122334455667788" + hex.EncodeToString(sealedRequest[8:]); hex.EncodeToString(a) != want {
		t.Errorf("%x", a)
	}
	if b := Fresh(sealedResponse, 0x1122334455667788); !bytes.Equal(b[4:], sealedResponse[4:]) || b[2] != 0x77 {
		t.Errorf("%x", b)
	}
}

// TestMistakes: each error names file, line and what would be right.
func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"\n# x\nonn request do drop":      `t:3: unknown statement "onn": there are on, replay and seed`,
		"on":                              "t:1: on needs which datagrams",
		"on requests do drop":             `on: unknown word "requests": there are any`,
		"on request":                      "there is no action: write do and one of drop",
		"on request sealed drop":          `unknown condition "drop": there are sealed`,
		"on request do dorp":              `unknown action "dorp": there are drop`,
		"on request do":                   "do needs drop, delay",
		"on request do drop now":          `"now" is too much after the action`,
		"on request nth x do drop":        `nth: "x" is no number from 1 to`,
		"on request nth 0 do drop":        `nth: "0" is no number from 1 to`,
		"on request code 205 do drop":     `code: "205" is no code: write 0.02 or 2.05`,
		"on request type con do drop":     `type: "con" is no type: CON, NON`,
		"on request option Foo do drop":   `option: "Foo" is no option: give a number or one of Accept`,
		"on request do delay 3":           `delay: "3" is no time from 0s to 1h`,
		"on request do delay":             "delay needs a time such as 500ms or 2s",
		"on request do flip 1":            `flip: "1" is no place: write BYTE.BIT`,
		"on request do flip 1.8":          `flip: "1.8" is no place`,
		"on request do reorder 1":         `reorder: "1" is no number from 2 to 64`,
		"on request do set Observe":       "set needs a value: hex",
		"on request do set Observe xyz":   `set: "xyz" is no hex`,
		"on request do set Observe uint:": `set: "" is no number up to`,
		`on request do payload "a`:        "the quote has no end",
		"on request token 0 do drop":      `token: "0" is no hex`,
		"replay":                          "replay needs a packet capture's file",
		"replay f.pcap soon":              `replay: unknown word "soon"`,
		"replay f.pcap to me":             `replay to: "me" is neither server nor client`,
		"seed -1":                         `seed: "-1" is no number from 0`,
	} {
		_, err := ParseRules("t", strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "t:") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	r := rules(t, "replay old.pcap to client after 2s every 1ms fresh")
	if want := (Replay{1, "old.pcap", true, 2 * time.Second, time.Millisecond, true}); len(r.Replays) != 1 || r.Replays[0] != want {
		t.Errorf("%+v", r.Replays)
	}
}

// FuzzRules: no script panics, nor does any that parses on any datagram.
func FuzzRules(f *testing.F) {
	for _, s := range []string{
		"on request sealed nth 2 do again 2s fresh", "on response do swap", "on any chance 50 do flip any\non any do flip sealed",
		"on to-server do reorder 3", `on any do set Uri-Path "a"`, "on any do splice", "on any do hold x", "seed 3\non any do duplicate 3", "on any kid empty piv 20 do payload 00",
	} {
		f.Add(s, sealedRequest)
		f.Add(s, sealedResponse)
	}
	f.Fuzz(func(t *testing.T, script string, data []byte) {
		r, err := ParseRules("f", strings.NewReader(script))
		if err != nil || len(r.rules) > 4 {
			return
		}
		for range 3 {
			r.Apply(Packet{Data: data, Client: "c"})
			r.Apply(Packet{Data: data, Client: "c", Direction: ToClient})
		}
	})
}
