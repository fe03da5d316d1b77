//go:build !purego

package ccm

import (
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
//	S = E(S); T = E(counter); counter += inc
//	x = next input; output = x ⊕ T; S ⊕= x ⊕ (T ∧ mask)
//
// where mask selects what the MAC runs over, the input or the output:
//
//	stage       input              output   inc  mask
//	additional  its blocks         dropped  0    0
//	data        whole blocks       data     1    0 sealing, ones opening
//	tail        the padded rest    data     1    the same, cut to the rest
//	last        S_0                dropped  1    0
//
// The counter stands at A_0 through the first stage, so that T is S_0, which
// is taken from its last output. After the last stage S is the tag.

// width is the number of lanes. With two AES units and four cycles of latency,
// four lanes of a MAC and a keystream block each have all slots taken.
const width = 4

// laneAAD is the longest additional data, in blocks, that a lane takes.
const laneAAD = 8

// abreast says whether a message under this key may take a lane.
func (s *schedule) abreast(aadLen int) bool {
	return s.rounds == 10 && aadLen > 0 && 2+aadLen <= laneAAD*blockSize
}

// lane is what the assembly knows of a lane; it reads it by offset. It changes
// s and counter only.
type lane struct {
	keys    *[15 * blockSize]byte // 0
	in      *byte                 // 8
	out     *byte                 // 16
	inStep  uint64                // 24: 16, or 0 to read the same block again
	outStep uint64                // 32: 16, or 0 to drop the output
	s       block                 // 40
	counter block                 // 56
	inc     block                 // 72
	mask    block                 // 88
}

// load is the message in a lane, and how far it has come.
type load struct {
	m       *Message
	stage   stage
	left    int // blocks in this stage
	at      int // blocks done in this stage
	in, out []byte
	a0Lo    uint64
	s0      block
	aad     [laneAAD]block
	rest    block // the tail's input
	dropped block // output that is not data; the tail's output
}

type stage uint8

const (
	idle stage = iota
	additional
	data
	tail
	last
)

// lanes is a batch under way. It is pooled, because the assembly's pointers
// into it would make it escape anyway.
type lanes struct {
	lane [width]lane
	load [width]load
	msgs []Message // not begun yet
	seal bool
	none [15 * blockSize]byte // an idle lane's keys
}

var lanePool = sync.Pool{New: func() any { return new(lanes) }}

func runBatch(msgs []Message, seal bool) {
	if !useAssembly || len(msgs) < 2 {
		runSingly(msgs, seal)
		return
	}
	b := lanePool.Get().(*lanes)
	b.msgs, b.seal = msgs, seal
	for i := range width {
		b.fill(i)
	}
	for {
		n := math.MaxInt
		for i := range b.load {
			n = min(n, b.load[i].left)
		}
		if n == math.MaxInt {
			break
		}
		steps(&b.lane, n)
		for i := range b.load {
			b.advance(i, n)
		}
	}
	*b = lanes{}
	lanePool.Put(b)
}

// fill begins the next message in lane i, or leaves the lane idle.
func (b *lanes) fill(i int) {
	l, w := &b.lane[i], &b.load[i]
	for len(b.msgs) > 0 {
		m := &b.msgs[0]
		b.msgs = b.msgs[1:]
		out, in, ok := m.begin(b.seal)
		if !ok {
			continue
		}
		h := newHeader(m.Key.tagSize, m.Nonce, len(in), len(m.AAD))
		first, aad := firstAAD(m.AAD)
		w.aad[0] = first
		n := 1
		for ; len(aad) > 0; n++ {
			size := min(len(aad), blockSize)
			w.aad[n] = loadPrefix(aad[:size])
			aad = aad[size:]
		}
		w.m, w.in, w.out, w.a0Lo = m, in, out, h.a0Lo
		l.keys = &m.Key.cipher.keys
		// S is B_0 in memory order, the counter A_0 as integers.
		l.s = block{bits.ReverseBytes64(h.b0Hi), bits.ReverseBytes64(h.b0Lo)}
		l.counter, l.inc, l.mask = block{h.a0Lo, h.a0Hi}, block{}, block{}
		l.out, l.outStep = bytesOf(&w.dropped), 0
		l.in, l.inStep = bytesOf(&w.aad[0]), blockSize
		w.stage, w.left, w.at = additional, n, 0
		return
	}
	*w = load{stage: idle, left: math.MaxInt}
	*l = lane{keys: &b.none, in: bytesOf(&w.rest), out: bytesOf(&w.dropped)}
}

// advance counts n steps of lane i and turns to the next stage after the last.
func (b *lanes) advance(i, n int) {
	l, w := &b.lane[i], &b.load[i]
	if w.stage == idle {
		return
	}
	w.left -= n
	w.at += n
	if w.left > 0 {
		switch w.stage {
		case additional:
			l.in = bytesOf(&w.aad[w.at])
		case data:
			l.in, l.out = &w.in[w.at*blockSize], &w.out[w.at*blockSize]
		}
		return
	}
	whole := len(w.in) &^ (blockSize - 1)
	rest := len(w.in) - whole
	switch w.stage {
	case additional:
		end := w.aad[w.at-1]
		w.s0 = block{w.dropped.lo ^ end.lo, w.dropped.hi ^ end.hi}
		l.counter.lo, l.inc.lo = w.a0Lo+1, 1
		if whole > 0 {
			w.stage, w.left, w.at = data, whole/blockSize, 0
			l.in, l.out, l.outStep = &w.in[0], &w.out[0], blockSize
			if !b.seal {
				l.mask = block{math.MaxUint64, math.MaxUint64}
			}
			return
		}
		fallthrough
	case data:
		l.inStep, l.outStep, l.out = 0, 0, bytesOf(&w.dropped)
		if rest > 0 {
			w.stage, w.left = tail, 1
			w.rest = loadPrefix(w.in[whole:])
			l.in = bytesOf(&w.rest)
			if !b.seal {
				l.mask = ones(rest)
			}
			return
		}
	case tail:
		storePrefix(w.out[whole:], w.dropped)
	case last:
		w.m.end(l.s, b.seal)
		b.fill(i)
		return
	}
	w.stage, w.left = last, 1
	l.in, l.mask = bytesOf(&w.s0), block{}
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
	if n < 0 || k.check(m.Nonce) != nil || !fits(n, m.Nonce) || !k.cipher.abreast(len(m.AAD)) {
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
