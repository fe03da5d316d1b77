package capture

import (
	"bytes"
	"net/netip"

	"github.com/gopacket/gopacket/layers"
)

// flow is one direction of a connection.
type flow struct{ from, to netip.AddrPort }

// streams puts TCP segments into their order.
type streams struct {
	flows map[flow]*stream
}

type stream struct {
	known bool   // the sequence number is
	next  uint32 // of the byte that comes next
	early map[uint32]Packet
	held  int // bytes in early
}

// maxHeld and maxEarly bound what is kept of a stream that waits for a missing
// segment, in bytes and in segments: beyond it the segment counts as lost.
const (
	maxHeld  = 1 << 20
	maxEarly = 1 << 10
)

func newStreams() *streams { return &streams{map[flow]*stream{}} }

// add takes a segment and gives what it adds to its stream. A connection that
// began before the capture is read from its first segment on.
func (s *streams) add(p Packet, t *layers.TCP) (out []Packet) {
	key := flow{p.From, p.To}
	st := s.flows[key]
	if st == nil || t.SYN {
		st = &stream{early: map[uint32]Packet{}}
		s.flows[key] = st
	}
	seq := t.Seq
	if t.SYN {
		seq++
	}
	if !st.known {
		st.known, st.next = true, seq
	}
	if len(t.Payload) == 0 {
		return nil
	}
	p.Data = bytes.Clone(t.Payload)
	if ahead := int32(seq - st.next); ahead > 0 {
		if _, again := st.early[seq]; !again && len(st.early) < maxEarly && st.held+len(p.Data) <= maxHeld {
			st.early[seq] = p
			st.held += len(p.Data)
		}
		return nil
	}
	for {
		behind := int(st.next - seq)
		if behind < len(p.Data) { // else a retransmission
			p.Data = p.Data[behind:]
			st.next += uint32(len(p.Data))
			out = append(out, p)
		}
		var ok bool
		if p, seq, ok = st.reached(); !ok {
			return out
		}
		delete(st.early, seq)
		st.held -= len(p.Data)
	}
}

// reached gives a segment that came early and begins where the stream is now,
// or before: what another one brought as well.
func (st *stream) reached() (p Packet, seq uint32, ok bool) {
	if p, ok = st.early[st.next]; ok {
		return p, st.next, true
	}
	for at, early := range st.early {
		if behind := int32(at - st.next); behind < 0 && (!ok || behind < int32(seq-st.next)) {
			p, seq, ok = early, at, true
		}
	}
	return p, seq, ok
}

// gaps counts the segments that still wait for an earlier one.
func (s *streams) gaps() (n int) {
	for _, st := range s.flows {
		n += len(st.early)
	}
	return n
}
