//go:build !purego

package ccm

import (
	"encoding/binary"
	"math"
	"math/bits"
	"sync"
	"unsafe"
)

// A batch runs in lanes. Every lane is at a step of its own message, and one
// call of steps moves all lanes on by the same number of blocks: as many as
// the lane with the fewest has left in its stage. Then that lane turns to its
// next stage, or its next message, and so on until no message is left.
//
// A step is the same in every stage, for sealing and for opening:
//
//	S = E(S); T = E(counter); counter += 1
//	x = next input; output = x ⊕ T; S ⊕= x ⊕ (T ∧ mask)
//
// where the mask selects what the MAC runs over, input or output: zeros for
// additional data and when sealing, ones for data when opening, and as many
// ones as there are bytes for data that does not fill its block.
//
// The inputs are the additional data, the data, and a block of zeros, which
// leaves S as the MAC. The counter starts early by the number of blocks of
// additional data less one: at the last of them it is A_0, so that S_0 falls
// out as that step's T, and the data meets A_1, A_2, … What comes out before
// belongs to no message and is dropped.
//
// A short message is laid out in rows and is done in one stage. A long one
// takes three: additional data from rows, whole blocks of data where they lie,
// the rest and the zeros from rows again.

// width is the number of lanes. With two AES units and four cycles of latency,
// four lanes of a MAC and a keystream block each have all slots taken.
const width = 4

const (
	rows    = 14 // of a lane
	aadRows = 8  // at most, for additional data
)

// laneData is the least data for which a lane pays: below, laying the message
// out costs what running abreast saves.
const laneData = 48

// abreast says whether a message under this key takes a lane.
func (s *schedule) abreast(n, aadLen int) bool {
	return s.rounds == 10 && n >= laneData && aadLen > 0 && 2+aadLen <= aadRows*blockSize
}

// lane is what the assembly knows of a lane; it reads it by offset. It changes
// mask, state and counter only.
type lane struct {
	keys     *[15 * blockSize]byte // 0
	in       *byte                 // 8
	out      *byte                 // 16
	mask     uintptr               // 24: of a block of the lanes or of a variable
	inStep   uint64                // 32: 16, or 0 to stay at the same block
	outStep  uint64                // 40
	maskStep uint64                // 48
	state    block                 // 56
	counter  block                 // 72
}

// load is the message in a lane, and how far it has come.
type load struct {
	m       *Message
	stage   stage
	left    int // blocks in this stage
	at      int // blocks done in this stage
	first   int // rows of additional data
	used    int // rows that must be erased in the end
	in, out []byte
	s0      block
	x, y    [rows]block // input and output
	mask    [rows]block
}

type stage uint8

const (
	idle  stage = iota
	short       // everything from rows
	head        // of a long message: additional data from rows
	body        // whole blocks in place
	foot        // the rest from rows
)

// lanes is a batch under way. It is pooled, because the assembly's pointers
// into it would make it escape anyway.
type lanes struct {
	lane [width]lane
	load [width]load
	msgs []Message
	next int // the first message not begun yet
	seal bool
	none [15 * blockSize]byte // an idle lane's keys
}

var lanePool = sync.Pool{New: func() any { return new(lanes) }}

// Masks that do not change from block to block.
var (
	noBits  block
	allBits = block{math.MaxUint64, math.MaxUint64}
)

func runBatch(msgs []Message, seal bool) {
	if !useAssembly || len(msgs) < 2 {
		runSingly(msgs, seal)
		return
	}
	b := lanePool.Get().(*lanes)
	b.msgs, b.next, b.seal = msgs, 0, seal
	for i := range width {
		b.fill(i)
	}
	for {
		n := min(b.load[0].left, b.load[1].left, b.load[2].left, b.load[3].left)
		if n == math.MaxInt {
			break
		}
		steps(&b.lane, n)
		for i := range width {
			if w := &b.load[i]; w.stage != idle {
				w.left -= n
				w.at += n
				if w.left == 0 {
					b.turn(i)
				} else {
					b.lane[i].aim(w)
				}
			}
		}
	}
	b.wipe()
	lanePool.Put(b)
}

// wipe lets go of the messages and erases what their rows held.
func (b *lanes) wipe() {
	b.msgs = nil
	for i := range width {
		l, w := &b.lane[i], &b.load[i]
		for j := range w.used {
			w.x[j], w.y[j] = block{}, block{}
		}
		w.m, w.in, w.out, w.s0, w.used = nil, nil, nil, block{}, 0
		l.keys, l.in, l.out, l.state = nil, nil, nil, block{}
	}
}

// aim points the lane at the blocks that are next in its stage. The mask the
// assembly has moved on itself.
func (l *lane) aim(w *load) {
	if w.stage == body {
		l.in, l.out = &w.in[w.at*blockSize], &w.out[w.at*blockSize]
	} else {
		l.in, l.out = bytesOf(&w.x[w.at]), bytesOf(&w.y[w.at])
	}
}

// fill begins the next message in lane i, or leaves the lane idle.
func (b *lanes) fill(i int) {
	l, w := &b.lane[i], &b.load[i]
	for b.next < len(b.msgs) {
		m := &b.msgs[b.next]
		b.next++
		out, in, ok := m.begin(b.seal)
		if !ok {
			continue
		}
		w.m, w.in, w.out = m, in, out
		n := w.putAAD(m.AAD)
		w.first = n
		l.keys = &m.Key.cipher.keys
		h := newHeader(m.Key.tagSize, m.Nonce, len(in), len(m.AAD))
		l.state = block{bits.ReverseBytes64(h.b0Hi), bits.ReverseBytes64(h.b0Lo)}
		l.counter = block{h.a0Lo - uint64(n-1), h.a0Hi}
		l.inStep, l.outStep = blockSize, blockSize
		w.stage = head
		l.setMask(&noBits, 0)
		if n+(len(in)+blockSize-1)/blockSize < rows {
			w.stage = short
			if !b.seal {
				for j := range n {
					w.mask[j] = noBits
				}
				l.setMask(&w.mask[0], blockSize)
			}
			n = w.putData(n, in)
		}
		w.left, w.at, w.used = n, 0, max(w.used, n, 2)
		l.aim(w)
		return
	}
	w.stage, w.left, w.used = idle, math.MaxInt, max(w.used, 1)
	l.keys, l.in, l.out = &b.none, bytesOf(&w.x[0]), bytesOf(&w.y[0])
	l.inStep, l.outStep = 0, 0
	l.setMask(&noBits, 0)
}

