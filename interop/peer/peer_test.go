package peer

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// verdict is a testing.TB that remembers what an assertion says, so that each
// can be shown to fail.
type verdict struct {
	testing.TB
	said []string
}

func (v *verdict) Helper() {}

func (v *verdict) Error(args ...any) { v.said = append(v.said, fmt.Sprint(args...)) }

func (v *verdict) Errorf(f string, args ...any) { v.said = append(v.said, fmt.Sprintf(f, args...)) }

// RFC 8613 C.4 and C.7.
const (
	sealedRequest  = "44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e"
	sealedResponse = "64445d1f0000397490ffdbaad1e9a7e7b2a813d3c31524378303cdafae119106"
)

func capture(t *testing.T, datagrams ...string) Capture {
	t.Helper()
	var c Capture
	for i, d := range datagrams {
		b, err := hex.DecodeString(d)
		if err != nil {
			t.Fatal(err)
		}
		c = append(c, Datagram{ToServer: i%2 == 0, Client: Loopback(40000), Bytes: b})
	}
	return c
}

func TestSealed(t *testing.T) {
	plainGet := "40011234" + hex.EncodeToString([]byte{0xb3, 't', 'v', '1'})
	outerPath := "44025d1f00003974" + "920914" + "23" + hex.EncodeToString([]byte("tv1")) + "ff00"
	for _, c := range []struct {
		name  string
		c     Capture
		fault string
	}{
		{"sealed both ways", capture(t, sealedRequest, sealedResponse), ""},
		{"with an empty ACK", capture(t, sealedRequest, "60005d1f", "", sealedResponse)[:2], "0 sealed responses"},
		{"plain request", capture(t, plainGet, sealedResponse), "without option 9"},
		{"plain response", capture(t, sealedRequest, "60455d1fff68656c6c6f"), "without option 9"},
		{"path outside", capture(t, outerPath, sealedResponse), "option 11 stands outside"},
		{"no ciphertext", capture(t, "44025d1f00003974920914", sealedResponse), "without a ciphertext"},
		{"no kid", capture(t, "44025d1f00003974"+"920114"+"ff00", sealedResponse), "without Partial IV or kid"},
		{"nothing", nil, "0 sealed requests"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &verdict{TB: t}
			c.c.Sealed(v)
			said := strings.Join(v.said, "; ")
			if c.fault == "" && said != "" || !strings.Contains(said, c.fault) {
				t.Errorf("said %q, want %q", said, c.fault)
			}
		})
	}
}

func TestHides(t *testing.T) {
	v := &verdict{TB: t}
	capture(t, sealedRequest, sealedResponse).Hides(v, "tv1", "Hello")
	if len(v.said) != 0 {
		t.Errorf("of a sealed exchange it said %q", v.said)
	}
	capture(t, "40011234b3747631").Hides(v, "tv1")
	if len(v.said) != 1 {
		t.Errorf("of a plain request it said %q", v.said)
	}
}

func TestSingleUse(t *testing.T) {
	forged := strings.Replace(sealedRequest, "612f", "612e", 1)
	for _, c := range []struct {
		name   string
		c      Capture
		faults int
	}{
		{"retransmission", capture(t, sealedRequest, sealedResponse, sealedRequest), 0},
		{"same number, other bytes", capture(t, sealedRequest, sealedResponse, forged), 1},
		{"no number of its own", capture(t, sealedRequest, sealedResponse, sealedRequest, strings.Replace(sealedResponse, "dbaa", "dbab", 1)), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &verdict{TB: t}
			c.c.SingleUse(v)
			if len(v.said) != c.faults {
				t.Errorf("%d faults, want %d: %q", len(v.said), c.faults, v.said)
			}
		})
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, s := range []string{sealedRequest, sealedResponse, "40000001", "4001000"} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		n := 4 + len(m.Token) + len(m.Payload)
		for _, o := range m.Options {
			n += 1 + len(o.Value)
		}
		if n > len(b) {
			t.Errorf("%x: read %d bytes out of %d", b, n, len(b))
		}
		if v, ok := m.Option(OptOSCORE); ok {
			_, _ = ParseOSCOREOption(v)
		}
	})
}

