package lab

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/mallory"
	"github.com/oscorelay/oscorelay/oscore"
)

// TestRun runs the whole lab with the programs of this tree.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds three programs and runs them for half a minute")
	}
	bin := t.TempDir()
	out, err := exec.Command("go", "build", "-o", bin+"/", "../../cmd/oscore", "../../cmd/oscored", "../../cmd/oscore-proxy").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	parts, n := map[string]int{}, 0
	var trace []string
	ok, err := Run(t.Context(), Config{
		Exe: filepath.Join(bin, "oscore"), Dir: t.TempDir(),
		Row: func(r Row) {
			n++
			parts[r.Part]++
			if r.N != n || r.Step == "" || r.Verdict == "" {
				t.Errorf("row %d: %+v", n, r)
			}
			if !r.OK {
				t.Errorf("%s, %s: %s\n%s", r.Part, r.Step, r.Verdict, strings.Join(trace, "\n"))
			}
			trace = nil
		},
		Trace: func(s string) { trace = append(trace, s) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if ok == t.Failed() {
		t.Errorf("Run says %v", ok)
	}
	want := map[string]int{PartTraffic: len(traffic), PartAttack: len(attacks), PartHandshake: len(handshakes)}
	if HasChain() {
		want[PartChain], want[PartKill], want[PartHostile], want[PartSight] = len(chainTraffic), len(chainKills), len(chainAttacks), len(chainSight)
	}
	for part, n := range want {
		if parts[part] != n {
			t.Errorf("%d rows of %s, want %d", parts[part], part, n)
		}
	}
}

func TestProgramMissing(t *testing.T) {
	_, err := Config{Exe: filepath.Join(t.TempDir(), "oscore")}.program("oscored")
	if !errors.Is(err, errMissing) || !strings.Contains(err.Error(), "make build") {
		t.Error(err)
	}
}

func packet(d mallory.Direction, code coap.Code, token, piv, payload string, opts ...coap.Option) mallory.Packet {
	value := oscore.Option{KID: []byte("dev"), PartialIV: []byte(piv)}
	if piv == "" {
		value = oscore.Option{}
	}
	all := append(coap.Options{{Number: coap.OSCORE, Value: value.Append(nil)}}, opts...)
	return mallory.Packet{Direction: d, Data: coap.Datagram{Code: code, Token: []byte(token), Body: coap.AppendBody(nil, all, []byte(payload))}.Append(nil)}
}

// TestNonces: a nonce that seals two messages is found, be it by a Partial IV or
// by the request's; a retransmission is none.
func TestNonces(t *testing.T) {
	ask := packet(mallory.ToServer, coap.POST, "t", "\x01", "sealed request")
	answer := packet(mallory.ToClient, coap.Changed, "t", "", "sealed answer")
	forged := packet(mallory.ToServer, coap.POST, "t", "\x01", "another")
	forged.Forged = true
	for _, c := range []struct {
		name    string
		packets []mallory.Packet
		n       int
		err     string
	}{
		{"sent twice", []mallory.Packet{ask, ask, answer, answer, forged}, 2, ""},
		{"a number for two requests", []mallory.Packet{ask, packet(mallory.ToServer, coap.POST, "u", "\x01", "another")}, 1, "two messages → under Partial IV 01"},
		{"two answers", []mallory.Packet{ask, answer, packet(mallory.ToClient, coap.Changed, "t", "", "another")}, 2, "two messages ← under Partial IV 01"},
		{"an answer by itself", []mallory.Packet{ask, packet(mallory.ToClient, coap.Changed, "v", "", "x")}, 1, "without a request"},
		{"nothing", nil, 0, "nothing sealed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := nonces(c.packets)
			if n != c.n || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
}

// TestLook: what stands outside a sealed message, and what is not sealed, is
// found.
func TestLook(t *testing.T) {
	sealed := packet(mallory.ToServer, coap.POST, "t", "\x01", "sealed")
	plain := mallory.Packet{Data: coap.Datagram{Code: coap.POST, Body: coap.AppendBody(nil, coap.Options{{Number: coap.URIPath, Value: []byte("3303")}}, nil)}.Append(nil)}
	if s := look([]mallory.Packet{sealed}, nil); s.blind() != nil || s.sealed != 1 || s.outside() != "1 sealed of 18-18 B: POST, kid 646576; 0 refusals" {
		t.Errorf("%v, %s", s.blind(), s.outside())
	}
	for _, c := range []struct {
		p   mallory.Packet
		err string
	}{
		{plain, `readable: ["3303"]`},
		{plain, "1 messages in clear"},
		{packet(mallory.ToServer, coap.POST, "t", "\x02", "x", coap.Option{Number: coap.ContentFormat}), "outside a sealed message: Content-Format"},
		{packet(mallory.ToServer, coap.POST, "t", "\x03", "at "+manufacturer), `readable: ["Open Mobile Device"]`},
	} {
		if err := look([]mallory.Packet{c.p}, nil).blind(); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%v, want %s", err, c.err)
		}
	}
	made := plain
	made.Forged = true
	if s := look([]mallory.Packet{plain}, forgeries([]mallory.Packet{made})); s.datagrams != 0 {
		t.Error("what mallory made is taken for a party's")
	}
}
