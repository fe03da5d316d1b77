package message

// seen is the accepted messages of a peer, by the last bits of their message
// ID. Endpoints draw message IDs in turn, so that neighbours in time are
// neighbours in memory, which a table by hash would scatter.
type seen[P comparable] struct {
	places []*Incoming[P] // a power of two of them, each the head of a chain
}

// Messages that share a place are looked at one by one: a peer that gives many
// the same message ID has the oldest of them forgotten.
const (
	maxChain  = 16
	maxPlaces = 1 << 16
	minPlaces = 16 // that are not worth giving back
)

// place is where a message ID belongs. All its bits count, for endpoints that
// draw them in larger steps.
func (s *seen[P]) place(mid uint16) int {
	return int(mid^mid>>5^mid>>10) & (len(s.places) - 1)
}

// find returns the message with this ID and these bytes, or nil.
func (s *seen[P]) find(mid uint16, hash uint64) *Incoming[P] {
	if len(s.places) == 0 {
		return nil
	}
	for in := s.places[s.place(mid)]; in != nil; in = in.chain {
		if in.hash == hash && in.mid == mid {
			return in
		}
	}
	return nil
}

// enter puts a message in. all are those that are in already. It returns the
// one that must go, if the place has too many.
func (s *seen[P]) enter(in *Incoming[P], all *list[*Incoming[P]]) (excess *Incoming[P]) {
	if n := len(s.places); all.n >= n && n < maxPlaces {
		s.places = make([]*Incoming[P], max(2*n, 2))
		for x := all.head; x != nil; x = x.next {
			s.put(x.value)
		}
	}
	s.put(in)
	last, n := in, 1
	for ; last.chain != nil; last = last.chain {
		n++
	}
	if n > maxChain {
		return last
	}
	return nil
}

func (s *seen[P]) put(in *Incoming[P]) {
	place := &s.places[s.place(in.mid)]
	in.chain, *place = *place, in
}

// narrow gives back places that a peer needed once: all are those that are in.
func (s *seen[P]) narrow(all *list[*Incoming[P]]) {
	n := len(s.places)
	if n <= minPlaces || all.n >= n/8 {
		return
	}
	s.places = make([]*Incoming[P], n/4)
	for x := all.head; x != nil; x = x.next {
		s.put(x.value)
	}
}

func (s *seen[P]) remove(in *Incoming[P]) {
	at := &s.places[s.place(in.mid)]
	for *at != in {
		at = &(*at).chain
	}
	*at, in.chain = in.chain, nil
}
