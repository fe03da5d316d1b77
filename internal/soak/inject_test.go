package soak

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/capture"
)

// recording is a good run: its capture, and what handlers did beside it.
type recording struct {
	t       *testing.T
	s       *sealer
	c       Context
	packets []capture.Packet
	intents Intents
	at      time.Time
	up      byte // Partial IV of the device's next request
	down    byte // and of the server's next message
	mid     [2]uint16
}

const (
	execute  = "\x02\xb13\x010\x014\xff" // POST /3/0/4
	send     = "\x02\xb2dp\xff"          // POST /dp
	ran      = "\x44"
	observed = "\x05\x60\x51a" // FETCH /a, Observe 0
	told     = "\x45\x60\xff"
	prove    = "\x81\xd1\xefe" // 4.01 with Echo
)

func (r *recording) add(up bool, data []byte) {
	p := packet(up, data)
	r.at = r.at.Add(time.Millisecond)
	p.At = r.at
	r.packets = append(r.packets, p)
}

func (r *recording) id(up bool) uint16 {
	i := 0
	if up {
		i = 1
	}
	r.mid[i]++
	return r.mid[i]
}

// exchange is a request of either side and its answer; own is the answer's Partial
// IV, nil for the request's nonce.
func (r *recording) exchange(up bool, token string, n byte, own []byte, request, answer string) {
	kid := r.c.Server
	if up {
		kid = r.c.Device
	}
	piv := []byte{n}
	r.add(up, r.s.seal(up, true, r.id(up), token, kid, piv, piv, strings.HasPrefix(request, "\x05"), request))
	r.add(!up, r.s.seal(!up, false, r.id(!up), token, kid, piv, own, false, answer))
}

// record makes a run of Sends, executes, challenges and an observation, with
// retransmissions.
func record(t *testing.T) *recording {
	c := Context{Name: "dev", MasterSecret: bytes.Repeat([]byte{7}, 16), Device: []byte{0xd1}, Server: []byte{0x51}}
	m, err := derive(c)
	if err != nil {
		t.Fatal(err)
	}
	r := &recording{t: t, s: &sealer{t, m}, c: c, at: time.Unix(1700000000, 0)}
	r.exchange(true, "o", r.next(true), nil, observed, told+"0")
	watched := r.up
	for i := range 20 {
		what := fmt.Sprint(i)
		if i%5 == 0 { // asked to prove that it is there, and asks again
			r.exchange(true, "s"+what, r.next(true), []byte{r.next(false)}, send+what, prove)
		}
		r.exchange(true, "s"+what, r.next(true), nil, send+what, ran)
		r.exchange(false, "x"+what, r.next(false), nil, execute+what, ran)
		if i%3 == 0 { // the same bytes again
			for _, p := range slices.Clone(r.packets[len(r.packets)-2:]) {
				r.add(p.To == serverAddr, p.Data)
			}
		}
		n := r.next(false)
		r.add(false, r.s.seal(false, false, r.id(false), "o", c.Device, []byte{watched}, []byte{n}, false, told+what))
		r.intents.Sends = append(r.intents.Sends, &Intent{Device: "dev", Payload: what, Times: 1, Success: true})
		r.intents.Executes = append(r.intents.Executes, &Intent{Device: "dev", Payload: what, Times: 1, Success: true})
		r.intents.Writes = append(r.intents.Writes, &Intent{Device: "dev", Payload: "sum" + what, Times: 1, Success: true})
	}
	return r
}

func (r *recording) next(up bool) byte {
	if up {
		r.up++
		return r.up
	}
	r.down++
	return r.down
}

// judge asks the witness, and beside it what handlers did.
func (r *recording) judge() (rep *Report, faults []error) {
	r.t.Helper()
	rep, err := Check(r.packets, serverAddr, r.c)
	if err != nil {
		r.t.Fatal(err)
	}
	_, more := r.intents.Judge(rep)
	return rep, append(rep.Faults, more...)
}

// sealedRequests are where the requests stand that came one way.
func (r *recording) sealedRequests(up bool) (at []int) {
	for i, p := range r.packets {
		if d, err := parseDatagram(p.Data); err == nil && d.code < 32 && (p.To == serverAddr) == up {
			at = append(at, i)
		}
	}
	return at
}

