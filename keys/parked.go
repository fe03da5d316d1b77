package keys

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/oscorelay/oscorelay/oscore"
)

// parked is what a peer of a Directory leaves in memory when its keys leave it:
// its replay window, its lease of numbers and its counts, which the store has in
// an earlier state or not at all. It holds no pointer, so that a million of them
// cost the garbage collector nothing.
type parked struct {
	id        Identity // the sender's: whose numbers and count these are
	recipient Identity // whose window it is
	bits      uint64   // of a window up to 64 numbers
	encrypted uint32
	noted     uint32 // the last count that the store has
	failed    uint32
	left      uint16 // numbers left of the lease
	block     uint16
	floor     uint48 // of the window
	next      uint48
	seq       uint48 // the next number of the lease
	size      uint16 // of the window; 0 if it is not open
	here      bool   // the place is taken
}

// uint48 holds a sequence number, or the one after the last.
type uint48 [6]byte

func pack48(n uint64) (out uint48) {
	for i := range out {
		out[i] = byte(n >> (8 * i))
	}
	return out
}

func (u uint48) value() (n uint64) {
	for i := range u {
		n |= uint64(u[i]) << (8 * i)
	}
	return n
}

// parking holds what was parked, by the entries' indexes.
type parking struct {
	chunks []*parkedChunk
	counts []uint16            // of those taken, for each chunk
	large  map[uint32][]uint64 // bits of windows of more than 64 numbers
	n      int
}

// parkedChunk is a whole number of pages.
type parkedChunk [1024]parked

// at returns a place, nil if its chunk is not there.
func (k *parking) at(index uint32) *parked {
	if i := int(index) / len(parkedChunk{}); i < len(k.chunks) && k.chunks[i] != nil {
		return &k.chunks[i][int(index)%len(parkedChunk{})]
	}
	return nil
}

// put parks at an index.
func (k *parking) put(index uint32, v parked, large []uint64) {
	i := int(index) / len(parkedChunk{})
	if more := i + 1 - len(k.chunks); more > 0 {
		k.chunks = append(k.chunks, make([]*parkedChunk, more)...)
		k.counts = append(k.counts, make([]uint16, more)...)
	}
	if k.chunks[i] == nil {
		k.chunks[i] = &parkedChunk{}
	}
	at := k.at(index)
	if !at.here {
		k.counts[i]++
		k.n++
	}
	v.here = true
	*at = v
	delete(k.large, index)
	if large != nil {
		if k.large == nil {
			k.large = map[uint32][]uint64{}
		}
		k.large[index] = large
	}
}

// take returns what is parked at an index, which is free afterwards.
func (k *parking) take(index uint32) (v parked, large []uint64, ok bool) {
	at := k.at(index)
	if at == nil || !at.here {
		return v, nil, false
	}
	v, large = *at, k.large[index]
	delete(k.large, index)
	*at = parked{}
	k.n--
	i := int(index) / len(parkedChunk{})
	if k.counts[i]--; k.counts[i] == 0 {
		k.chunks[i] = nil
	}
	return v, large, true
}

// holds reports whether something is parked at an index.
func (k *parking) holds(index uint32) bool {
	at := k.at(index)
	return at != nil && at.here
}

// inOrder returns the indexes that are taken and wanted, in the order of an identity.
func (k *parking) inOrder(wanted func(*parked) (*Identity, bool)) []uint32 {
	type place struct {
		first uint64 // bytes of the identity: they are as random as they look
		index uint32
	}
	all := make([]place, 0, k.n)
	for i, c := range k.chunks {
		if c == nil {
			continue
		}
		for at := range c {
			if !c[at].here {
				continue
			}
			if id, ok := wanted(&c[at]); ok {
				all = append(all, place{binary.BigEndian.Uint64(id[:]), uint32(i*len(c) + at)})
			}
		}
	}
	slices.SortFunc(all, func(a, b place) int { return cmp.Compare(a.first, b.first) })
	out := make([]uint32, len(all))
	for i := range all {
		out[i] = all[i].index
	}
	return out
}

// window returns the replay window; ok is false if it was not open.
func (v *parked) window(large []uint64) (s oscore.WindowState, ok bool) {
	s = oscore.WindowState{Size: int(v.size), Floor: v.floor.value(), Next: v.next.value(), Bits: large}
	if large == nil {
		s.Bits = []uint64{v.bits}
	}
	return s, v.size != 0
}

// handOver adds what the store is to have of it.
func (v *parked) handOver(h *handOver, large []uint64) {
	if s, ok := v.window(large); ok {
		h.windows = append(h.windows, Window{v.recipient, s})
	}
	if v.encrypted != v.noted {
		h.used = append(h.used, Used{v.id, uint64(v.encrypted)})
	}
}

// park returns what the peer is to be brought back with, and leaves it without
// window and lease: whoever has it yet cannot use it before it is back. The
// caller holds p.mu, and no reservation is under way.
func (p *Peer) park() (v parked, large []uint64) {
	v = parked{
		id: p.id, recipient: p.recipient, encrypted: clamp32(p.encrypted), noted: clamp32(p.noted), failed: clamp32(p.failed()),
		left: uint16(min(p.ctx.LeaseLeft(), math.MaxUint16)), seq: pack48(p.ctx.NextSequence()), block: uint16(p.block),
	}
	if s, ok := p.ctx.WindowState(); ok && p.taint == nil {
		v.size, v.floor, v.next = uint16(s.Size), pack48(s.Floor), pack48(s.Next)
		if len(s.Bits) > 1 {
			large = s.Bits
		} else {
			v.bits = s.Bits[0]
		}
	}
	p.ctx.EndLease()
	p.ctx.SetWindow(oscore.Window{})
	return v, large
}

// unpark is the inverse of park. The caller holds p.mu, or has p alone.
func (p *Peer) unpark(v *parked, large []uint64) {
	if v.id != p.id || v.recipient != p.recipient {
		return // of other keys: the numbers are lost, and the window begins by Echo
	}
	p.encrypted, p.noted = uint64(v.encrypted), uint64(v.noted)
	p.failedBefore = uint64(v.failed) - min(p.ctx.Usage().Failed, uint64(v.failed))
	p.block = uint32(v.block)
	if p.taint != nil {
		return
	}
	if s, ok := v.window(large); ok {
		p.ctx.SetWindow(oscore.Restore(s))
	}
	if lo := v.seq.value(); v.left > 0 && p.ctx.Extend(lo, lo+uint64(v.left)) == nil {
		p.early = uint64(v.left) / 2
	}
}

// failed counts the messages that the key refused. The caller holds p.mu.
func (p *Peer) failed() uint64 { return p.failedBefore + p.ctx.Usage().Failed }

func clamp32(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }
