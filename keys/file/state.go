package file

import (
	"bytes"
	"maps"
	"slices"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/anchor"
	"github.com/oscorelay/oscorelay/oscore"
)

// state is what a state file says.
type state struct {
	store   anchor.UUID
	epoch   uint64
	frames  uint64 // number of the last frame
	ids     map[keys.Identity]history
	reasons map[uint8]string
	derived map[keys.Identity]derived // by the identity configured
	windows map[keys.Identity]oscore.WindowState
	used    map[keys.Identity]uint64 // encryptions
}

// at returns where the state has got to.
func (s *state) at() anchor.State {
	return anchor.State{Store: s.store, Epoch: s.epoch, Frames: s.frames}
}

// history is what is known of an identity.
type history struct {
	next  uint64 // numbers below were reserved
	taint uint8  // reason, 0 for none
}

type derived struct {
	id        keys.Identity
	idContext []byte
}

func newState(store anchor.UUID) *state {
	return &state{
		store: store, ids: map[keys.Identity]history{}, reasons: map[uint8]string{},
		derived: map[keys.Identity]derived{}, windows: map[keys.Identity]oscore.WindowState{}, used: map[keys.Identity]uint64{},
	}
}

// beginEpoch voids windows and lets every context skip numbers.
func (s *state) beginEpoch(epoch, skip uint64) {
	s.epoch = epoch
	clear(s.windows)
	if skip == 0 {
		return
	}
	skip = min(skip, oscore.MaxSequence+1)
	for id, h := range s.ids {
		h.next = min(h.next+skip, oscore.MaxSequence+1)
		s.ids[id] = h
	}
}

// reason returns the number of a reason, a new one if need be. Numbers run out
// only after 255 different mishaps; the last stands for the rest then.
func (s *state) reason(text string) (n uint8, isNew bool) {
	for n, t := range s.reasons {
		if t == text {
			return n, false
		}
	}
	return uint8(min(len(s.reasons)+1, 255)), true
}

// snapshot appends records that say everything, of the windows those that keep
// reports.
func (s *state) snapshot(dst []byte, keep func(keys.Identity) bool) []byte {
	dst = appendEpoch(dst, s.epoch, 0)
	for _, n := range slices.Sorted(maps.Keys(s.reasons)) {
		dst = appendReason(dst, n, s.reasons[n])
	}
	for _, id := range sorted(s.ids) {
		h := s.ids[id]
		dst = appendNumbers(dst, id, h.next)
		if h.taint != 0 {
			dst = appendTaint(dst, id, h.taint)
		}
	}
	for _, id := range sorted(s.used) {
		dst = appendUsed(dst, keys.Used{ID: id, Encrypted: s.used[id]})
	}
	for _, base := range sorted(s.derived) {
		dst = appendDerived(dst, base, s.derived[base])
	}
	for _, id := range sorted(s.windows) {
		if keep(id) {
			dst = appendWindow(dst, id, s.windows[id])
		}
	}
	return dst
}

func sorted[V any](m map[keys.Identity]V) []keys.Identity {
	return slices.SortedFunc(maps.Keys(m), func(a, b keys.Identity) int { return bytes.Compare(a[:], b[:]) })
}

// encode returns the state as a whole file with a single frame of the given
// number.
func (s *state) encode(number uint64, keep func(keys.Identity) bool) []byte {
	b := appendHeader(nil, s.store)
	b = beginFrame(b, number)
	b = s.snapshot(b, keep)
	endFrame(b, headerLen)
	return b
}

// readState reads a state file; valid is the length without a frame cut short.
func readState(name string, b []byte) (s *state, valid int, err error) {
	s = newState(anchor.UUID{})
	s.store, valid, err = parseState(name, b, func(number uint64, records []byte) error {
		s.frames = number
		return s.apply(records)
	})
	return s, valid, err
}

// known returns nil if the identity's history is known.
func (s *state) known(id keys.Identity) error {
	h, ok := s.ids[id]
	switch {
	case !ok:
		return keys.NeverSeen()
	case h.taint != 0:
		return &keys.TaintError{Reason: s.reasons[h.taint]}
	}
	return nil
}
