package keys_test

import (
	"fmt"
	"strings"
	"testing"
)

// An exhaustive model of what keeps nonces and requests unique: ranges of
// sequence numbers reserved durably, an epoch that fences a node which lost its
// place, Echo after a loss, and a window handed over once. Two nodes serve one
// security context over one store. Every interleaving is searched of: taking
// over, reserving, either with the reply lost; crashes; clean stops; a client
// that answers challenges; a network that delivers every request again at any
// time to any node; a node that sleeps for any time between two of its steps, or
// parks the context and brings it back.
//
// What must not happen is a number used twice, or a request accepted twice. Each
// mutant leaves one rule out, and the search finds what goes wrong.

const (
	modelRequests   = 4 // of the client, at most; its Partial IVs are 0 to 3
	modelChallenges = 3
	modelEpochs     = 3
	modelNumbers    = 8
	modelBlock      = 2
)

// rules are what the nodes keep to. The zero value is all of them.
type rules struct {
	name       string
	noDurable  bool // a range is used before the store remembers it
	noFence    bool // requests are accepted without asking whether the epoch is still current
	after      bool // that is asked when the request is there, but the node may sleep before it accepts
	before     bool // that is asked before the request is there: a lease by time, and a node that sleeps
	noEcho     bool // the first request after a loss opens the window
	staleEcho  bool // an Echo value counts whatever epoch it was made in
	freeRide   bool // a challenge spends no number
	under      bool // the answer to an accepted request goes under the request's nonce, as RFC 8613 §5.2 allows
	challenged bool // so does a challenge, though nothing is known of the window
	hopeful    bool // a range counts as reserved when the outcome of the write is not known
	keptWindow bool // a window handed over is not deleted when it is taken
	small      bool // one request and one block of numbers fewer

	parks       bool // nodes park the context and bring it back (cold.go)
	parkedTwice bool // what was parked is kept when it is brought back, and comes back again
	parkedLasts bool // a crash brings back what was parked last
}

// modelNode is the memory of one node.
type modelNode struct {
	epoch       uint8 // 0: it never took over, or crashed
	next, limit uint8 // its numbers
	open        bool  // its window
	floor, seen uint8
	echo        uint8 // the challenge it waits for
	doing       uint8 // request that passed the fence, plus one (after), or anyRequest (before)

	away   bool // it is parked
	parked modelParked
	stored modelParked // with parkedLasts
}

// modelParked is what a node parked.
type modelParked struct {
	here, open               bool
	floor, seen, next, limit uint8
}

// park moves what the node knows of the context.
func (n *modelNode) park(r *rules) {
	if !r.parkedTwice || !n.parked.here {
		n.parked = modelParked{true, n.open, n.floor, n.seen, n.next, n.limit}
	}
	if r.parkedLasts {
		n.stored = n.parked
	}
	n.open, n.floor, n.seen, n.next, n.limit = false, 0, 0, 0, 0
	n.away = true
}

// wake is the inverse of park.
func (n *modelNode) wake(r *rules) {
	p := n.parked
	n.open, n.floor, n.seen, n.next, n.limit = p.open, p.floor, p.seen, p.next, p.limit
	if !r.parkedTwice {
		n.parked = modelParked{}
	}
	n.away = false
}

// world is a state of everything.
type world struct {
	epoch, next        uint8 // the store's
	behind             uint8 // with noDurable: numbers given out that the store does not remember yet
	saved              bool  // a window handed over
	savedAt, savedSeen uint8
	nodes              [2]modelNode

	sent       uint8
	echoes     [modelRequests]uint8 // in each request, 0 for none
	challenges uint8                // made so far, and in the network

	used, accepted uint8 // sets of numbers and of requests
	answered       uint8 // requests whose nonce an answer took
	broken         uint8
}

const anyRequest = 0xff

const (
	brokenNonce  = 1
	brokenReplay = 2
)

// spend uses a number of a node; false if it has none.
func (w *world) spend(n *modelNode, keep bool) bool {
	if n.next >= n.limit {
		return false
	}
	bit := uint8(1) << n.next
	if w.used&bit != 0 {
		w.broken = brokenNonce
	}
	w.used |= bit
	if !keep {
		n.next++
	}
	return true
}

// borrow uses a request's nonce for an answer.
func (w *world) borrow(bit uint8) bool {
	if w.answered&bit != 0 {
		w.broken = brokenNonce
	}
	w.answered |= bit
	return true
}

