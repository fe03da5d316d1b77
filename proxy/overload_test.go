package proxy_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/udp"
	"github.com/oscorelay/oscorelay/proxy"
)

// flood makes the i-th datagram of an attack.
type flood func(i int) []byte

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func attack(o coap.Options, payload int) flood {
	return func(i int) []byte {
		return coap.Datagram{Type: coap.Type(i % 2), Code: coap.POST, MessageID: uint16(i), Token: binary.BigEndian.AppendUint32(nil, uint32(i)), Body: coap.AppendBody(nil, o, random(payload))}.Append(nil)
	}
}

// floods are what an attacker may send without a key. Requests for "silent"
// are never answered.
var floods = map[string]flood{
	"garbage":    func(i int) []byte { return random(1 + i%200) },
	"half-open":  attack(options(coap.URIHost, "silent"), 16),
	"observe":    attack(options(coap.URIHost, "silent", coap.Observe, ""), 16),
	"block-wise": attack(options(coap.URIHost, "silent"), 900),
	"own blocks": attack(options(coap.URIHost, "silent", coap.Block1, string(coap.Block{More: true, SZX: 2}.Append(nil))), 64),
	"forged option 9": func(i int) []byte {
		return attack(coap.Options{{Number: coap.OSCORE, Value: random(i % 20)}}, 40)(i)
	},
	"forged kid": func(i int) []byte {
		kid := binary.BigEndian.AppendUint32([]byte{0x09, byte(i)}, uint32(i))
		return attack(coap.Options{{Number: coap.OSCORE, Value: kid}}, 40)(i)
	},
	"answers": func(i int) []byte {
		return coap.Datagram{Type: coap.Type(i % 4), Code: coap.Content, MessageID: uint16(i), Token: random(8), Body: coap.AppendPayload(nil, random(40))}.Append(nil)
	},
	"one message": func(i int) []byte { return attack(nil, 0)(i % 2) },
}

// shedBy is the reason that most of a flood is counted by. What is not here is
// passed on and answered by the server.
var shedBy = map[string]string{
	"garbage": "malformed", "half-open": "exchanges_full", "observe": "exchanges_full", "block-wise": "transfers_full",
	"own blocks": "exchanges_full", "answers": "unmatched",
}

// answerAll answers every request, 4.01 to what has option 9 and no payload
// that it knows, as a server would that fails to verify it.
func answerAll(t testing.TB, s *udp.Socket) {
	t.Helper()
	in := make([]udp.Packet, 32)
	for {
		n, err := s.Read(in)
		if err != nil {
			return
		}
		for _, p := range in[:n] {
			d, err := coap.ParseDatagram(p.Data)
			if err != nil || !d.Code.IsRequest() {
				continue
			}
			if d.Type == coap.Confirmable {
				d.Type = coap.Acknowledgement
			}
			genuine := bytes.Contains(d.Body, []byte("genuine"))
			if d.Code = coap.Unauthorized; genuine {
				d.Code = coap.Content
			}
			d.Body = nil
			s.Write([]udp.Packet{{Peer: p.Peer, Data: d.Append(nil)}})
		}
	}
}

// TestOverload: whatever an attacker without a key sends, from thousands of
// addresses, every table stays below its limit, what is shed is counted by its
// rule, and a client that retransmits is answered meanwhile.
func TestOverload(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("addresses by the thousand take a source address for each datagram, which Linux alone has here")
	}
	for name, datagram := range floods {
		for _, byKID := range []bool{false, true} {
			mode := "shared"
			if byKID {
				mode = "by kid"
				if name != "half-open" && name != "forged kid" {
					continue // nothing is about whose they are
				}
			}
			t.Run(name+"/"+mode, func(t *testing.T) {
				silent := open(t)
				origin, err := udp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udp.Options{ReadBuffer: 1 << 20})
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan struct{})
				go func() { answerAll(t, origin); close(done) }()
				defer func() { _ = origin.Close(); <-done }()
				limits := proxy.Config{
					Routes: []proxy.Route{{Host: "silent", To: silent.addr(), BlockSize: 256}, {To: origin.Addr().String()}}, ByKID: byKID, Shards: 1,
					MaxExchanges: 500, PeerExchanges: 4, MaxRelations: 100, MaxUpstream: 50, MaxPeers: 300, MaxBytes: 1 << 20, MaxTransfers: 1 << 16,
				}
				p := start(t, limits)
				attacker, err := udp.Listen(netip.MustParseAddrPort("0.0.0.0:0"), udp.Options{Local: true})
				if err != nil {
					t.Fatal(err)
				}
				defer attacker.Close()
				client := open(t)
				packets := make([]udp.Packet, 64)
				for round := range 40 {
					for i := range packets {
						n := round*len(packets) + i
						at := netip.AddrFrom4([4]byte{127, 3, byte(n % 1000 >> 8), byte(n % 1000)})
						packets[i] = udp.Packet{Peer: p.Addr(), Local: at, Data: datagram(n)}
					}
					attacker.Write(packets)
					if round%8 == 0 {
						genuine(t, client, p)
					}
					st := p.Stats()
					if st.Exchanges > limits.MaxExchanges || st.Relations > limits.MaxRelations || st.Upstream > limits.MaxUpstream ||
						st.Peers > limits.MaxPeers*(1+limits.MaxUpstream) || st.Bytes > 2*limits.MaxBytes+limits.MaxTransfers {
						t.Fatalf("round %d: %+v", round, st)
					}
				}
				st := p.Stats()
				if why := shedBy[name]; !byKID && why != "" && st.By[why] == 0 {
					t.Errorf("nothing is counted as %s: %v", why, st.By)
				}
			})
		}
	}
}

// genuine has one request answered, retransmitting it as clients do.
func genuine(t *testing.T, s *socket, p *running) {
	t.Helper()
	s.mid++
	o := coap.Options{{Number: coap.OSCORE, Value: []byte{9, byte(s.mid), 0x2a}}}
	d := coap.Datagram{Type: coap.Confirmable, Code: coap.POST, MessageID: s.mid, Token: []byte{byte(s.mid)}, Body: coap.AppendBody(nil, o, []byte("genuine"))}
	b := make([]byte, 2048)
	for range 100 {
		s.send(p.Addr(), d)
		if err := s.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		for {
			n, _, err := s.conn.ReadFromUDPAddrPort(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := coap.ParseDatagram(b[:n])
			if err != nil {
				t.Fatal(err)
			}
			if got.MessageID == d.MessageID && got.Code == coap.Content {
				return
			}
		}
		s.mid++ // a 5.03 was the end of that message: ask anew, as an application does
		d.MessageID = s.mid
	}
	t.Fatal("a genuine client is not answered")
}
