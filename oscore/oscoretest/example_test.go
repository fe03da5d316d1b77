package oscoretest_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/oscoretest"
)

// In a test, t is the test's own.
var t = new(testing.T)

// thermostat is the program under test.
func thermostat(m oscoretest.Message) oscoretest.Message {
	if m.Code == oscoretest.PUT {
		return oscoretest.Respond(oscoretest.Changed, nil)
	}
	return oscoretest.Respond(oscoretest.Content, []byte("21.5"))
}

func ExampleNewPair() {
	pair := oscoretest.NewPair(t, oscoretest.Config{Server: thermostat})
	answer, err := pair.Client.Do(oscoretest.Get("/3303/0/5700"))
	fmt.Printf("%v %s %v\n", answer.Code, answer.Payload, err)
	for _, p := range pair.Relay.Capture() {
		fmt.Printf("%v, protected: %v, shows the path: %v\n", p.Outer().Code, p.Protected(), p.Shows("3303"))
	}
	// Output:
	// 2.05 21.5 <nil>
	// POST, protected: true, shows the path: false
	// 2.04, protected: true, shows the path: false
}

// A request that the relay delivers twice is handled once.
func ExampleRelay_Deliver() {
	pair := oscoretest.NewPair(t, oscoretest.Config{Server: thermostat})
	_, err := pair.Client.Do(oscoretest.Put("/3303/0/5900", []byte("23")))
	request, _ := pair.Relay.Last(oscoretest.ToServer)
	pair.Relay.Deliver(request)
	fmt.Println(err, len(pair.Server.Handled()), pair.Server.Reasons())
	// Output: <nil> 1 [replay]
}

// One bit of an answer changes on the way; the genuine answer is still taken.
func ExampleFlip() {
	pair := oscoretest.NewPair(t, oscoretest.Config{Server: thermostat})
	pair.Relay.To(oscoretest.ToClient, oscoretest.Flip(70))
	x := pair.Client.Send(oscoretest.Get("/3303/0/5700"))
	_, err := x.Answer()
	fmt.Println(errors.Is(err, oscoretest.ErrNoAnswer), errors.Is(err, oscore.ErrDecrypt))
	genuine, _ := pair.Relay.Last(oscoretest.ToClient)
	pair.Relay.Deliver(genuine)
	answer, err := x.Answer()
	fmt.Printf("%s %v\n", answer.Payload, err)
	// Output:
	// true true
	// 21.5 <nil>
}

// A write that comes late is not acted on unless it proves that it is fresh.
func ExampleDelay() {
	pair := oscoretest.NewPair(t, oscoretest.Config{
		Server:    thermostat,
		Freshness: func(oscoretest.Code, string) oscoretest.Freshness { return oscoretest.FreshUnsafe },
	})
	pair.Relay.To(oscoretest.ToServer, oscoretest.Once(oscoretest.Delay(time.Hour)))
	x := pair.Client.Send(oscoretest.Put("/3303/0/5900", []byte("23")))
	pair.Relay.To(oscoretest.ToClient, oscoretest.Drop) // the client must not help
	pair.Advance(time.Hour)
	_, err := x.Answer()
	fmt.Println(errors.Is(err, oscoretest.ErrNoAnswer), len(pair.Server.Handled()), pair.Server.Reasons())
	// Output: true 0 [echo_challenge]
}

// The server crashes: it forgets what it has received, but not its numbers.
func ExampleSide_Restart() {
	pair := oscoretest.NewPair(t, oscoretest.Config{Server: thermostat})
	pair.Server.Restart()
	answer, err := pair.Client.Do(oscoretest.Get("/3303/0/5700"))
	fmt.Printf("%s %v %v\n", answer.Payload, err, pair.Server.Reasons())
	// Output: 21.5 <nil> [echo_challenge]
}

func ExampleSide_Observe() {
	pair := oscoretest.NewPair(t, oscoretest.Config{Server: thermostat})
	x := pair.Client.Observe(oscoretest.Get("/3303/0/5700"))
	pair.Relay.To(oscoretest.ToClient, oscoretest.Reverse(2))
	pair.Server.Notify("/3303/0/5700", oscoretest.Respond(oscoretest.Content, []byte("22.0")))
	pair.Server.Notify("/3303/0/5700", oscoretest.Respond(oscoretest.Content, []byte("22.5")))
	for _, n := range x.Notifications() {
		fmt.Printf("%s\n", n.Payload)
	}
	fmt.Println(errors.Is(errors.Join(x.Refused()...), oscore.ErrStale))
	// Output:
	// 22.5
	// true
}
