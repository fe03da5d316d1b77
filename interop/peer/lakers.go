package peer

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lakersPatience bounds the wait for a message of a handshake.
const lakersPatience = 30 * time.Second

// EDHOCSide is what one side of a handshake needs: method 3, suite 2, raw
// public keys.
type EDHOCSide struct {
	Role         string // "initiator" or "responder"
	Key          []byte // private P-256 scalar
	Credential   []byte // its CCS
	Peer         []byte // the CCS of the other side
	ConnectionID []byte
	ByValue      bool // the credential is sent, not referred to by kid
	Message4     bool
	EAD          []string // LABEL or LABEL:HEX; lakers-python only
}

func (s EDHOCSide) args() []string {
	transfer, message4 := "by-reference", "no-message_4"
	if s.ByValue {
		transfer = "by-value"
	}
	if s.Message4 {
		message4 = "message_4"
	}
	return append([]string{
		s.Role, hex.EncodeToString(s.Key), hex.EncodeToString(s.Credential), hex.EncodeToString(s.Peer),
		hex.EncodeToString(s.ConnectionID), transfer, message4,
	}, s.EAD...)
}

// Lakers is a lakers process in the middle of a handshake.
type Lakers struct {
	*Process
	next int // line of its output to read next
}

// LakersRust starts lakers.
func LakersRust(t testing.TB, s EDHOCSide) *Lakers {
	t.Helper()
	return &Lakers{Process: Start(t, Spec{
		Name: "lakers " + s.Role, Path: filepath.Join(Component(t, "lakers"), "bin", "edhocrs"), Args: s.args(),
	})}
}

// LakersPython starts lakers-python, which comes with aiocoap.
func LakersPython(t testing.TB, s EDHOCSide) *Lakers {
	t.Helper()
	return &Lakers{Process: Start(t, Spec{
		Name: "lakers-python " + s.Role, Path: aiocoapPython(t), Args: append([]string{source(t, "lakers", "edhoc.py")}, s.args()...),
		Env: []string{"RUST_BACKTRACE=0"},
	})}
}

// Send gives the process a message.
func (l *Lakers) Send(message []byte) {
	l.t.Helper()
	if _, err := fmt.Fprintf(l.in, "%x\n", message); err != nil {
		l.t.Errorf("%s takes no message: %v", l.name, err)
	}
}

// line gives the next line of output, in words; nil if there is none.
func (l *Lakers) words() []string {
	l.t.Helper()
	after, err := l.line(l.next, lakersPatience, func(string) bool { return true })
	if err != nil {
		l.t.Errorf("%s says nothing: %v", l.name, err)
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = after
	return strings.Fields(l.lines[after-1])
}

// Heard is what a Lakers has said.
type Heard struct {
	Message []byte   // a message for the other side
	EAD     []string // items received before it, "LABEL HEX"; "-": no value
	// At the end:
	Done         bool
	Secret, Salt []byte
	PeerID       []byte
	Err          string
}

// Hear waits until the process has a message or is at its end.
func (l *Lakers) Hear() (h Heard) {
	l.t.Helper()
	for {
		w := l.words()
		switch {
		case len(w) == 0:
			h.Err = "no answer"
			return h
		case w[0] == "ead" && len(w) == 3:
			h.EAD = append(h.EAD, w[1]+" "+w[2])
		case w[0] == "message" && len(w) == 2:
			h.Message = l.hex(w[1])
			return h
		case w[0] == "done" && len(w) >= 3:
			h.Done, h.Secret, h.Salt = true, l.hex(w[1]), l.hex(w[2])
			if len(w) == 4 {
				h.PeerID = l.hex(w[3])
			}
			return h
		case w[0] == "error":
			h.Err = strings.Join(w[1:], " ")
			return h
		}
	}
}

func (l *Lakers) hex(s string) []byte {
	l.t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		l.t.Errorf("%s said %q: %v", l.name, s, err)
	}
	return b
}

// LakersBench has lakers run n handshakes of method 3, suite 2 with itself and
// gives the median time of each side.
func LakersBench(t testing.TB, n int, i, r EDHOCSide) (initiator, responder time.Duration) {
	t.Helper()
	p := &Lakers{Process: Start(t, Spec{
		Name: "lakers bench", Path: filepath.Join(Component(t, "lakers"), "bin", "edhocrs"),
		Args: []string{
			"bench", fmt.Sprint(n), hex.EncodeToString(i.Key), hex.EncodeToString(i.Credential),
			hex.EncodeToString(r.Key), hex.EncodeToString(r.Credential),
		},
	})}
	words := p.words()
	if len(words) != 3 || words[0] != "bench" {
		t.Fatalf("lakers bench said %q", words)
	}
	var ns [2]int64
	for k := range ns {
		if _, err := fmt.Sscan(words[1+k], &ns[k]); err != nil {
			t.Fatal(err)
		}
	}
	return time.Duration(ns[0]), time.Duration(ns[1])
}