// What a gateway must never do, put into a recording of a good run at any place, is
// seen by the witness and by what it says of it.
func TestWitnessSeesWhatIsInjected(t *testing.T) {
	good := record(t)
	rep, faults := good.judge()
	if len(faults) > 0 || rep.Foreign+rep.Unmatched > 0 || rep.Repeats == 0 || rep.Challenge == 0 || rep.Notified == 0 {
		t.Fatalf("the recording is not good: %v %+v", faults, rep)
	}
	pick := func(rng *rand.Rand, all []int) int { return all[rng.IntN(len(all))] }
	for _, x := range []struct {
		name   string
		inject func(r *recording, rng *rand.Rand)
		want   string
	}{
		{"a nonce under other bytes", func(r *recording, rng *rand.Rand) {
			r.exchange(true, "new", 1+byte(rng.IntN(int(r.up))), []byte{r.next(false)}, send+"other", ran)
		}, "NONCE used twice"},
		{"a nonce of the server under other bytes", func(r *recording, rng *rand.Rand) {
			r.exchange(true, "new", r.next(true), []byte{1 + byte(rng.IntN(int(r.down)))}, send+"other", ran)
		}, "NONCE used twice"},
		{"a request's nonce in two answers", func(r *recording, _ *rand.Rand) {
			r.exchange(true, "n1", r.next(true), nil, send+"other", ran)
			r.add(false, r.s.seal(false, false, r.id(false), "n1", r.c.Device, []byte{r.up}, nil, false, "\x80"))
		}, "NONCE used twice"},
		{"an accepted replay, answered under a number of its own", func(r *recording, rng *rand.Rand) {
			for { // one that was acted upon, and is no observation
				i := pick(rng, r.sealedRequests(true))
				d, _ := parseDatagram(r.packets[i].Data)
				value, _ := d.find(optOSCORE)
				h, _ := parseHeader(value)
				if _, observes := d.find(optObserve); observes || i+1 == len(r.packets) || len(r.answersOf(h.partialIV)) == 0 {
					continue
				}
				r.add(true, r.packets[i].Data)
				r.add(false, r.s.seal(false, false, r.id(false), string(d.token), r.c.Device, h.partialIV, []byte{r.next(false)}, false, ran))
				return
			}
		}, "ACCEPTED twice"},
		{"an accepted replay, answered with the same bytes", func(r *recording, rng *rand.Rand) {
			x := r.intents.Sends[1+rng.IntN(4)] // sealed once, unlike each fifth
			x.Times++
		}, "a Send that was sealed 1 times was ACCEPTED 2 times"},
		{"an execute that ran again", func(r *recording, rng *rand.Rand) {
			x := r.intents.Executes[rng.IntN(20)]
			x.Times++
			r.exchange(false, "again", r.next(false), nil, execute+x.Payload, ran)
		}, "ran 2 times, sealed 2 times"},
		{"an execute that nobody sent", func(r *recording, _ *rand.Rand) {
			r.intents.Executes = append(r.intents.Executes, &Intent{Device: "dev", Payload: "never", Times: 1})
		}, "ran and was never sent"},
		{"an execute that ran though it was refused", func(r *recording, rng *rand.Rand) {
			x := r.intents.Executes[rng.IntN(20)]
			x.Success, x.Refused = false, true
		}, "was not sent, and it ran"},
		{"an execute that did not run", func(r *recording, rng *rand.Rand) { r.intents.Executes[rng.IntN(20)].Times = 0 }, "ran, and it did not"},
		{"a write twice", func(r *recording, rng *rand.Rand) { r.intents.Writes[rng.IntN(20)].Times++ }, "a write arrived 2 times"},
		{"a Send that was lost", func(r *recording, rng *rand.Rand) { r.intents.Sends[rng.IntN(20)].Times = 0 }, "ACCEPTED 0 times"},
		{"an older notification", func(r *recording, _ *rand.Rand) {
			n := r.next(false)
			r.add(false, r.s.seal(false, false, r.id(false), "o", r.c.Device, []byte{1}, []byte{n + 1}, false, told+"new"))
			r.add(false, r.s.seal(false, false, r.id(false), "o", r.c.Device, []byte{1}, []byte{n}, false, told+"old"))
			r.next(false)
		}, "notification"},
		{"a request in plain", func(r *recording, rng *rand.Rand) {
			i := rng.IntN(len(r.packets))
			r.packets = slices.Insert(r.packets, i, packet(rng.IntN(2) == 0, []byte("\x50\x02\xee\xee\xb13\x010\x014")))
			r.packets[i].At = r.packets[0].At
		}, "PLAIN"},
		{"an answer in plain", func(r *recording, _ *rand.Rand) { r.add(false, []byte("\x50\x45\xee\xee\xffsecret")) }, "PLAIN"},
		{"a message ID for another message", func(r *recording, rng *rand.Rand) {
			i := pick(rng, r.sealedRequests(rng.IntN(2) == 0))
			d, _ := parseDatagram(r.packets[i].Data)
			up := r.packets[i].To == serverAddr
			kid := r.c.Server
			if up {
				kid = r.c.Device
			}
			piv := []byte{r.next(up)}
			r.add(up, r.s.seal(up, true, d.mid, "mid", kid, piv, piv, false, send+"mid"))
		}, "message ID"},
	} {
		t.Run(x.name, func(t *testing.T) {
			for seed := range uint64(20) {
				r := record(t)
				x.inject(r, rand.New(rand.NewPCG(seed, 1)))
				_, faults := r.judge()
				if len(faults) != 1 || !strings.Contains(faults[0].Error(), x.want) {
					t.Fatalf("seed %d: %v, want one with %q", seed, faults, x.want)
				}
			}
		})
	}
	t.Run("a changed byte", func(t *testing.T) {
		for i := range good.packets {
			r := record(t)
			b := bytes.Clone(r.packets[i].Data)
			b[len(b)-1] ^= 1
			r.packets[i].Data = b
			rep, faults := r.judge()
			if len(faults)+rep.Foreign+rep.Unmatched == 0 {
				t.Fatalf("datagram %d: nothing is seen", i+1)
			}
		}
	})
}

// answersOf are the answers under a request's own nonce.
func (r *recording) answersOf(partialIV []byte) (n []int) {
	for i, p := range r.packets {
		d, err := parseDatagram(p.Data)
		if err != nil || d.code < 32 || p.To == serverAddr {
			continue
		}
		nonce := r.s.m.nonce(r.c.Device, partialIV)
		if _, ok := open(r.s.m.down, nonce, aad(r.c.Device, partialIV), d.payload); ok {
			n = append(n, i)
		}
	}
	return n
}