// turn takes lane i from the stage it has finished to the next.
func (b *lanes) turn(i int) {
	l, w := &b.lane[i], &b.load[i]
	whole := len(w.in) &^ (blockSize - 1)
	switch w.stage {
	case short:
		w.takeS0()
		w.takeData(w.first, w.out)
		b.finish(i)
		return
	case head:
		w.takeS0()
		w.stage, w.left = body, whole/blockSize
		if !b.seal {
			l.setMask(&allBits, 0)
		}
	case body:
		w.stage, w.left = foot, w.putData(0, w.in[whole:])
		if !b.seal {
			l.setMask(&w.mask[0], blockSize)
		}
	case foot:
		w.takeData(0, w.out[whole:])
		b.finish(i)
		return
	}
	w.at = 0
	l.aim(w)
}

// finish hands lane i's tag to its message and begins the next.
func (b *lanes) finish(i int) {
	mac, s0 := b.lane[i].state, b.load[i].s0
	b.load[i].m.end(block{mac.lo ^ s0.lo, mac.hi ^ s0.hi}, b.seal)
	b.fill(i)
}

func (l *lane) setMask(b *block, step uint64) {
	l.mask, l.maskStep = uintptr(unsafe.Pointer(b)), step
}

// putAAD lays the additional data into the first rows and returns how many.
func (w *load) putAAD(aad []byte) int {
	if len(aad) < 14 {
		w.x[0], _ = firstAAD(aad)
		return 1
	}
	w.x[0] = shortAAD(aad)
	aad = aad[14:]
	n := 1
	for ; len(aad) >= blockSize; n++ {
		w.x[n] = block{binary.LittleEndian.Uint64(aad), binary.LittleEndian.Uint64(aad[8:])}
		aad = aad[blockSize:]
	}
	if len(aad) > 0 {
		w.x[n] = loadPrefix(aad)
		n++
	}
	return n
}

// putData lays data and the closing zeros, with their masks, into the rows
// from n on, and returns the number of the row after them.
func (w *load) putData(n int, in []byte) int {
	for ; len(in) >= blockSize; n++ {
		w.x[n] = block{binary.LittleEndian.Uint64(in), binary.LittleEndian.Uint64(in[8:])}
		w.mask[n] = allBits
		in = in[blockSize:]
	}
	if len(in) > 0 {
		w.x[n] = loadPrefix(in)
		w.mask[n] = ones(len(in))
		n++
	}
	w.x[n], w.mask[n] = block{}, noBits
	return n + 1
}

// takeData takes data from the rows from n on.
func (w *load) takeData(n int, out []byte) {
	for ; len(out) >= blockSize; n++ {
		binary.LittleEndian.PutUint64(out, w.y[n].lo)
		binary.LittleEndian.PutUint64(out[8:], w.y[n].hi)
		out = out[blockSize:]
	}
	storePrefix(out, w.y[n])
}

// takeS0 finds S_0 behind the last row of additional data.
func (w *load) takeS0() {
	x, y := w.x[w.first-1], w.y[w.first-1]
	w.s0 = block{x.lo ^ y.lo, x.hi ^ y.hi}
}

// begin does what Seal and Open do before they compute. It returns the output
// region without the tag, the input without the tag, and false on an error or
// a message that does not go abreast, which it then has run.
func (m *Message) begin(seal bool) (out, in []byte, ok bool) {
	k := m.Key
	n := len(m.In)
	if !seal {
		n -= int(k.tagSize)
	}
	if !k.cipher.abreast(n, len(m.AAD)) || k.check(m.Nonce) != nil || !fits(n, m.Nonce) {
		m.run(seal)
		return nil, nil, false
	}
	size := n
	if seal {
		size += int(k.tagSize)
	}
	m.Out, out = grow(m.Dst, size)
	if overlap(out, m.In) && start(out) != start(m.In) || overlap(out, m.AAD) {
		panic("ccm: invalid buffer overlap")
	}
	m.Err = nil
	return out[:n], m.In[:n], true
}

// end does what Seal and Open do with the tag.
func (m *Message) end(tag block, seal bool) {
	k := m.Key
	if seal {
		storePrefix(m.Out[len(m.Out)-int(k.tagSize):], tag)
		return
	}
	n := len(m.In) - int(k.tagSize)
	if !tag.equalPrefix(loadPrefix(m.In[n:]), int(k.tagSize)) {
		clear(m.Out[len(m.Out)-n:])
		m.Out, m.Err = nil, ErrOpen
	}
}

// ones is a block of n bytes 0xff, then zeros; n is 1 to 15.
func ones(n int) block {
	if n >= 8 {
		return block{math.MaxUint64, 1<<(8*uint(n-8)) - 1}
	}
	return block{lo: 1<<(8*uint(n)) - 1}
}

func bytesOf(b *block) *byte { return (*byte)(unsafe.Pointer(b)) }

// steps moves every lane on by n > 0 blocks, all of which it has in its stage.
//
//go:noescape
func steps(l *[width]lane, n int)
