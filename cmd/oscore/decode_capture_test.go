package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/oscorelay/oscorelay/internal/capture"
	"github.com/oscorelay/oscorelay/internal/explain"
)

// exchange is RFC 8613 C.4 and C.8 with what a network adds: a retransmission, a
// plain refusal on another port, DTLS, DNS.
var exchange = []struct {
	at       time.Duration
	from, to string
	hex      string
}{
	{0, "192.0.2.7:40112", "192.0.2.1:5683", "44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e"},
	{2 * time.Second, "192.0.2.7:40112", "192.0.2.1:5683", "44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e"},
	{2001500 * time.Microsecond, "192.0.2.1:5683", "192.0.2.7:40112", "64445d1f00003974920100ff4d4c13669384b67354b2b6175ff4b8658c666a6cf88e"},
	{2100 * time.Millisecond, "192.0.2.7:40112", "192.0.2.53:53", "12340100000100000000000007657861"},
	{2200 * time.Millisecond, "192.0.2.7:40113", "192.0.2.1:5684", "16fefd0000000000000000000a01000000000000000000"},
	{3 * time.Second, "[2001:db8::7]:40114", "[2001:db8::1]:7001", "44022f8eef9bbf7a396c6f63616c686f73746b19140837cbf3210017a2d3ff72cd7273fd331ac45cffbe55c3"},
	{3000700 * time.Microsecond, "[2001:db8::1]:7001", "[2001:db8::7]:40114", "64812f8eef9bbf7ad0" + "01ff" + hex.EncodeToString([]byte("Security context not found"))},
}

// writeCapture writes the exchange as a pcap file.
func writeCapture(name string) error {
	var b bytes.Buffer
	w, err := capture.NewWriter(&b)
	if err != nil {
		return err
	}
	for _, x := range exchange {
		data, err := hex.DecodeString(x.hex)
		if err != nil {
			return err
		}
		p := capture.Packet{At: time.Unix(1700000000, 0).Add(x.at), From: netip.MustParseAddrPort(x.from), To: netip.MustParseAddrPort(x.to), Data: data}
		if err := w.Write(p); err != nil {
			return err
		}
	}
	return os.WriteFile(name, b.Bytes(), 0o600)
}

// decodeFile runs the command over a capture.
func decodeFile(b []byte, args ...string) (string, error) {
	var out bytes.Buffer
	err := decode(context.Background(), stdio{bytes.NewReader(b), &out, io.Discard}, append(args, "-"))
	return out.String(), err
}

// FuzzDecodeCapture: no capture makes the command panic, print a control
// character or a line beyond 80 columns; nor does it print a key.
func FuzzDecodeCapture(f *testing.F) {
	name := filepath.Join(f.TempDir(), "rfc8613.pcap")
	if err := writeCapture(name); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-7])
	const secret = "0102030405060708090a0b0c0d0e0f10"
	f.Fuzz(func(t *testing.T, b []byte) {
		if !capture.Is(b) {
			return
		}
		for _, more := range [][]string{nil, {"--full"}} {
			out, err := decodeFile(b, append(more, "--secret", secret, "--salt", "9e7ca92223786340", "--sender", "01", "--recipient", "")...)
			if strings.Contains(out, secret) && !bytes.Contains(b, []byte{1, 2, 3, 4, 5, 6, 7, 8}) || err != nil && strings.Contains(err.Error(), secret) {
				t.Fatalf("the secret shows: %v\n%s", err, out)
			}
			for line := range strings.SplitSeq(out, "\n") {
				if utf8.RuneCountInString(line) > 80 || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
					t.Fatalf("%q", line)
				}
			}
		}
	})
}

// TestDecodeStream: a message over TCP that comes in three segments is one, and
// is linked to its answer.
func TestDecodeStream(t *testing.T) {
	s, err := explain.NewSession(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	request, _ := hex.DecodeString("d40e0200003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e")
	answer, _ := hex.DecodeString("d408440000397492" + "0100ff" + "4d4c13669384b67354b2b6175ff4b8658c666a6cf88e")
	client, server := netip.MustParseAddrPort("192.0.2.7:40112"), netip.MustParseAddrPort("192.0.2.1:5683")
	at := time.Unix(1700000000, 0)
	reports := explainCapture(s, []capture.Packet{
		{At: at, From: client, To: server, Stream: true, Data: request[:1]},
		{At: at, From: client, To: server, Stream: true, Data: request[1:20]},
		{At: at, From: client, To: server, Stream: true, Data: request[20:]},
		{At: at.Add(time.Millisecond), From: server, To: client, Stream: true, Data: answer},
	})
	if len(reports) != 2 || reports[0].Malformed != "" || reports[0].OSCORE == nil || reports[1].Links.Answers != 1 || reports[1].Links.After != 1e6 {
		for _, r := range reports {
			t.Errorf("%+v %+v", r, r.Links)
		}
	}
}
