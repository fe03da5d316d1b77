package coap

import (
	"bytes"
	"slices"
)

// Option is one option of a body, for the paths that build or edit a message
// and are not hot.
type Option struct {
	Number uint16
	Value  []byte
}

// Options is a list of options in any order; [AppendBody] sorts it.
type Options []Option

// Check walks a whole body and returns its first format error, wrapping
// [ErrFormat], or nil.
func Check(body []byte) error {
	w := Walk(body)
	for w.Next() {
	}
	return w.Err()
}

// Split walks a body and returns its options, in order, and its payload. Both
// alias the body.
func Split(body []byte) (Options, []byte, error) {
	var opts Options
	w := Walk(body)
	for w.Next() {
		opts = append(opts, Option{w.Number, w.Value})
	}
	return opts, w.Payload(), w.Err()
}

// AppendBody appends a body of the options and the payload. Options are
// ordered by number; those of one number keep their order.
func AppendBody(dst []byte, opts Options, payload []byte) []byte {
	if !slices.IsSortedFunc(opts, byNumber) {
		opts = slices.Clone(opts)
		slices.SortStableFunc(opts, byNumber)
	}
	var previous uint16
	for _, o := range opts {
		dst = AppendOption(dst, previous, o.Number, o.Value)
		previous = o.Number
	}
	return AppendPayload(dst, payload)
}

// AppendPayload appends the marker and the payload, or nothing for an empty one.
func AppendPayload(dst, payload []byte) []byte {
	if len(payload) == 0 {
		return dst
	}
	return append(append(dst, 0xff), payload...)
}

func byNumber(a, b Option) int { return int(a.Number) - int(b.Number) }

// Get returns the first option of that number.
func (o Options) Get(number uint16) (value []byte, ok bool) {
	for _, x := range o {
		if x.Number == number {
			return x.Value, true
		}
	}
	return nil, false
}

// Uint returns the first option of that number as a uint; ok is false when it
// is absent or longer than four bytes.
func (o Options) Uint(number uint16) (v uint32, ok bool) {
	value, ok := o.Get(number)
	if !ok {
		return 0, false
	}
	return Uint(value)
}

// Add appends an option and returns the list.
func (o Options) Add(number uint16, value []byte) Options {
	return append(o, Option{number, value})
}

// AddUint appends an option of format uint and returns the list.
func (o Options) AddUint(number uint16, v uint32) Options {
	return o.Add(number, AppendUint(nil, v))
}

// Without returns a new list that lacks the given numbers.
func (o Options) Without(numbers ...uint16) Options {
	out := make(Options, 0, len(o))
	for _, x := range o {
		if !slices.Contains(numbers, x.Number) {
			out = append(out, x)
		}
	}
	return out
}

// Clone returns a deep copy, which aliases nothing.
func (o Options) Clone() Options {
	out := make(Options, len(o))
	for i, x := range o {
		out[i] = Option{x.Number, bytes.Clone(x.Value)}
	}
	return out
}

// Equal reports whether two lists hold the same options in the same order.
func (o Options) Equal(p Options) bool {
	return slices.EqualFunc(o, p, func(a, b Option) bool {
		return a.Number == b.Number && bytes.Equal(a.Value, b.Value)
	})
}

// Find returns the first option of that number in a body, without allocating.
// A body with a format error before it has none.
func Find(body []byte, number uint16) (value []byte, ok bool) {
	w := Walk(body)
	for w.Next() {
		if w.Number == number {
			return w.Value, true
		}
		if w.Number > number {
			break
		}
	}
	return nil, false
}
