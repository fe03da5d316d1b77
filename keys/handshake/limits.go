package handshake

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/rate"
	"github.com/oscorelay/oscorelay/keys/edhoc"
)

// limits bound the handshakes begun. Sources that proved their address are
// counted apart: forged addresses do not spend what they have.
type limits struct {
	rate, total float64
	answer      int      // bytes of the first answer, about
	key         [32]byte // of Echo values

	mu                     sync.Mutex
	strangers, proven      rate.Table
	strangerSum, provenSum rate.Bucket
}

func (l *limits) init(perSource, total, answer int) {
	l.rate, l.total, l.answer = float64(perSource), float64(total), answer
	_, _ = rand.Read(l.key[:]) // never fails (crypto/rand)
}

// amplification is how many times longer than its request an answer to an
// address that proved nothing may be (RFC 9175 §2.4 item 3).
const amplification = 3

// headers are those of Ethernet, IP, UDP and CoAP in bytes, with a token.
const headers = 14 + 40 + 8 + 4 + 8

// weight is what the answer to a stranger's request of so many bytes counts:
// one, or more where it is too long, so that certificates sent to forged
// addresses take up what strangers are granted (RFC 9528 §9.7).
func (l *limits) weight(request int) float64 {
	return max(1, float64(headers+l.answer)/float64(amplification*(headers+request)))
}

// longestAnswer is about how long message_2 is, to its first block: G_Y, a
// signature, and ID_CRED_R.
func longestAnswer(identities []edhoc.Identity) (n int) {
	for _, i := range identities {
		id := len(i.ID.Bytes())
		switch {
		case id > 0 || i.Credential == nil:
		case i.Credential.KID() != nil:
			id = len(i.Credential.KID())
		default:
			id = len(i.Credential.Bytes())
		}
		n = max(n, id)
	}
	return min(n+100, maxBlock)
}

type verdict int

const (
	pass verdict = iota
	prove
	wait
)

// begin says whether a source may begin a handshake by a message of so many
// bytes; echo is what it proves its address with, nil if nothing.
func (l *limits) begin(now time.Time, source string, request int, echo []byte) verdict {
	host := hostOf(source)
	known := echo != nil && l.valid(now, source, echo)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case known && rate.Of(&l.proven, host).Take(now, 1, l.rate) && l.provenSum.Take(now, 1, l.total):
		return pass
	case known:
		return wait
	case !rate.Of(&l.strangers, host).Take(now, 1, l.rate):
		return prove // forged addresses may have spent what the true owner has
	case l.strangerSum.Take(now, l.weight(request), l.total/2):
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
