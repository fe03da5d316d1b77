package peer

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// Capture is what a relay saw, in order of arrival.
type Capture []Datagram

// Messages gives what are requests or responses, taken apart; empty messages
// and RFC 8323's signalling belong to one hop and are left out.
// Anything that is no CoAP fails the test.
func (c Capture) Messages(t testing.TB) []Message {
	t.Helper()
	var all []Message
	for i, d := range c {
		m, err := ParseMessage(d.Bytes)
		if err != nil {
			t.Errorf("datagram %d: %v: %x", i, err, d.Bytes)
			continue
		}
		if m.IsRequest() || m.IsResponse() {
			all = append(all, m)
		}
	}
	return all
}

// Sealed fails the test unless every request and response carries option 9,
// and the capture has at least one of each. What RFC 8613 section 4.1.2 does
// not leave outside must not be there either.
func (c Capture) Sealed(t testing.TB) {
	t.Helper()
	c.SealedExcept(t, nil)
}

// SealedExcept is [Capture.Sealed] for captures with messages that are plain
// by right, such as an OSCORE error: those for which plain holds.
func (c Capture) SealedExcept(t testing.TB, plain func(Message) bool) {
	t.Helper()
	requests, responses := 0, 0
	for _, m := range c.Messages(t) {
		if plain != nil && plain(m) {
			continue
		}
		value, ok := m.Option(OptOSCORE)
		if !ok {
			t.Errorf("on the wire without option 9: %s", m)
			continue
		}
		o, err := ParseOSCOREOption(value)
		if err != nil {
			t.Error(err)
		}
		if len(m.Payload) == 0 {
			t.Errorf("option 9 without a ciphertext: %s", m)
		}
		for _, outer := range m.Options {
			if !outside[outer.Number] {
				t.Errorf("option %d stands outside: %s", outer.Number, m)
			}
		}
		if m.IsRequest() {
			requests++
			if o.PartialIV == nil || o.KID == nil {
				t.Errorf("a request without Partial IV or kid: %s", m)
			}
		} else {
			responses++
		}
	}
	if requests == 0 || responses == 0 {
		t.Errorf("the relay saw %d sealed requests and %d sealed responses", requests, responses)
	}
}

// Whole leaves out what a proxy's outer block-wise transfer cut to pieces
// (RFC 8613 section 4.1.3.4.2), once it has looked at each: nothing of what is
// inside may stand beside them.
func (c Capture) Whole(t testing.TB) Capture {
	t.Helper()
	var kept Capture
	for _, d := range c {
		m, err := ParseMessage(d.Bytes)
		if err != nil || !m.isPiece() {
			kept = append(kept, d)
			continue
		}
		for _, o := range m.Options {
			if !outside[o.Number] && o.Number != OptRequestTag {
				t.Errorf("option %d stands outside: %s", o.Number, m)
			}
		}
		if _, ok := m.Option(OptOSCORE); !ok && (m.Code != codeContinue || len(m.Payload) > 0) {
			t.Errorf("on the wire without option 9: %s", m)
		}
	}
	return kept
}

const codeContinue = 0x5f // 2.31

// isPiece reports whether a message is one of several blocks.
func (m Message) isPiece() bool {
	for _, number := range []uint16{OptBlock1, OptBlock2} {
		if v, ok := m.Option(number); ok && len(v) > 0 && (len(v) > 1 || v[0] > 7) {
			return true
		}
	}
	return m.Code == codeContinue
}

// outside lists the options that may be outer ones: Uri-Host, Observe,
// Uri-Port, OSCORE, Max-Age, Block2, Block1, Size2, Proxy-Uri, Proxy-Scheme,
// Size1 (RFC 8613 section 4.1, figure 5), and Hop-Limit.
var outside = map[uint16]bool{3: true, 6: true, 7: true, 9: true, 14: true, 16: true, 23: true, 27: true, 28: true, 35: true, 39: true, 60: true}

// SealedRequests fails the test unless every request carries option 9, for
// captures whose responses are plain errors.
func (c Capture) SealedRequests(t testing.TB) {
	t.Helper()
	requests := c.Requests(t)
	for _, m := range requests {
		if _, ok := m.Option(OptOSCORE); !ok {
			t.Errorf("on the wire without option 9: %s", m)
		}
	}
	if len(requests) == 0 {
		t.Error("the relay saw no request")
	}
}

// Hides fails the test if one of the texts stands readable in any datagram.
func (c Capture) Hides(t testing.TB, texts ...string) {
	t.Helper()
	for i, d := range c {
		for _, s := range texts {
			if len(s) > 2 && bytes.Contains(d.Bytes, []byte(s)) {
				t.Errorf("datagram %d shows %q: %x", i, s, d.Bytes)
			}
		}
	}
}

// SingleUse fails the test if one side sealed two different byte strings
// under one Partial IV: for requests per kid and kid context, for responses
// with a Partial IV of their own per server. Retransmissions are the same
// bytes and pass.
func (c Capture) SingleUse(t testing.TB) {
	t.Helper()
	used := map[string][]byte{}
	for i, d := range c {
		m, err := ParseMessage(d.Bytes)
		if err != nil {
			continue
		}
		value, ok := m.Option(OptOSCORE)
		if !ok {
			continue
		}
		o, err := ParseOSCOREOption(value)
		if err != nil || o.PartialIV == nil {
			continue
		}
		key := fmt.Sprintf("to server %v, kid %x, kid context %x, Partial IV %x", d.ToServer, o.KID, o.KIDContext, o.PartialIV)
		if before, ok := used[key]; ok && !bytes.Equal(before, m.Payload) {
			t.Errorf("datagram %d uses a nonce again: %s", i, key)
		}
		used[key] = m.Payload
	}
}

// ByClient parts the capture by the client's address.
func (c Capture) ByClient() map[netip.AddrPort]Capture {
	parts := map[netip.AddrPort]Capture{}
	for _, d := range c {
		parts[d.Client] = append(parts[d.Client], d)
	}
	return parts
}

// Requests and Responses give one direction's messages.
func (c Capture) Requests(t testing.TB) []Message {
	return c.filter(t, Message.IsRequest)
}

// Responses gives the responses, in order.
func (c Capture) Responses(t testing.TB) []Message {
	return c.filter(t, Message.IsResponse)
}

func (c Capture) filter(t testing.TB, keep func(Message) bool) []Message {
	t.Helper()
	var kept []Message
	for _, m := range c.Messages(t) {
		if keep(m) {
			kept = append(kept, m)
		}
	}
	return kept
}

// shown bounds how many datagrams a failed test prints.
const shown = 80

func (c Capture) String() string {
	var b strings.Builder
	if skip := len(c) - shown; skip > 0 {
		fmt.Fprintf(&b, "(%d earlier datagrams left out)\n", skip)
		c = c[skip:]
	}
	for _, d := range c {
		arrow := "<"
		if d.ToServer {
			arrow = ">"
		}
		if m, err := ParseMessage(d.Bytes); err == nil {
			fmt.Fprintf(&b, "%s %s %s\n", d.At.Format("05.000"), arrow, m)
		} else {
			fmt.Fprintf(&b, "%s %s %x\n", d.At.Format("05.000"), arrow, d.Bytes)
		}
	}
	return b.String()
}
