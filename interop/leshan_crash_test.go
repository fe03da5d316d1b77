//go:build interop

package interop

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/peer"
)

// moment is a datagram on the device's leg at which the daemon is killed. It
// and all that follows until the daemon is back is lost.
type moment func(d peer.Datagram, m peer.Message) bool

// The daemon dies before the device has a request, or when the device has
// answered it; before the server has a request of the device, or when the
// server has answered it.
func deviceAsked(d peer.Datagram, m peer.Message) bool    { return !d.ToServer && m.IsRequest() }
func deviceAnswered(d peer.Datagram, m peer.Message) bool { return d.ToServer && m.IsResponse() }
func serverAnswered(d peer.Datagram, m peer.Message) bool { return !d.ToServer && m.IsResponse() }

// nth waits for the n-th such datagram.
func nth(n int, at moment) moment {
	return func(d peer.Datagram, m peer.Message) bool {
		if !at(d, m) {
			return false
		}
		n--
		return n == 0
	}
}

// killed begins what act does, kills the daemon at the moment, starts it again,
// and waits for act to end.
func (b *behindOscored) killed(t *testing.T, at moment, act func(t *testing.T)) {
	t.Helper()
	var mu sync.Mutex
	hit := make(chan struct{})
	dead := false
	b.front.Forward(func(d peer.Datagram) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		if m, err := peer.ParseMessage(d.Bytes); err == nil && !dead && at(d, m) {
			dead = true
			close(hit)
		}
		if dead {
			return nil
		}
		return [][]byte{d.Bytes}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		act(t)
	}()
	defer func() { <-done }()
	select {
	case <-hit:
	case <-time.After(crashPatience):
		t.Fatal("the moment to kill the daemon never came")
	}
	b.daemon.Crash()
	b.front.Forward(nil)
}

const crashPatience = 20 * time.Second

// TestLeshanOscoredKilled kills the daemon in the middle of each operation and
// starts it again: whoever asked gets the answer, and nothing runs twice.
func TestLeshanOscoredKilled(t *testing.T) {
	t.Parallel()
	for _, s := range leshanServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			b := newBehindOscored(t, s)
			for _, c := range []struct {
				name string
				play func(t *testing.T, b *behindOscored)
				only bool // servers with composite operations
			}{
				{"registration", crashRegistration, false},
				{"read", crashRead, false},
				{"write", crashWrite, false},
				{"execute", crashExecute, false},
				{"observe", crashObserve, false},
				{"observe-composite", crashObserveComposite, true},
				{"block1", crashBlock1, false},
				{"block2", crashBlock2, false},
				{"update and send", crashSend, false},
			} {
				if c.only && !s.composite {
					continue
				}
				if !t.Run(c.name, func(t *testing.T) {
					c.play(t, b)
					proof.Interop(t, peer.Version(t, s.component), "our device → oscored → its plain server", "kill -9 of oscored in the middle: "+c.name)
				}) {
					t.FailNow() // what follows needs the device registered
				}
			}
			b.sealed(t)
		})
	}
}

func crashRegistration(t *testing.T, b *behindOscored) {
	b.killed(t, serverAnswered, b.register)
	if all := b.server.Clients(t); len(all) != 1 || all[0].Endpoint != meter {
		t.Errorf("registered: %+v", all)
	}
}

func crashRead(t *testing.T, b *behindOscored) {
	for _, at := range []moment{deviceAsked, deviceAnswered} {
		b.killed(t, at, func(t *testing.T) {
			if got := b.server.Read(t, meter, "/3/0/0").Values["/3/0/0"]; got != b.device.Manufacturer() {
				t.Errorf("/3/0/0 is %q", got)
			}
		})
	}
}

func crashWrite(t *testing.T, b *behindOscored) {
	for i, at := range []moment{deviceAsked, deviceAnswered} {
		want := []string{"+01", "+02"}[i]
		mark := b.device.Mark()
		b.killed(t, at, func(t *testing.T) { b.server.Write(t, meter, "/3/0/14", want) })
		if got := b.server.Read(t, meter, "/3/0/14").Values["/3/0/14"]; got != want {
			t.Errorf("/3/0/14 is %q after the write of %q", got, want)
		}
		if n := b.served(mark, "PUT", "/3/0/14"); n != 1 {
			t.Errorf("the device took the write %d times", n)
		}
	}
}

// served counts what the device answered since the mark.
func (b *behindOscored) served(mark int, method, path string) int {
	n := 0
	for _, e := range b.device.Log().Since(mark) {
		if e.Event == "served" && e.Method == method && e.Path == path {
			n++
		}
	}
	return n
}

func crashExecute(t *testing.T, b *behindOscored) {
	for _, at := range []moment{deviceAsked, deviceAnswered} {
		before := b.device.Executed()
		b.killed(t, at, func(t *testing.T) { b.server.Execute(t, meter, "/3/0/4") })
		if n := b.device.Executed() - before; n != 1 {
			t.Errorf("/3/0/4 ran %d times", n)
		}
	}
}

