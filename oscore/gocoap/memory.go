package gocoap

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/oscore"
	"github.com/plgd-dev/go-coap/v3/message"
)

// memory remembers verified requests for their retransmissions (RFC 7252
// §4.2). A request is known by all of its bytes, not by its message ID alone:
// a forged datagram with the genuine message ID is another one, and leaves no
// trace.
type memory struct {
	byKey map[uint64]*remembered
	order []*remembered // oldest first
}

// memorySize bounds the requests remembered for one connection.
const memorySize = 1024

// memorySeed makes keys unpredictable to peers.
var memorySeed = maphash.MakeSeed()

// remembered is a request that was verified, with its answer once there is one.
type remembered struct {
	key uint64
	at  time.Time

	mu       sync.Mutex
	answered bool
	typ      message.Type
	mid      int32
	token    message.Token
	answer   oscore.Message
}

// memoryKey identifies a request by all of its bytes.
func memoryKey(typ message.Type, mid int32, token message.Token, in oscore.Message) uint64 {
	var h maphash.Hash
	h.SetSeed(memorySeed)
	var head [7]byte
	binary.BigEndian.PutUint32(head[:], uint32(mid))
	head[4], head[5], head[6] = byte(len(token)), in.Code, byte(typ)
	h.Write(head[:])
	h.Write(token)
	h.Write(in.Body)
	return h.Sum64()
}

func (m *memory) load(now time.Time, key uint64) *remembered {
	r := m.byKey[key]
	if r == nil || now.Sub(r.at) > exchangeLifetime {
		return nil
	}
	return r
}

func (m *memory) store(now time.Time, key uint64) *remembered {
	if len(m.order) >= memorySize {
		m.dropOldest()
	}
	m.expire(now)
	r := &remembered{key: key, at: now}
	if m.byKey == nil {
		m.byKey = map[uint64]*remembered{}
	}
	m.byKey[key] = r
	m.order = append(m.order, r)
	return r
}

// expire drops what no retransmission can come of any more.
func (m *memory) expire(now time.Time) {
	for len(m.order) > 0 && now.Sub(m.order[0].at) > exchangeLifetime {
		m.dropOldest()
	}
	if len(m.order) == 0 {
		m.order = nil
	}
}

func (m *memory) dropOldest() {
	oldest := m.order[0]
	if m.byKey[oldest.key] == oldest {
		delete(m.byKey, oldest.key)
	}
	m.order[0] = nil
	m.order = m.order[1:]
}

// set keeps the answer.
func (r *remembered) set(typ message.Type, mid int32, token message.Token, answer oscore.Message) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered, r.typ, r.mid, r.token, r.answer = true, typ, mid, token, answer
}

// repeat sends the answer again; while there is none the retransmission is
// ignored.
func (r *remembered) repeat(l *link) {
	r.mu.Lock()
	answered, typ, mid, token, answer := r.answered, r.typ, r.mid, r.token, r.answer
	r.mu.Unlock()
	switch {
	case !answered:
	case answer.Code == 0:
		l.writeEmpty(typ, mid)
	default:
		_ = l.write(l.conn.Context(), typ, mid, token, answer) // asked for again if lost
	}
}
