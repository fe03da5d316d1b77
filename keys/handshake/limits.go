package handshake

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// limits bound the handshakes begun. Sources share fixed tables by hash, so
// that an attacker's addresses cannot make them grow. Sources that proved their
// address are counted apart: forged addresses do not spend what they have.
type limits struct {
	rate, total float64
	seed        maphash.Seed
	key         [32]byte // of Echo values

	mu                     sync.Mutex
	strangers, proven      [1024]bucket
	strangerSum, provenSum bucket
}

// bucket is a token bucket; the zero value is full.
type bucket struct {
	spent float64
	at    time.Time
}

func (b *bucket) take(now time.Time, rate float64) bool {
	if !b.at.IsZero() {
		b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*rate)
	}
	b.at = now
	if b.spent+1 > max(rate, 1) {
		return false
	}
	b.spent++
	return true
}

func (l *limits) init(rate, total int) {
	l.rate, l.total, l.seed = float64(rate), float64(total), maphash.MakeSeed()
	_, _ = rand.Read(l.key[:]) // never fails (crypto/rand)
}

type verdict int

const (
	pass verdict = iota
	prove
	wait
)

// begin says whether a source may begin a handshake; echo is what it proves
// its address with, nil if nothing.
func (l *limits) begin(now time.Time, source string, echo []byte) verdict {
	host := hostOf(source)
	i := maphash.String(l.seed, host) % uint64(len(l.proven))
	known := echo != nil && l.valid(now, source, echo)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case known && l.proven[i].take(now, l.rate) && l.provenSum.take(now, l.total):
		return pass
	case known:
		return wait
	case !l.strangers[i].take(now, l.rate):
		return prove // forged addresses may have spent what the true owner has
	case l.strangerSum.take(now, l.total/2):
		return pass
	}
	return prove
}

// hostOf returns what is counted as one source: an address without its port,
// of IPv6 the /64.
func hostOf(source string) string {
	a, err := netip.ParseAddrPort(source)
	if err != nil {
		return source
	}
	addr := a.Addr().Unmap()
	if addr.Is6() {
		if p, err := addr.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

// echoLifetime is how long an Echo value proves an address.
const echoLifetime = 30 * time.Second

// echo returns the value that a source proves its address with: the time and
// a MAC over both.
func (l *limits) echo(now time.Time, source string) []byte {
	v := binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()))
	return l.mac(v, source)
}

func (l *limits) mac(v []byte, source string) []byte {
	h := hmac.New(sha256.New, l.key[:])
	h.Write(v[:8])
	h.Write([]byte(source))
	return h.Sum(v[:8:8])[:16]
}

func (l *limits) valid(now time.Time, source string, v []byte) bool {
	if len(v) != 16 || !hmac.Equal(l.mac(v, source), v) {
		return false
	}
	age := now.Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(v))))
	return age >= -time.Second && age <= echoLifetime
}
