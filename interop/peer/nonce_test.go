package peer

import (
	"strings"
	"testing"
)

// wire makes one datagram: who sent it, its code, token, option 9 and what
// stands for the ciphertext.
func wire(toServer bool, code byte, token string, option9 []byte, sealed string) Datagram {
	b := append([]byte{0x40 | byte(len(token)), code, 0, 1}, token...)
	b = append(append(b, 0x90|byte(len(option9))), option9...)
	b = append(append(b, 0xff), sealed...)
	return Datagram{ToServer: toServer, Client: Loopback(40000), Bytes: b}
}

func TestNonceUse(t *testing.T) {
	// Kids c and s; in the second context with the kid context x.
	contexts := []Ends{{[]byte("c"), []byte("s"), nil}, {[]byte("c"), []byte("s"), []byte("x")}}
	request := func(n byte, token, sealed string) Datagram {
		return wire(true, 2, token, []byte{9, n, 'c'}, sealed)
	}
	answer := func(token, sealed string) Datagram { return wire(false, 0x44, token, nil, sealed) }
	numbered := func(n byte, token, sealed string) Datagram {
		return wire(false, 0x44, token, []byte{1, n}, sealed)
	}
	for _, c := range []struct {
		name  string
		c     Capture
		fault string
		use   NonceUse
	}{
		{"exchange", Capture{request(1, "a", "one"), answer("a", "two")}, "", NonceUse{2, 2, 0, 0}},
		{"retransmitted both ways", Capture{request(1, "a", "one"), request(1, "a", "one"), answer("a", "two"), answer("a", "two")}, "", NonceUse{4, 2, 2, 0}},
		{"an answer numbered like the request", Capture{request(1, "a", "one"), numbered(1, "a", "two")}, "", NonceUse{2, 2, 0, 0}},
		{"other contexts, same number", Capture{request(1, "a", "one"), wire(true, 2, "b", []byte{0x19, 1, 1, 'x', 'c'}, "two")}, "", NonceUse{2, 2, 0, 0}},
		{"both ends number requests", Capture{request(1, "a", "one"), wire(false, 2, "a", []byte{9, 1, 's'}, "two")}, "", NonceUse{2, 2, 0, 0}},
		{"answer to nothing", Capture{answer("a", "two")}, "", NonceUse{1, 0, 0, 1}},
		{"request anew after a restart", Capture{request(1, "a", "one"), request(1, "b", "two")}, "datagram 1 seals other bytes", NonceUse{2, 1, 0, 0}},
		{"leading zero", Capture{request(1, "a", "one"), wire(true, 2, "b", []byte{0x0a, 0, 1, 'c'}, "two")}, "datagram 1 seals other bytes", NonceUse{2, 1, 0, 0}},
		{"two answers to one request", Capture{request(1, "a", "one"), answer("a", "two"), request(1, "a", "one"), answer("a", "six")}, "datagram 3 seals other bytes", NonceUse{4, 2, 1, 0}},
		{"one answer each, request sent under two tokens", Capture{request(1, "a", "one"), request(1, "b", "one"), answer("a", "two"), answer("b", "six")}, "datagram 3 seals other bytes", NonceUse{4, 2, 1, 0}},
		{"notification and request", Capture{request(1, "a", "one"), numbered(7, "a", "two"), wire(false, 2, "z", []byte{9, 7, 's'}, "six")}, "datagram 2 seals other bytes", NonceUse{3, 2, 0, 0}},
		{"answer to the server's request", Capture{wire(false, 2, "a", []byte{9, 7, 's'}, "one"), wire(true, 0x44, "a", nil, "two"), wire(true, 0x44, "a", nil, "six")}, "datagram 2 seals other bytes", NonceUse{3, 2, 0, 0}},
		{"unknown kid", Capture{wire(true, 2, "a", []byte{9, 1, 'q'}, "one")}, "no known context", NonceUse{1, 0, 0, 0}},
		{"no CoAP", Capture{{Bytes: []byte{1}}}, "not a CoAP datagram", NonceUse{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			use, errs := c.c.NonceUse(contexts...)
			if use != c.use {
				t.Errorf("counted %+v, want %+v", use, c.use)
			}
			switch {
			case c.fault == "" && errs != nil:
				t.Error(errs)
			case c.fault != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), c.fault)):
				t.Errorf("said %v, want %q", errs, c.fault)
			}
		})
	}
}

func TestIsOSCOREError(t *testing.T) {
	for _, c := range []struct {
		m    Message
		want bool
	}{
		{Message{Code: 0x81, Payload: []byte("Security context not found")}, true},
		{Message{Code: 0x81, Payload: []byte("Replay detected"), Options: []Option{{OptMaxAge, nil}}}, true},
		{Message{Code: 0x80}, true},
		{Message{Code: 0x80, Payload: []byte("Replay detected")}, false},
		{Message{Code: 0x82, Options: []Option{{OptEcho, nil}}}, false},
		{Message{Code: 0x84}, false},
		{Message{Code: 0x45}, false},
	} {
		if got := c.m.IsOSCOREError(); got != c.want {
			t.Errorf("%s: %v", c.m, got)
		}
	}
}