func TestParseOSCOREOption(t *testing.T) {
	for value, want := range map[string]string{
		"":                       "[] [] []",
		"0914":                   "[14] [] []",
		"19140837cbf3210017a2d3": "[14] [37cbf3210017a2d3] []",
		"0901aa":                 "[01] [] [aa]",
		"0100":                   "[00] [] []",
	} {
		b, _ := hex.DecodeString(value)
		o, err := ParseOSCOREOption(b)
		if got := fmt.Sprintf("[%x] [%x] [%x]", o.PartialIV, o.KIDContext, o.KID); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", value, got, err, want)
		}
	}
	for _, value := range []string{"29", "06010203040506", "0114ff", "10", "1002aa", "02aa"} {
		b, _ := hex.DecodeString(value)
		if o, err := ParseOSCOREOption(b); err == nil {
			t.Errorf("%s is taken as %+v", value, o)
		}
	}
}

// TestRelay sends through the relay with loss and repetition, to a server of
// a few lines.
func TestRelay(t *testing.T) {
	server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(Loopback(0)))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := server.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDPAddrPort(append([]byte("re:"), b[:n]...), from)
		}
	}()
	r := NewRelay(t, server.LocalAddr().(*net.UDPAddr).AddrPort())
	client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(r.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r.Forward(func(d Datagram) [][]byte {
		switch {
		case d.ToServer && string(d.Bytes) == "lost":
			return nil
		case d.ToServer:
			return [][]byte{d.Bytes, []byte("again")}
		}
		return [][]byte{d.Bytes}
	})
	for _, s := range []string{"lost", "one"} {
		if _, err := client.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"re:one", "re:again"} {
		b := make([]byte, 100)
		if err := client.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := client.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Fatalf("got %q, %v, want %q", b[:n], err, want)
		}
	}
	var seen []string
	for _, d := range r.Capture() {
		seen = append(seen, fmt.Sprintf("%v %s", d.ToServer, d.Bytes))
	}
	if got := strings.Join(seen, ", "); got != "true lost, true one, false re:one, false re:again" {
		t.Errorf("the relay saw %s", got)
	}
}

// alive tells whether the process runs; one that nobody has waited for yet
// (state Z) does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// TestProcessGroup has a child that would outlive its parent, and looks that
// killing the group ends it too.
func TestProcessGroup(t *testing.T) {
	p := Start(t, Spec{Name: "shell", Path: "/bin/sh", Args: []string{"-c", "sleep 1000 & echo CHILD $!; wait"}})
	p.AwaitLine("CHILD ")
	var pid int
	if _, err := fmt.Sscanf(p.Lines("CHILD ")[0], "CHILD %d", &pid); err != nil {
		t.Fatal(err)
	}
	p.Kill(syscall.SIGKILL)
	deadline := time.Now().Add(10 * time.Second)
	for alive(pid) {
		if time.Now().After(deadline) {
			t.Fatalf("the child %d outlived its group", pid)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestRequestWords(t *testing.T) {
	r := Request{Method: "PUT", Path: "/a", Format: Int(0), IfMatch: []byte{0x7b}, Payload: []byte("z"), Observe: 2}
	if got, want := r.String(), "PUT path=/a format=0 if-match=7b payload=7a observe=2"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	a := parseAnswer(t, "NOTE code=2.05 sealed=true format=0 etag=2b max-age=5 observe=7 payload=7a")
	if a.Kind != "NOTE" || a.Code != "2.05" || !a.Sealed || *a.Format != 0 || a.ETag[0] != 0x2b || *a.MaxAge != 5 || *a.Observe != 7 || string(a.Payload) != "z" {
		t.Errorf("%+v", a)
	}
}