// successors calls emit for every state that one step leads to.
func (w world) successors(r *rules, emit func(step string, next world)) {
	requests, numbers := uint8(modelRequests), uint8(modelNumbers)
	if r.small {
		requests, numbers = requests-1, numbers-modelBlock
	}
	if w.sent < requests {
		for echo := range w.challenges + 1 {
			v := w
			v.echoes[v.sent] = echo
			v.sent++
			emit(fmt.Sprintf("client sends request %d with echo %d", w.sent, echo), v)
		}
	}
	if w.behind > 0 {
		v := w
		v.next, v.behind = max(v.next, v.behind), 0
		emit("the store catches up", v)
	}
	for i := range w.nodes {
		n := w.nodes[i]
		name := string(rune('A' + i))
		if n != (modelNode{}) {
			v := w
			v.nodes[i], v.behind = modelNode{stored: n.stored}, 0
			emit(name+" crashes", v)
		}
		if w.epoch < modelEpochs {
			v := w
			v.epoch++
			if !r.keptWindow {
				v.saved, v.savedAt, v.savedSeen = false, 0, 0
			}
			emit(name+" takes over, and does not learn of it", v)
			m := modelNode{epoch: v.epoch, parked: n.stored, stored: n.stored, away: n.stored.here}
			if w.saved {
				m.open, m.floor, m.seen = true, w.savedAt, w.savedSeen
			}
			v.nodes[i] = m
			emit(name+" takes over", v)
		}
		if n.epoch == 0 {
			continue
		}
		if r.parks && n.doing == 0 {
			v := w
			if n.away {
				v.nodes[i].wake(r)
				emit(name+" brings the context back", v)
			} else {
				v.nodes[i].park(r)
				emit(name+" parks the context", v)
			}
		}
		if n.away {
			continue // every operation brings it back first
		}
		current := n.epoch == w.epoch
		if from := max(w.next, w.behind); current && from+modelBlock <= numbers {
			v := w
			m := &v.nodes[i]
			if r.noDurable {
				// What the store remembers comes later, or never.
				from = w.next
				v.behind = from + modelBlock
			} else {
				v.next += modelBlock
				emit(name+" reserves, and does not learn of it", v)
			}
			if m.next >= m.limit {
				m.next = from
			}
			m.limit = from + modelBlock
			emit(name+" reserves", v)
			if r.hopeful {
				v.next = w.next
				emit(name+" reserves, and the write is lost", v)
			}
		}
		if current && n.open {
			v := w
			v.saved, v.savedAt, v.savedSeen = true, n.floor, n.seen
			v.nodes[i] = modelNode{}
			emit(name+" stops cleanly", v)
		}
		if r.before && current && n.doing == 0 {
			v := w
			v.nodes[i].doing = anyRequest
			emit(name+" finds its lease valid", v)
		}
		for q := range w.sent {
			switch {
			case r.after && n.doing == 0 && current:
				v := w
				v.nodes[i].doing = q + 1
				emit(fmt.Sprintf("%s has request %d and finds its lease valid", name, q), v)
			case r.after && n.doing == q+1, r.before && n.doing == anyRequest, r.noFence, !r.after && !r.before && current:
				w.handle(r, i, q, name, emit)
			}
		}
	}
}

// handle lets a node handle a request.
func (w world) handle(r *rules, i int, q uint8, name string, emit func(string, world)) {
	v := w
	n := &v.nodes[i]
	n.doing = 0
	bit := uint8(1) << q
	switch echo := w.echoes[q]; {
	case n.open && (q < n.floor || n.seen&bit != 0):
		emit(fmt.Sprintf("%s refuses request %d", name, q), v) // a replay
	case n.open, r.noEcho, echo != 0 && (echo == n.echo || r.staleEcho):
		if !n.open {
			n.open, n.floor = true, q
		}
		n.seen |= bit
		if v.accepted&bit != 0 {
			v.broken = brokenReplay
		}
		v.accepted |= bit
		if r.under && v.borrow(bit) || !r.under && v.spend(n, false) { // else the response has a number of its own
			emit(fmt.Sprintf("%s accepts request %d", name, q), v)
		}
	case w.challenges < modelChallenges:
		if r.challenged && v.borrow(bit) || !r.challenged && v.spend(n, r.freeRide) {
			v.challenges++
			n.echo = v.challenges
			emit(fmt.Sprintf("%s answers request %d with challenge %d", name, q, v.challenges), v)
		}
	}
}

