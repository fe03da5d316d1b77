//go:build interop

package interop

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/interop/peer"
)

// reheaded gives the datagram another type, message ID and token, which nothing
// protects: to a proxy it is a request of its own.
func reheaded(b []byte, kind byte, id uint16, token []byte) []byte {
	out := []byte{0x40 | kind<<4 | byte(len(token)), b[1], byte(id >> 8), byte(id)}
	return slices.Concat(out, token, rest(b))
}

// rest is what stands behind the token.
func rest(b []byte) []byte { return b[4+int(b[0]&15):] }

// under gives a message's header and token to another one's options and payload.
func under(header, other []byte) []byte {
	return slices.Concat(header[:4+int(header[0]&15)], rest(other))
}

func messageID(b []byte) uint16 { return binary.BigEndian.Uint16(b[2:]) }

// protectedBytes are the places of a datagram's OSCORE option, header and value,
// and of its payload with the marker. What stands in other options of a proxied
// message is the proxies' own, and nothing protects it.
func protectedBytes(b []byte) (at []int) {
	i, number := 4+int(b[0]&15), 0
	extended := func(n int) int {
		switch n {
		case 13:
			n = 13 + int(b[i])
			i++
		case 14:
			n = 269 + int(binary.BigEndian.Uint16(b[i:]))
			i += 2
		}
		return n
	}
	for i < len(b) && b[i] != 0xff {
		start := i
		i++
		number += extended(int(b[start] >> 4))
		length := extended(int(b[start] & 15))
		i += length
		if number == peer.OptOSCORE {
			for k := start; k < i; k++ {
				at = append(at, k)
			}
		}
	}
	for ; i < len(b); i++ {
		at = append(at, i)
	}
	return at
}

// flipped gives the datagram with one bit of a byte flipped.
func flipped(b []byte, at int) []byte {
	f := slices.Clone(b)
	f[at] ^= 1 << (at % 8)
	return f
}

func parses(b []byte) bool {
	_, err := peer.ParseMessage(b)
	return err == nil
}

// sealed takes a datagram apart that carries option 9.
func sealed(d peer.Datagram) (m peer.Message, o peer.OSCOREOption, ok bool) {
	m, err := peer.ParseMessage(d.Bytes)
	if err != nil {
		return m, o, false
	}
	v, ok := m.Option(peer.OptOSCORE)
	if !ok {
		return m, o, false
	}
	o, err = peer.ParseOSCOREOption(v)
	return m, o, err == nil
}

// forger sends requests of its own from a relay and keeps their answers to
// itself.
type forger struct {
	relay *peer.Relay
	mu    sync.Mutex
	sent  map[string]peer.Message // the answer by token, or none yet
	ids   map[uint16]bool
}

func newForger(r *peer.Relay) *forger {
	return &forger{relay: r, sent: map[string]peer.Message{}, ids: map[uint16]bool{}}
}

// forge makes a non-confirmable request of a datagram's options and payload.
// Its message ID is far from those that the hop before counts up.
func (f *forger) forge(b []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	token := binary.BigEndian.AppendUint64(nil, rand.Uint64())
	id := messageID(b) + 0x4000 + uint16(len(f.sent))
	f.sent[string(token)] = peer.Message{}
	f.ids[id] = true
	return reheaded(b, 1, id, token)
}

// keeps reports whether a datagram answers something forged, and notes it.
func (f *forger) keeps(d peer.Datagram) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := peer.ParseMessage(d.Bytes)
	if err != nil || d.ToServer {
		return false
	}
	if !m.IsResponse() {
		return f.ids[m.ID]
	}
	_, ours := f.sent[string(m.Token)]
	if ours {
		f.sent[string(m.Token)] = m
		if m.Type == 0 { // else a proxy may wait with everything else
			f.relay.Send(d.Client, []byte{0x60, 0, d.Bytes[2], d.Bytes[3]})
		}
	}
	return ours
}

// answers gives those that came so far.
func (f *forger) answers() (all []peer.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.sent {
		if m.Code != 0 {
			all = append(all, m)
		}
	}
	return all
}

