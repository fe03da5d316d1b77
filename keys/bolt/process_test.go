package bolt

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/child"
	"github.com/oscorelay/oscorelay/oscore"
)

func TestMain(m *testing.M) { child.Main(m, process) }

// process opens the store. As "sender" it uses all of it for ever and writes out
// what it did, once that is durable; as "holder" it keeps it until its input ends.
//
//	s NUMBER  sealed a request under that number of device a
//	j NUMBER  is about to let an unsafe request go on: the journal said it is new
//	o NUMBER  holds an observation of that number
func process(what, base string) error {
	if what == "fleet" {
		return fleetProcess(base)
	}
	o := opts(base)
	o.Hot = 2
	st, err := Open(filepath.Join(base, "store"), o)
	if err != nil {
		return err
	}
	if what == "holder" {
		child.Hold()
		return st.Close()
	}
	if st.Taint() != "" {
		return fmt.Errorf("tainted: %s", st.Taint())
	}
	if what == "evictor" {
		return evictor(st, base)
	}
	ring, err := st.Keyring(ctx)
	if err != nil {
		return err
	}
	peer, _ := ring.Get("a")
	for n := uint64(0); ; n++ {
		for range 20 {
			var p oscore.Pending
			if _, err := peer.SealRequest(nil, &p, oscore.Message{Code: 1}); err != nil {
				return err
			}
			if err := child.Say("s", p.PartialIV()); err != nil {
				return err
			}
		}
		// Each process retransmits the requests of all before it.
		x := Exchange{"server", uint16(n), []byte{1}}
		_, repeated, err := st.Begin(ctx, x, nil, time.Unix(int64(n), 0))
		if err != nil {
			return err
		}
		if !repeated {
			if err := child.Say("j", n); err != nil {
				return err
			}
			if err := st.Finish(ctx, x, []byte("done")); err != nil {
				return err
			}
		}
		token := []byte{byte(n >> 8), byte(n)}
		if err := st.Update(ctx, func(tx *Tx) error { return tx.PutObservation(Observation{"a", token, token}) }); err != nil {
			return err
		}
		if err := child.Say("o", n&0xffff); err != nil {
			return err
		}
	}
}