// search walks through all states, breadth first, and returns the shortest way
// to a broken one.
func search(r *rules) (states int, broken uint8, trace []string) {
	type visit struct {
		w    world
		from int32
	}
	seen := map[world]struct{}{{}: {}}
	queue := []visit{{from: -1}}
	for at := 0; at < len(queue); at++ {
		var found *world
		queue[at].w.successors(r, func(_ string, next world) {
			if next.broken != 0 && found == nil {
				found = &next
			}
			if _, ok := seen[next]; !ok && found == nil {
				seen[next] = struct{}{}
				queue = append(queue, visit{next, int32(at)})
			}
		})
		if found == nil {
			continue
		}
		for to, i := *found, int32(at); i >= 0; to, i = queue[i].w, queue[i].from {
			queue[i].w.successors(r, func(step string, next world) {
				if next == to && (len(trace) == 0 || trace[0] != "") {
					trace = append([]string{""}, trace...)
					trace[0] = step
					to.broken = 0xff // only the first step that leads there
				}
			})
		}
		return len(seen), found.broken, trace
	}
	return len(seen), 0, nil
}

func TestModel(t *testing.T) {
	states, broken, trace := search(&rules{})
	if broken != 0 {
		t.Fatalf("broken (%d) by:\n%s", broken, strings.Join(trace, "\n"))
	}
	t.Logf("%d states, nothing broken", states)
	if states < 100_000 {
		t.Errorf("only %d states: the model lost its life", states)
	}
}

// TestModelSleeper: a node that has the request in hand, finds its epoch current
// and then sleeps accepts nothing twice. Whoever took over meanwhile opened its
// window by an Echo, in a request that is younger than all that came before the
// challenge.
func TestModelSleeper(t *testing.T) {
	states, broken, trace := search(&rules{after: true, small: true})
	if broken != 0 {
		t.Fatalf("broken (%d) by:\n%s", broken, strings.Join(trace, "\n"))
	}
	t.Logf("%d states, nothing broken", states)
}

// TestModelParking: a context that is parked in memory and brought back is as good
// as one that stayed.
func TestModelParking(t *testing.T) {
	states, broken, trace := search(&rules{parks: true, small: true})
	if broken != 0 {
		t.Fatalf("broken (%d) by:\n%s", broken, strings.Join(trace, "\n"))
	}
	t.Logf("%d states, nothing broken", states)
	if states < 100_000 {
		t.Errorf("only %d states: the model lost its life", states)
	}
}

// TestModelBorrowedNonce: a request that is accepted once is answered once, so that
// the answer may go under its nonce, whichever node it is.
func TestModelBorrowedNonce(t *testing.T) {
	states, broken, trace := search(&rules{under: true, small: true})
	if broken != 0 {
		t.Fatalf("broken (%d) by:\n%s", broken, strings.Join(trace, "\n"))
	}
	t.Logf("%d states, nothing broken", states)
	if states < 10_000 {
		t.Errorf("only %d states: the model lost its life", states)
	}
}

func TestModelMutants(t *testing.T) {
	for _, m := range []struct {
		rules rules
		want  uint8
	}{
		{rules{name: "no durability", noDurable: true}, brokenNonce},
		{rules{name: "no fence", noFence: true}, brokenReplay},
		{rules{name: "a lease by time, and a node that sleeps", before: true, small: true}, brokenReplay},
		{rules{name: "no Echo", noEcho: true}, brokenReplay},
		{rules{name: "an Echo value of an earlier epoch", staleEcho: true}, brokenReplay},
		{rules{name: "a challenge without a number of its own", freeRide: true}, brokenNonce},
		{rules{name: "a challenge under the request's nonce", under: true, challenged: true, small: true}, brokenNonce},
		{rules{name: "a write of unknown outcome that counts as done", hopeful: true}, brokenNonce},
		{rules{name: "a window handed over twice", keptWindow: true}, brokenReplay},
		{rules{name: "parked, and brought back twice", parks: true, parkedTwice: true, small: true}, brokenNonce},
		{rules{name: "parked, and brought back by a crash", parks: true, parkedLasts: true, small: true}, brokenNonce},
	} {
		t.Run(m.rules.name, func(t *testing.T) {
			states, broken, trace := search(&m.rules)
			if broken != m.want {
				t.Fatalf("%d states: broken %d, want %d", states, broken, m.want)
			}
			t.Logf("found in %d steps, %d states:\n%s", len(trace), states, strings.Join(trace, "\n"))
		})
	}
}