// crashObserve kills the daemon while an observation begins, and then while it
// stands: Leshan never observes anew, the notifications come on its own token.
func crashObserve(t *testing.T, b *behindOscored) {
	b.killed(t, deviceAnswered, func(t *testing.T) { b.server.Observe(t, meter, "/3/0/9") })
	b.notified(t, "/3/0/9", 41)
	b.daemon.Crash()
	b.notified(t, "/3/0/9", 42, 43)
	b.daemon.Crash()
	b.daemon.Crash()
	b.notified(t, "/3/0/9", 44)
	b.server.CancelObserve(t, meter, "/3/0/9")
	b.forgotten(t)
}

func crashObserveComposite(t *testing.T, b *behindOscored) {
	paths := []string{"/3/0/9", "/3303/0/5700"}
	b.killed(t, deviceAnswered, func(t *testing.T) { b.server.ObserveComposite(t, meter, paths...) })
	b.notified(t, "/3/0/9", 51)
	b.daemon.Crash()
	b.notified(t, "/3/0/9", 52, 53)
	b.server.CancelObserveComposite(t, meter, paths...)
	b.forgotten(t)
}

// notified changes the battery to each level and waits until the server was
// told.
func (b *behindOscored) notified(t *testing.T, path string, levels ...int) {
	t.Helper()
	for _, level := range levels {
		from := b.server.Seen()
		b.device.Battery(t, level)
		b.server.AwaitNotification(t, from, meter, path, strconv.Itoa(level))
		if n := b.server.Count(from, "notification-error"); n != 0 {
			t.Errorf("%d notifications were errors to the server", n)
		}
	}
}

// forgotten waits until the device knows that nobody observes it any more. The
// server resets the next notification; the daemon turns that into a
// cancellation, and resets what the device still sends for observations that
// a dead daemon had.
func (b *behindOscored) forgotten(t *testing.T) {
	t.Helper()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	late := time.After(crashPatience)
	for level := 0; len(b.device.Observers()) > 0; level++ {
		b.device.Battery(t, level%20) // the device learns of a Reset when it has something to say
		select {
		case <-poll.C:
		case <-late:
			t.Fatalf("the device is still observed: %v", b.device.Observers())
		}
	}
}

// crashBlock1 kills the daemon twice in the middle of a transfer.
func crashBlock1(t *testing.T, b *behindOscored) {
	mark := b.device.Mark()
	write := writeImage(meter)
	begun := b.server.Begin(peer.LeshanCommand(write))
	b.killed(t, nth(30, deviceAsked), func(*testing.T) {})
	b.killed(t, nth(30, deviceAnswered), func(t *testing.T) {
		b.server.End(t, peer.LeshanCommand(write), begun).Must(t, 204, "the write of the image")
	})
	b.device.AwaitPackage(t, mark, largeImage)
	n := 0
	for _, e := range b.device.Log().Since(mark) {
		if e.Event == "package" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the image was taken %d times", n)
	}
}

// TestLeshanOscoredKilledAnyTime kills the daemon at random times around an
// Execute: it runs once, and Leshan hears of it.
func TestLeshanOscoredKilledAnyTime(t *testing.T) {
	t.Parallel()
	b := newBehindOscored(t, latest)
	b.register(t)
	execute := peer.LeshanCommand{Op: "execute", Endpoint: meter, Path: "/3/0/4"}
	for n := range 10 {
		after := time.Duration(rand.IntN(20_000)) * time.Microsecond
		begun := b.server.Begin(execute)
		<-time.After(after)
		b.daemon.Crash()
		b.server.End(t, execute, begun).Must(t, 204, fmt.Sprintf("the kill after %v", after))
		if got := b.device.Executed(); got != n+1 {
			t.Fatalf("the kill after %v: /3/0/4 ran %d times by %d requests", after, got, n+1)
		}
	}
	b.sealed(t)
	record18(t, "kill -9 of oscored at random times around Execute: once each")
}

// crashBlock2 kills the daemon in the middle of a large read.
func crashBlock2(t *testing.T, b *behindOscored) {
	large := b.device.Fill(t, 6000)
	b.killed(t, nth(3, deviceAnswered), func(t *testing.T) {
		if got := b.server.Read(t, meter, "/19/0/0").Values["/19/0/0/0"]; got != large {
			t.Errorf("/19/0/0/0 came with %d bytes of %d", len(got)/2, len(large)/2)
		}
	})
}

// crashSend kills the daemon at the server's answer to an Update and to a Send.
// A request of the device that the server had already may reach it again: the
// device's retransmission is a new message to it.
func crashSend(t *testing.T, b *behindOscored) {
	b.server.Trace(t, meter)
	from := b.server.Seen()
	b.killed(t, serverAnswered, func(t *testing.T) { b.device.Update(t) })
	b.server.Await(t, from, "update", func(e peer.LeshanEvent) bool { return e.Kind == "updated" && e.Endpoint == meter })
	from = b.server.Seen()
	b.killed(t, serverAnswered, func(t *testing.T) { b.device.Send(t, "/3/0/9") })
	b.server.Await(t, from, "Send", func(e peer.LeshanEvent) bool { return e.Kind == "send" && e.Endpoint == meter })
}
