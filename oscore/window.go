package oscore

// Window is the replay window of a Recipient Context (§3.2.2, §7.4; the
// sliding window of RFC 6347 §4.1.2.6): it remembers which of the last numbers
// were received, and refuses all that came before them.
//
// The zero value refuses everything: a window that was lost proves nothing.
// Only [Fresh], [Restore] and [FromEcho] open one. Check is asked before
// decryption, Accept after it; Accept tests again, so that of two concurrent
// duplicates one loses. A Window is not safe for concurrent use.
//
// A received number n is remembered as bit n mod R of a ring of R bits, the
// power of two from 64 on that holds size. The numbers that bits stand for are
// those in [next-size, next).
//
// A window that [FromEcho] opened does not know which numbers below floor were
// received before the loss: it refuses them (Appendix B.1.2). One such request
// may yet carry an Echo of its own, when several answer their challenges at the
// same time and do not arrive in order. It was sent after the loss, so that the
// bit alone says whether it came before, and AcceptProven takes it.
type Window struct {
	open  bool
	size  uint16
	floor uint64 // numbers below need an Echo of their own
	next  uint64 // highest accepted number + 1
	small uint64
	large []uint64 // in place of small when size > 64; a power of two long
}

const (
	defaultWindow = 32
	maxWindow     = 1024
)

func newWindow(size int) Window {
	if size == 0 {
		size = defaultWindow
	}
	size = min(max(size, 1), maxWindow)
	w := Window{open: true, size: uint16(size)}
	if size > 64 {
		w.large = make([]uint64, words(size))
	}
	return w
}

// words returns the length of the ring for a size, in words of 64 bits.
func words(size int) int {
	n := 1
	for n*64 < size {
		n *= 2
	}
	return n
}

// Fresh opens the window of a context that has never received a message. Size
// is in sequence numbers, 1 to 1024; 0 means 32.
func Fresh(size int) Window { return newWindow(size) }

// FromEcho opens a window after a loss: piv is the number of a request whose
// Echo option proved it fresh, and becomes the lower limit (Appendix B.1.2).
func FromEcho(size int, piv uint64) Window {
	w := newWindow(size)
	w.floor, w.next = piv+1, piv+1
	w.mark(piv)
	return w
}

// WindowState is a window's content for a hand-over at a clean shutdown. The
// state must be deleted durably before a window is restored from it, so that a
// crash cannot restore it twice.
type WindowState struct {
	Size  int
	Floor uint64
	Next  uint64
	// Bits is a ring of 64, 128, 256, 512 or 1024 bits, the least that holds
	// Size: bit n mod 64·len(Bits) for the numbers n in [Next-Size, Next).
	Bits []uint64
}

// State returns the window's content; ok is false for one that is not open.
func (w *Window) State() (s WindowState, ok bool) {
	if !w.open {
		return s, false
	}
	s = WindowState{Size: int(w.size), Floor: w.floor, Next: w.next, Bits: []uint64{w.small}}
	if w.large != nil {
		s.Bits = append([]uint64(nil), w.large...)
	}
	return s, true
}

// Restore opens a window from a hand-over. A state that does not hold together
// gives the zero Window, which refuses everything.
func Restore(s WindowState) Window {
	if s.Size < 1 || s.Size > maxWindow || s.Next > 1<<40 || s.Floor > s.Next || len(s.Bits) != words(s.Size) {
		return Window{}
	}
	w := newWindow(s.Size)
	w.floor, w.next = s.Floor, s.Next
	if w.large != nil {
		copy(w.large, s.Bits)
	} else {
		w.small = s.Bits[0]
	}
	return w
}

// Open reports whether the window is initialised.
func (w *Window) Open() bool { return w.open }

// Check returns nil if the number may still be accepted, ErrReplay if it was
// received before or lies before the window, ErrLate if it lies below the
// number whose Echo opened the window, and ErrUnproven if the window is not
// initialised. It changes nothing.
func (w *Window) Check(piv uint64) error {
	switch {
	case !w.open:
		return ErrUnproven
	case piv >= w.next:
		return nil
	case w.next-piv > uint64(w.size) || *w.word(piv)>>(piv%64)&1 != 0:
		return ErrReplay
	case piv < w.floor:
		return ErrLate
	}
	return nil
}

// Accept marks the number as received, or returns what Check returns.
func (w *Window) Accept(piv uint64) error {
	if err := w.Check(piv); err != nil {
		return err
	}
	w.mark(piv)
	return nil
}

// AcceptProven is [Window.Accept] for a request that its Echo option proved to
// be sent after the loss: it opens the window, and late numbers are accepted
// too, once.
func (w *Window) AcceptProven(size int, piv uint64) error {
	if !w.open {
		*w = FromEcho(size, piv)
		return nil
	}
	if err := w.Check(piv); err != nil && err != ErrLate {
		return err
	}
	w.mark(piv)
	return nil
}

// mark sets the number's bit, and moves the window if it lies above.
func (w *Window) mark(piv uint64) {
	if piv >= w.next {
		w.slide(piv)
	}
	*w.word(piv) |= 1 << (piv % 64)
}

// slide moves the window so that piv is its highest number, forgetting what
// falls out of it.
func (w *Window) slide(piv uint64) {
	if piv-w.next >= uint64(w.size) {
		w.small = 0
		clear(w.large)
	} else {
		for n := w.next; n <= piv; n++ {
			*w.word(n) &^= 1 << (n % 64)
		}
	}
	w.next = piv + 1
}

// word returns the word of the ring that holds bit n mod 64 for n.
func (w *Window) word(n uint64) *uint64 {
	if w.large != nil {
		return &w.large[n/64%uint64(len(w.large))]
	}
	return &w.small
}
