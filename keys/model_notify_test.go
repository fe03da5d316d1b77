package keys_test

import (
	"fmt"
	"strings"
	"testing"
)

// An exhaustive model of notifications (RFC 8613 §4.1.3.5.2, §7.4.1, Appendix
// B.1.3): a client observes a value that only grows, crashes, and takes the
// observation up again. The network keeps every notification and delivers it at
// any time, again and again. What must not happen is that the client is told an
// older value after a newer one, by whichever of its lives.

const (
	noticeValues = 4 // the value is 0 to 3, and numbers are as many
	noticeLives  = 3 // registrations
)

// noticeRules are what the client keeps to. The zero value is all of them.
type noticeRules struct {
	name       string
	noNumbers  bool // notifications are not compared with the last one
	stays      bool // after a crash the observation goes on, its last number forgotten
	firstTrust bool // the first notification of a registration may be any earlier one's
}

type noticeWorld struct {
	value        uint8
	registration uint8                   // the last that the server took, 0: none
	net          [noticeValues + 1]uint8 // by number, plus one: the registration that it answers
	observing    uint8                   // what the client waits for answers to, 0: it crashed
	last         uint8                   // number of its last notification, plus one
	told         uint8                   // what the application was told last, plus one; outlives the process
	broken       bool
}

func (w noticeWorld) successors(r *noticeRules, emit func(string, noticeWorld)) {
	if w.value < noticeValues-1 {
		v := w
		v.value++
		if v.registration > 0 {
			v.net[v.value+1] = v.registration
		}
		emit(fmt.Sprintf("the value is %d", v.value), v)
	}
	if w.observing == 0 && w.registration < noticeLives {
		v := w
		v.registration++
		v.observing, v.last = v.registration, 0
		v.net[v.value+1] = v.registration // the answer has the value of now, and a number of now
		emit(fmt.Sprintf("the client observes by request %d", v.registration), v)
	}
	if w.observing > 0 {
		v := w
		v.last = 0
		if !r.stays {
			v.observing = 0
		}
		emit("the client crashes", v)
	}
	for n := uint8(1); n <= noticeValues; n++ {
		answers := w.net[n]
		switch {
		case answers == 0 || w.observing == 0:
			continue
		case answers != w.observing && !(r.firstTrust && w.last == 0):
			continue // the AAD names the request (RFC 8613 §5.4)
		case !r.noNumbers && n <= w.last:
			continue
		}
		v := w
		v.last = n
		v.broken = n < v.told
		v.told = n
		emit(fmt.Sprintf("the client is told %d", n-1), v)
	}
}

func searchNotices(r *noticeRules) (states int, trace []string) {
	type visit struct {
		from int
		step string
	}
	seen := map[noticeWorld]int{{}: 0}
	order, how := []noticeWorld{{}}, []visit{{from: -1}}
	for at := 0; at < len(order); at++ {
		order[at].successors(r, func(step string, next noticeWorld) {
			if _, ok := seen[next]; ok {
				return
			}
			seen[next] = len(order)
			order, how = append(order, next), append(how, visit{at, step})
		})
		if order[at].broken {
			for i := at; how[i].from >= 0; i = how[i].from {
				trace = append([]string{how[i].step}, trace...)
			}
			return len(order), trace
		}
	}
	return len(order), nil
}

func TestModelNotifications(t *testing.T) {
	states, trace := searchNotices(&noticeRules{})
	if trace != nil {
		t.Fatalf("back in time by:\n%s", strings.Join(trace, "\n"))
	}
	t.Logf("%d states, nothing broken", states)
	if states < 200 {
		t.Errorf("only %d states: the model lost its life", states)
	}
	for _, m := range []noticeRules{
		{name: "numbers are not compared", noNumbers: true},
		{name: "the observation outlives the crash, its number does not", stays: true},
		{name: "what answered an earlier request counts", firstTrust: true},
	} {
		t.Run(m.name, func(t *testing.T) {
			states, trace := searchNotices(&m)
			if trace == nil {
				t.Fatalf("not found in %d states", states)
			}
			t.Logf("found in %d steps, %d states:\n%s", len(trace), states, strings.Join(trace, "\n"))
		})
	}
}
