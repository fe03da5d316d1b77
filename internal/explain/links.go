package explain

import (
	"bytes"
	"net/netip"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// Packet is a message as it was captured: when, and between whom.
type Packet struct {
	At       int64 // nanoseconds
	From, To netip.AddrPort
	Stream   bool // the framing of RFC 8323
	Data     []byte
}

// Links is a message's place among the others of a capture.
type Links struct {
	At   int64  `json:"at_ns"` // as the packet has it
	From string `json:"from"`
	To   string `json:"to"`
	// Answers is the request that a response answers by token and parties, Acks
	// the message that an acknowledgement or reset is for, Copy the message of
	// which this one is a retransmission: their indices, 0 for none.
	Answers int `json:"answers,omitempty"`
	Acks    int `json:"acks,omitempty"`
	Copy    int `json:"copy_of,omitempty"`
	// After is the time in nanoseconds since the message that this one answers or acknowledges.
	After int64 `json:"after_ns,omitempty"`
}

// way is from whom to whom.
type way struct{ from, to netip.AddrPort }

func (w way) back() way { return way{w.to, w.from} }

// links finds messages again: requests by token, confirmable ones by message
// ID, both between the same parties.
type links struct {
	requests map[linkKey]linked
	messages map[linkKey]linked
	at       int64
}

type linkKey struct {
	way
	name string // a token or a message ID
}

type linked struct {
	index int
	at    int64
	bytes []byte
}

func newLinks() links { return links{requests: map[linkKey]linked{}, messages: map[linkKey]linked{}} }

// Packet explains a captured message, or the frames of one piece of a stream.
func (s *Session) Packet(p Packet) []*Report {
	s.way, s.links.at = way{p.From, p.To}, p.At
	defer func() { s.way = way{} }()
	var reports []*Report
	if p.Stream {
		reports = s.Stream(p.Data)
	} else {
		reports = []*Report{s.Datagram(p.Data)}
	}
	for _, r := range reports {
		if r.Links == nil { // malformed
			r.Links = &Links{At: p.At, From: p.From.String(), To: p.To.String()}
		}
	}
	return reports
}

// link fills in a report's links and remembers the message for those to come.
func (l *links) link(r *Report, m message, w way) {
	if w == (way{}) {
		return
	}
	r.Links = &Links{At: l.at, From: w.from.String(), To: w.to.String()}
	after := func(to linked) int {
		r.Links.After = l.at - to.at
		return to.index
	}
	if r.MessageID != nil {
		id := string([]byte{byte(*r.MessageID >> 8), byte(*r.MessageID)})
		if r.Type == coap.Acknowledgement.String() || r.Type == coap.Reset.String() {
			if to, ok := l.messages[linkKey{w.back(), id}]; ok {
				r.Links.Acks = after(to)
			}
		} else if before, ok := l.messages[linkKey{w, id}]; ok && bytes.Equal(before.bytes, r.Bytes) {
			r.Links.Copy = before.index
			return
		} else {
			l.messages[linkKey{w, id}] = linked{r.Index, l.at, r.Bytes}
		}
	}
	token := string(m.token)
	switch {
	case m.code.IsRequest():
		l.requests[linkKey{w, token}] = linked{r.Index, l.at, nil}
	case m.code.IsResponse():
		if to, ok := l.requests[linkKey{w.back(), token}]; ok {
			r.Links.Answers = after(to)
		}
	}
}
