package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/oscorelay/oscorelay/internal/capture"
	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/explain"
	"github.com/oscorelay/oscorelay/oscore"
)

// coapPorts are those of CoAP over UDP and TCP (RFC 7252 §6.1).
var coapPorts = []uint16{5683}

// chosen is the CoAP of a capture, and a count of what is none.
type chosen struct {
	packets []capture.Packet
	other   int // datagrams of other protocols
	dtls    int // of which DTLS
}

// choose finds the CoAP of a capture: what goes to or from one of the ports, and
// on any port the conversations of an address that a well-formed message with an
// OSCORE option came from or went to.
func choose(packets []capture.Packet, ports []uint16) chosen {
	ports = slices.Concat(coapPorts, ports)
	servers := map[netip.AddrPort]bool{}
	for _, p := range packets {
		if !p.Stream && sealedDatagram(p.Data) {
			d, _ := coap.ParseDatagram(p.Data) // it is one
			to := p.To
			if d.Code.IsResponse() {
				to = p.From
			}
			servers[to] = true
		}
	}
	var c chosen
	for _, p := range packets {
		switch {
		case slices.Contains(ports, p.From.Port()), slices.Contains(ports, p.To.Port()), !p.Stream && (servers[p.From] || servers[p.To]):
			c.packets = append(c.packets, p)
		default:
			c.other++
			if !p.Stream && looksLikeDTLS(p.Data) {
				c.dtls++
			}
		}
	}
	return c
}

// sealedDatagram reports whether bytes are a CoAP message with a well-formed
// OSCORE option and a payload.
func sealedDatagram(b []byte) bool {
	d, err := coap.ParseDatagram(b)
	if err != nil || !d.Code.IsRequest() && !d.Code.IsResponse() || coap.Check(d.Body) != nil {
		return false
	}
	v, ok := coap.Find(d.Body, coap.OSCORE)
	if !ok {
		return false
	}
	o, err := oscore.ParseOption(v)
	return err == nil && (d.Code.IsResponse() || o.PartialIV != nil && o.KID != nil)
}

// looksLikeDTLS recognises records of DTLS 1.2 and 1.3.
func looksLikeDTLS(b []byte) bool {
	return len(b) > 13 && 20 <= b[0] && b[0] <= 25 && b[1] == 0xfe || len(b) > 3 && b[0]>>5 == 1
}

// streams puts the pieces of TCP streams together to whole frames, so that a
// report stands at the piece that ends it.
type streams map[[2]netip.AddrPort][]byte

// maxFrame bounds a frame of a stream (RFC 8323 §5.3.1 lets a peer set its own).
const maxFrame = 1 << 20

// whole returns the packet with the frames that it completes; ok is false when
// it completes none.
func (s streams) whole(p capture.Packet) (capture.Packet, bool) {
	if !p.Stream {
		return p, true
	}
	key := [2]netip.AddrPort{p.From, p.To}
	b := append(s[key], p.Data...)
	n := 0
	for n < len(b) {
		_, size, err := coap.ParseFrame(b[n:], maxFrame)
		if err != nil {
			if len(b)-n <= maxFrame && errors.Is(err, coap.ErrIncomplete) {
				break
			}
			n = len(b) // no CoAP: to be explained as it is
			break
		}
		n += size
	}
	s[key] = slices.Clone(b[n:])
	p.Data = b[:n]
	return p, n > 0
}

// explainCapture explains the CoAP of a capture.
func explainCapture(s *explain.Session, packets []capture.Packet) (reports []*explain.Report) {
	open := streams{}
	for _, p := range packets {
		if p, ok := open.whole(p); ok {
			reports = append(reports, s.Packet(explain.Packet{At: p.At.UnixNano(), From: p.From, To: p.To, Stream: p.Stream, Data: p.Data})...)
		}
	}
	return reports
}

// leftText says what of a capture is not shown.
func leftText(c chosen, left capture.Left) (lines []string) {
	say := func(n int, format string) {
		if n > 0 {
			lines = append(lines, fmt.Sprintf(format, plural(n, "packet")))
		}
	}
	say(c.other-c.dtls, "%s of other ports, without an OSCORE option; --port N adds a port")
	say(c.dtls, "%s of DTLS, which hides what is inside")
	say(left.Other, "%s neither UDP nor TCP with data")
	say(left.CutShort, "%s cut short by the capture: take it again with a larger snapshot length (tcpdump -s 0)")
	say(left.Fragments, "%s that are IP fragments")
	say(left.Gaps, "%s of TCP behind a gap")
	if left.Damaged > 0 {
		lines = append(lines, "the rest of a file that is damaged or was cut off")
	}
	return lines
}