// evictor lets eight devices talk over a keyring that holds two of them, with a
// network that delivers what any process ever sent again and again, and changes
// entries meanwhile.
//
//	s NAME NUMBER  sealed a request or a challenge under that number
//	a NAME NUMBER  accepted the request of that number
func evictor(st *Store, base string) error {
	ring, err := st.Keyring(ctx)
	if err != nil {
		return err
	}
	network, err := os.OpenFile(filepath.Join(base, "network"), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	var sent []oscore.Message
	next := map[string]uint64{} // the devices' own numbers
	for lines := bufio.NewScanner(network); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
		b, err := hex.DecodeString(text)
		if err != nil || len(b) == 0 {
			continue // cut short
		}
		sent = append(sent, oscore.Message{Code: b[0], Body: b[1:]})
		next[name]++
	}
	type end struct {
		entry keys.Entry
		far   *oscore.Context
	}
	var ends []end
	for i := range evicted {
		e := meter(i)
		far, err := oscore.New(e.Params.Swap())
		if err == nil {
			err = far.Extend(next[e.Name]+1000*st.Epoch(), oscore.MaxSequence) // lines may be lost
		}
		if err != nil {
			return err
		}
		ends = append(ends, end{e, far})
	}
	seal := func(e end) (oscore.Message, error) {
		m, err := e.far.SealRequest(nil, new(oscore.Pending), oscore.Message{Code: 1})
		if err == nil {
			_, err = fmt.Fprintf(network, "%s %x\n", e.entry.Name, append([]byte{m.Code}, m.Body...))
		}
		sent = append(sent, m)
		return m, err
	}
	open := func(m oscore.Message) (oscore.Peer, *oscore.Request, error) {
		opt, err := oscore.ParseOption(m.Body[1 : 1+m.Body[0]&15])
		if err != nil {
			return nil, nil, err
		}
		peers, match := ring.Find(nil, opt.KID, nil)
		if match != oscore.MatchKID {
			return nil, nil, fmt.Errorf("kid %x: %v", opt.KID, match)
		}
		q := new(oscore.Request)
		_, err = peers[0].OpenRequest(nil, q, m)
		return peers[0], q, err
	}
	for n := 0; ; n++ {
		e := ends[rand.IntN(len(ends))]
		m := oscore.Message{}
		switch k := rand.IntN(20); {
		case k < 8:
			m, err = seal(e)
		case k < 14 && len(sent) > 0:
			m = sent[rand.IntN(len(sent))]
		case k < 19:
			p, ok := ring.Get(e.entry.Name)
			if !ok {
				return fmt.Errorf("no peer %s", e.entry.Name)
			}
			for range rand.IntN(40) {
				q := new(oscore.Pending)
				if _, err := p.SealRequest(nil, q, oscore.Message{Code: 1}); err != nil {
					return err
				}
				if err := child.Say("s "+p.Name(), q.PartialIV()); err != nil {
					return err
				}
			}
			continue
		default:
			e.entry.Notes = strconv.Itoa(n)
			if err := st.Put(ctx, true, e.entry); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		p, q, err := open(m)
		if errors.Is(err, oscore.ErrUnproven) {
			out, err := p.SealChallenge(nil, q, []byte("echo"))
			if err != nil {
				return err
			}
			opt, err := oscore.ParseOption(out.Body[1 : 1+out.Body[0]&15])
			if err == nil {
				err = child.Say("s "+p.Name(), opt.Sequence())
			}
			if err != nil {
				return err
			}
			for _, e := range ends {
				if e.entry.Name == p.Name() {
					m, err = seal(e)
				}
			}
			if err != nil {
				return err
			}
			if p, q, err = open(m); !errors.Is(err, oscore.ErrUnproven) {
				return fmt.Errorf("after the challenge: %w", err)
			}
			if err := p.AcceptEcho(q); err != nil {
				return err
			}
		} else if errors.Is(err, oscore.ErrReplay) || errors.Is(err, oscore.ErrLate) {
			continue
		} else if err != nil {
			return err
		}
		if err := child.Say("a "+p.Name(), q.PartialIV()); err != nil {
			return err
		}
	}
}

// evicted is how many devices the evictor has.
const evicted = 8

// TestKill kills a process in the middle of all it does, again and again: no
// number is sealed twice, no unsafe request goes on twice, no observation that
// was acknowledged is lost.
func TestKill(t *testing.T) {
	proof.Checklist(t, "O-B.1.1-1")
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	base := t.TempDir()
	st := mustOpen(t, base)
	mustPut(t, st, true, "a")
	mustClose(t, st)
	observed := map[string]bool{}
	did := child.Kill(t, "sender", base, rounds, func(line string) bool {
		if line[0] == 'o' {
			observed[line] = true
		}
		return line[0] != 'o'
	})
	st = mustOpen(t, base)
	defer mustClose(t, st)
	err := st.View(ctx, func(tx *Tx) error {
		return tx.Observations("a", func(o Observation) error {
			delete(observed, fmt.Sprintf("o %d\n", int(o.Token[0])<<8|int(o.Token[1])))
			return nil
		})
	})
	if err != nil || len(observed) > 0 {
		t.Errorf("%d observations are lost, %v", len(observed), err)
	}
	t.Logf("%d kills, %d things done", rounds, did)
}

// TestKillEvictions kills a process in the middle of evictions: no number is sealed
// twice, no request is accepted twice.
func TestKillEvictions(t *testing.T) {
	proof.Checklist(t, "O-B.1.1-1")
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	base := t.TempDir()
	st := mustOpen(t, base)
	for i := range evicted {
		if err := st.Put(ctx, true, meter(i)); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, st)
	accepted := 0
	did := child.Kill(t, "evictor", base, rounds, func(line string) bool {
		if line[0] == 'a' {
			accepted++
		}
		return true
	})
	if accepted < 10*rounds {
		t.Errorf("only %d requests were accepted: nothing was tested", accepted)
	}
	st = mustOpen(t, base)
	defer mustClose(t, st)
	for i := range uint32(evicted) {
		if got, ok, err := st.Index(ctx, meter(int(i)).Name); got != i || !ok || err != nil {
			t.Errorf("index %d of device %d, %v, %v", got, i, ok, err)
		}
	}
	t.Logf("%d kills, %d things done", rounds, did)
}

func TestTwoProcesses(t *testing.T) {
	base := t.TempDir()
	mustClose(t, mustOpen(t, base))
	c := child.Command("holder", base)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != child.Opened {
		t.Fatal(line, err)
	}
	_, err = Open(filepath.Join(base, "store"), opts(base))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by process %d", c.Process.Pid)) {
		t.Errorf("%v, want process %d", err, c.Process.Pid)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, base))
}
