package soak

import "fmt"

// Intent is something that somebody asked for once.
type Intent struct {
	Device  string // whose context it travels under
	Payload string // as the capture has it; of a write, which travels in blocks, a name
	Times   int    // that its handler ran
	Success bool   // who asked was told that it did
	Refused bool   // who asked was told that it was not sent
}

// Intents are those of a run.
type Intents struct {
	Executes, Writes, Sends []*Intent
}

// Outcome is what became of intents without a fault.
type Outcome struct {
	Unexecuted int // executes that never ran
	Again      int // Sends that were handled as a new message after a kill
}

// Judge compares what handlers counted with what was on the wire. A capture alone
// cannot show that a replay was acted upon, if it is answered by the same bytes.
//
//   - an execute and a write run at most once, and once if its asker was told so
//   - what was refused, and what was never sent, does not run
//   - a Send is accepted at most once for each number that it was sealed under
func (in *Intents) Judge(r *Report) (o Outcome, faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	type key struct{ context, path, payload string }
	numbers := map[key]int{} // different requests
	for _, m := range r.Messages {
		if m.Request && !m.Repeated {
			numbers[key{m.Context, m.Path, string(m.Payload)}]++
		}
	}
	for _, x := range in.Executes {
		n := numbers[key{x.Device, "/3/0/4", x.Payload}]
		switch {
		case x.Times > 1:
			fault("%s: EXECUTE %s ran %d times, sealed %d times", x.Device, x.Payload, x.Times, n)
		case x.Success && x.Times != 1:
			fault("%s: the server was told that execute %s ran, and it did not", x.Device, x.Payload)
		case x.Refused && x.Times > 0:
			fault("%s: the server was told that execute %s was not sent, and it ran", x.Device, x.Payload)
		case x.Times > n:
			fault("%s: execute %s ran and was never sent", x.Device, x.Payload)
		case x.Times == 0:
			o.Unexecuted++
		}
	}
	for _, x := range in.Writes {
		if x.Times > 1 || x.Success && x.Times == 0 {
			fault("%s: a write arrived %d times, succeeded: %v", x.Device, x.Times, x.Success)
		}
	}
	for _, x := range in.Sends {
		n := numbers[key{x.Device, "/dp", x.Payload}]
		o.Again += max(0, x.Times-1)
		if x.Times > n || x.Success && x.Times == 0 {
			fault("%s: a Send that was sealed %d times was ACCEPTED %d times, succeeded: %v", x.Device, n, x.Times, x.Success)
		}
	}
	return o, faults
}