// ask sends a captured request once more, as another one, and gives the answer.
// A server limits its refusals, so that the first may be left out.
func (f *forger) ask(t *testing.T, d peer.Datagram) peer.Message {
	t.Helper()
	f.relay.Forward(func(d peer.Datagram) [][]byte {
		if f.keeps(d) {
			return nil
		}
		return [][]byte{d.Bytes}
	})
	defer f.relay.Forward(nil)
	var answer peer.Message
	next := time.Now()
	f.relay.Await(t, "answer to what was sent once more", func(peer.Capture) bool {
		if all := f.answers(); len(all) > 0 {
			answer = all[0]
			return true
		}
		if time.Now().After(next) {
			f.relay.Send(d.Client, f.forge(d.Bytes))
			next = time.Now().Add(700 * time.Millisecond)
		}
		return false
	})
	return answer
}

// plan does something to the requests of our client in the order in which they
// appear on the path, and to their responses, at any relay: they are known
// again by their Partial IV, which every relay sees, and their token at it.
type plan struct {
	relays []*peer.Relay

	mu     sync.Mutex
	jobs   []job
	byPIV  map[uint64]*job
	tokens []map[string]*job // at each relay
}

// job is what is done to one request. A nil function passes.
type job struct {
	at       int // the relay
	request  func(b []byte) []byte
	response func(b []byte) []byte
	done     int // datagrams that it was done to
}

// execute puts a plan in place.
func (l *line) execute(jobs []job) *plan {
	p := &plan{relays: l.relays, jobs: jobs, byPIV: map[uint64]*job{}, tokens: make([]map[string]*job, len(l.relays))}
	next := 0
	for i, r := range l.relays {
		p.tokens[i] = map[string]*job{}
		r.Forward(func(d peer.Datagram) [][]byte {
			p.mu.Lock()
			defer p.mu.Unlock()
			m, o, ok := sealed(d)
			if !ok {
				return [][]byte{d.Bytes}
			}
			if m.IsRequest() {
				piv := slices.Clone(o.PartialIV)
				n := binary.BigEndian.Uint64(append(make([]byte, 8-len(piv)), piv...))
				if i == 0 && p.byPIV[n] == nil && next < len(p.jobs) {
					p.byPIV[n] = &p.jobs[next]
					next++
				}
				p.tokens[i][string(m.Token)] = p.byPIV[n]
			}
			j := p.tokens[i][string(m.Token)]
			if j == nil || j.at != i {
				return [][]byte{d.Bytes}
			}
			change := j.response
			if m.IsRequest() {
				change = j.request
			}
			if change == nil {
				return [][]byte{d.Bytes}
			}
			j.done++
			if b := change(d.Bytes); b != nil {
				return [][]byte{b}
			}
			return nil
		})
	}
	return p
}

// clientOf is the address that the genuine client sends from.
func (l *line) clientOf() netip.AddrPort { return l.relays[0].Capture()[0].Client }

// seenByTshark lets an independent reader look at all that the relays saw: no
// message may show anything of what stands inside, not even its method.
func seenByTshark(t *testing.T, pieces bool, captures ...peer.Capture) {
	t.Helper()
	peer.Component(t, "debian")
	file := filepath.Join(t.TempDir(), "capture.pcap")
	all := slices.Concat(captures...)
	peer.Capture(all).WritePcap(t, file)
	fields := []string{
		"coap.code", "coap.opt.uri_path", "coap.opt.uri_query", "coap.opt.ctype", "coap.opt.accept", "coap.opt.etag",
		"coap.opt.if_match", "coap.opt.location_path", "coap.opt.location_query", "coap.opt.unknown", "coap.opt.name",
	}
	args := []string{"-r", file, "-T", "fields", "-E", "separator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	if len(lines) != len(all) {
		t.Errorf("tshark reads %d messages of %d", len(lines), len(all))
	}
	messages := 0
	for _, l := range lines {
		v := strings.Split(l, "|")
		if len(v) != len(fields) || v[0] == "0" { // an empty message belongs to one hop
			continue
		}
		messages++
		if pieces && v[0] == "95" && strings.Join(v[1:], "") == "#1: Block1" {
			continue // 2.31 between two hops
		}
		if pieces && strings.Contains(v[10], "(292)") {
			v[9] = "" // the Request-Tag of the proxy's own blocks
		}
		// 0.02, 0.05, 2.04 and 2.05.
		if !slices.Contains([]string{"2", "5", "68", "69"}, v[0]) || strings.Join(v[1:10], "") != "" || !strings.Contains(v[10], "OSCORE") {
			t.Errorf("tshark sees %s", l)
		}
	}
	if messages == 0 {
		t.Error("tshark sees no message")
	}
}
