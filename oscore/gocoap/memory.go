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
// a forged datagram with the genuine message ID is another one.
type memory struct {
	seed  maphash.Seed
	byKey map[uint64]*remembered
	order []*remembered
}

// memorySize bounds the requests remembered for one connection.
const memorySize = 256

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

func (m *memory) key(mid int32, token message.Token, in oscore.Message) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	var head [7]byte
	binary.BigEndian.PutUint32(head[:], uint32(mid))
	head[4], head[5], head[6] = byte(len(token)), in.Code, 0
	h.Write(head[:])
	h.Write(token)
	h.Write(in.Body)
	return h.Sum64()
}

func (m *memory) load(now time.Time, mid int32, token message.Token, in oscore.Message) *remembered {
	r := m.byKey[m.key(mid, token, in)]
	if r == nil || now.Sub(r.at) > exchangeLifetime {
		return nil
	}
	return r
}

func (m *memory) store(now time.Time, mid int32, token message.Token, in oscore.Message, r *remembered) {
	for len(m.order) > 0 && (len(m.order) >= memorySize || now.Sub(m.order[0].at) > exchangeLifetime) {
		if m.byKey[m.order[0].key] == m.order[0] {
			delete(m.byKey, m.order[0].key)
		}
		m.order = m.order[1:]
	}
	r.key, r.at = m.key(mid, token, in), now
	m.byKey[r.key] = r
	m.order = append(m.order, r)
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
		_, _ = l.write(typ, mid, token, answer)
	}
}
