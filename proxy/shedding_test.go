package proxy

import (
	"testing"
	"time"
)

// Who goes follows what becomes of those that were dropped, either way.
func TestSheddingLearns(t *testing.T) {
	const patience = 2 * time.Second
	var s shedding
	now, token := time.Unix(1e9, 0), uint64(0)
	full := func() bool {
		token++
		now = now.Add(time.Millisecond)
		return s.victim(now, &exchange{token: token, to: &leg{}}, patience)
	}
	for range 10 * trialSize {
		if !full() {
			t.Fatal("the newest is refused while nothing says that the oldest would be answered")
		}
	}
	for slow := range 5 * trialSize { // answers to what was dropped come late
		full()
		s.late(s.trial[slow%trialSize].token, address{})
	}
	if full() {
		t.Fatal("the oldest is dropped though it would be answered")
	}
	dropped := 0
	for range 10_000 {
		if full() {
			dropped++
		}
	}
	if dropped == 0 || s.newest { // 10 s: trials without a late answer
		t.Errorf("%d were dropped to see, newest %v", dropped, s.newest)
	}
	s.late(1, address{port: 1}) // neither ours
	s.late(token, address{port: 1})
	if s.answered > 0 {
		t.Error("a stranger's response counts")
	}
}
