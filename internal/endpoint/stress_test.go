package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/oscore"
)

// Both endpoints in both roles from many goroutines, every kind of exchange,
// contexts derived anew and peers forgotten under way. Under -race it shows
// the locking; in any case that no handler runs twice for a request, that
// every answer is the right one, and that afterwards all is well.
func TestManyAtOnce(t *testing.T) {
	proof.Checklist(t, "O-7.4-3", "O-7.2-2", "O-3.1-1")
	params := oscore.Params{MasterSecret: oscore.Secret("0123456789abcdef"), SenderID: []byte{1}, RecipientID: []byte{2}, WindowSize: 1024}
	pa, pb := newPeer(t, "b", params, bothRoles), newPeer(t, "a", params.Swap(), bothRoles)
	now := time.Unix(1e9, 0)
	cfg := Config{Freshness: func(_ string, _ coap.Code, path string) Freshness {
		if path == "/fresh" {
			return FreshAlways
		}
		return FreshFirst
	}, ErrorRate: 1e6, ErrorRateTotal: 1e6, MaxTransfers: 64}
	ca, cb := cfg, cfg
	ca.Keyring, cb.Keyring = testRing{pa}, testRing{pb}
	a, b := New(ca, now), New(cb, now)

	var seen sync.Map // request bodies that a handler of an unsafe method saw
	var observations sync.Map
	handle := func(r *Incoming) oscore.Message {
		id := payloadOf(t, r.Message)
		if unsafe(r.Message.Code) {
			if _, again := seen.LoadOrStore(string(id), true); again {
				t.Errorf("%.20q was acted on twice", id)
			}
		}
		if r.Observes() {
			return content([]byte("observed"), option(coap.Observe))
		}
		return content(append([]byte("re:"), id...))
	}
	// send passes a message to the other side, twice at once, and returns the
	// answer to the one that was accepted.
	send := func(to *Endpoint, m oscore.Message, token string) (answer oscore.Message, ok bool) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for range 2 {
			wg.Go(func() {
				res := to.Receive(now, Inbound{Source: token, Token: []byte(token), Message: m})
				switch res.Verdict {
				case Reply:
				case Deliver:
					out, send, err := res.Incoming.Respond(now, handle(res.Incoming))
					if err != nil || !send {
						return
					}
					if o := res.Incoming.Observation(); o != nil {
						observations.Store(o, true)
					}
					res.Message = out
				default:
					return
				}
				if _, protected, _ := oscore.FindOption(res.Message); protected {
					mu.Lock()
					answer, ok = res.Message, true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return answer, ok
	}
	var answered, lost atomic.Int64
	exchange := func(from, to *Endpoint, peer, id string, m oscore.Message, o RequestOptions) {
		x, out, err := from.Begin(now, peer, m, o)
		var busy *BusyError
		if errors.As(err, &busy) {
			select {
			case <-busy.Done:
			case <-time.After(10 * time.Second):
				t.Error("a run does not end")
			}
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		defer x.Close()
		for range 100 {
			answer, ok := send(to, out, id)
			if !ok {
				lost.Add(1)
				return
			}
			s := x.Receive(now, answer)
			switch s.Kind {
			case Send:
				out = s.Message
				continue
			case Response:
				if coap.Code(s.Message.Code) == coap.Content {
					if got := payloadOf(t, s.Message); !bytes.HasSuffix(got, payloadOf(t, m)) {
						t.Errorf("%s got %.40q", id, got)
					}
					answered.Add(1)
				}
			case Notification:
				answered.Add(1)
			default:
				lost.Add(1)
			}
			return
		}
		t.Error("an exchange does not end")
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			from, to, peer := a, b, "b"
			if i%2 == 1 {
				from, to, peer = b, a, "a"
			}
			for j := range 60 {
				id := fmt.Sprintf("%d/%d", i, j)
				var more []coap.Option
				code, path, body := coap.POST, "/x", []byte(id)
				switch j % 6 {
				case 1:
					body = append(bytes.Repeat([]byte{'.'}, 3000), id...)
				case 2:
					path = "/fresh"
				case 3:
					code, more = coap.FETCH, append(more, option(coap.Observe))
				case 4:
					code, body = coap.FETCH, append(bytes.Repeat([]byte{'-'}, 2000), id...)
				}
				exchange(from, to, peer, id, message(t, code, path, body, more...), RequestOptions{Rederive: i < 2 && j%20 == 19})
				if j%10 == 5 {
					from.Expire(now)
					observations.Range(func(k, _ any) bool {
						o := k.(*Observation)
						_, _ = o.Notify(now, content([]byte("n")))
						if j%20 == 5 {
							o.End()
						}
						observations.Delete(o)
						return true
					})
				}
				if j%30 == 29 {
					from.Forget(peer)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d answered, %d lost to derivations under way", answered.Load(), lost.Load())
	if answered.Load() < 100 {
		t.Errorf("only %d exchanges got their answer", answered.Load())
	}
	for _, dir := range []struct {
		from, to *Endpoint
		peer     string
	}{{a, b, "b"}, {b, a, "a"}} {
		for range 5 { // after what was lost a run may be due
			before := answered.Load()
			exchange(dir.from, dir.to, dir.peer, "end", message(t, coap.GET, "/x", nil), RequestOptions{Rederive: true})
			if answered.Load() > before {
				break
			}
		}
		before := answered.Load()
		exchange(dir.from, dir.to, dir.peer, "end", message(t, coap.GET, "/x", nil), RequestOptions{})
		if answered.Load() != before+1 {
			t.Errorf("afterwards %s is not answered", dir.peer)
		}
	}
}
