package endpoint

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Freshness is how fresh a request must be proven to be before it is acted on.
type Freshness int

// The policies, from weak to strong. A peer that knows no Echo
// (oscore.Settings.NoEcho) cannot be asked: FreshWindow is all that it is held
// to. The replay window always applies; after its loss one Echo round trip is
// asked whatever the policy (Appendix B.1.2).
const (
	// FreshWindow: not received before, which is all RFC 8613 gives by itself:
	// a request held back may come late.
	FreshWindow Freshness = iota
	// FreshFirst: a peer must have proven one request fresh since this process
	// started; for a first one, such as an LwM2M Register.
	FreshFirst
	// FreshUnsafe: every request that may change a resource must.
	FreshUnsafe
	// FreshAlways: every request must.
	FreshAlways
)

// echoKey makes and verifies Echo values without remembering them: the time
// since the start, and a MAC over it and the peer's name under a key of this
// process, so that no value outlives it (RFC 9175 §5, Appendix A: list or key
// are dropped on loss of continuity).
type echoKey struct {
	key   [32]byte
	start time.Time
	ok    bool
	macs  sync.Pool // *echoHash
}

const (
	echoTime = 6 // bytes of milliseconds since the start
	echoMAC  = 10
	echoLen  = echoTime + echoMAC
)

func (k *echoKey) init(r io.Reader, now time.Time) {
	k.start = now
	_, err := io.ReadFull(r, k.key[:])
	k.ok = err == nil // without randomness nothing is ever fresh
}

// value returns an Echo value for the peer; nil without randomness.
func (k *echoKey) value(now time.Time, peer string) []byte {
	if !k.ok {
		return nil
	}
	v := k.make(now, peer)
	return v[:]
}

// make is value where there is randomness.
func (k *echoKey) make(now time.Time, peer string) [echoLen]byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(max(0, now.Sub(k.start))/time.Millisecond))
	return k.seal([echoTime]byte(b[8-echoTime:]), peer)
}

// echoHash is a hash with the key in it, and room for what it reads and writes.
type echoHash struct {
	hash.Hash
	room []byte
}

// seal puts the MAC behind a time.
func (k *echoKey) seal(stamp [echoTime]byte, peer string) (value [echoLen]byte) {
	h, pooled := k.macs.Get().(*echoHash)
	if pooled {
		h.Reset()
	} else {
		h = &echoHash{hmac.New(sha256.New, k.key[:]), make([]byte, 0, 128)}
	}
	h.room = append(append(h.room[:0], stamp[:]...), peer...)
	h.Write(h.room)
	h.room = h.Sum(h.room[:0])
	copy(value[:], stamp[:])
	copy(value[echoTime:], h.room[:echoMAC])
	k.macs.Put(h)
	return value
}

// fresh reports whether the value was made by this process for the peer, not
// longer ago than the lifetime.
func (k *echoKey) fresh(now time.Time, peer string, value []byte, lifetime time.Duration) bool {
	if !k.ok || len(value) != echoLen {
		return false
	}
	want := k.seal([echoTime]byte(value), peer)
	if !hmac.Equal(want[:], value) {
		return false
	}
	age := k.age(now, want)
	return age >= -time.Millisecond && age <= lifetime
}

// age is how long ago a value of this process was made.
func (k *echoKey) age(now time.Time, value [echoLen]byte) time.Duration {
	var b [8]byte
	copy(b[8-echoTime:], value[:echoTime])
	return now.Sub(k.start) - time.Duration(binary.BigEndian.Uint64(b[:]))*time.Millisecond
}

// offer returns an Echo value for the peer's next request: the one that the
// request had, if that is still young, since several responses may hold the same
// (RFC 9175 §2.3). It vouches for less time than a new one, never for more.
func (r *Incoming) offer(now time.Time) [echoLen]byte {
	k := &r.e.echo
	if r.proof != ([echoLen]byte{}) && k.age(now, r.proof) <= r.e.cfg.EchoLifetime/4 {
		return r.proof
	}
	return k.make(now, r.Peer.Name())
}

// proves reports whether the message holds an Echo that proves it fresh.
func (e *Endpoint) proves(now time.Time, peer string, m oscore.Message) bool {
	k, _ := scan(m.Body)
	return k.echo != nil && e.echo.fresh(now, peer, k.echo, e.cfg.EchoLifetime)
}

// mustProve reports whether the request must carry a fresh Echo, and whether
// its answers offer one for the next.
func (e *Endpoint) mustProve(r *Incoming) (must, offer bool) {
	code, policy := r.opened.Code, e.cfg.Fresh
	if e.cfg.Freshness != nil {
		policy = e.cfg.Freshness(r.Peer.Name(), coap.Code(code), r.Path())
	}
	if policy == FreshWindow || r.proof == ([echoLen]byte{}) && r.Peer.Settings().NoEcho { // who sent one knows Echo
		return false, false
	}
	switch policy {
	case FreshAlways:
		return true, true
	case FreshUnsafe:
		return unsafe(code), true
	case FreshFirst:
		s := e.find(r.Peer.Name())
		if s == nil {
			return true, false
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.proven, false
	}
	return false, false
}

// proved notes that a request of the peer was fresh, where a policy asks for it.
func (e *Endpoint) proved(name string) {
	if e.cfg.Freshness == nil && e.cfg.Fresh != FreshFirst {
		return
	}
	s := e.state(name)
	s.mu.Lock()
	s.proven = true
	s.mu.Unlock()
}

// challengeRate bounds the challenges to one peer after its window was lost, a
// second: each spends one of this side's sequence numbers, and a replayed
// request can ask for one. All requests that a peer has under way when its
// server comes back are challenged, and one that is not waits for its
// retransmission. At this rate the numbers last for 500 years. A request that the window accepted cannot be
// replayed, and its retransmission would look like one: it is always answered.
const challengeRate = 64

// challenge answers a request that is authentic but, after the loss of the
// window, perhaps a replay: by a protected 4.01 that holds an Echo option alone,
// under a Partial IV of this side's own (Appendix B.1.2).
func (e *Endpoint) challenge(now time.Time, r *Incoming) Result {
	name := r.Peer.Name()
	if !e.withinRate(now, name, challengeRate, func(p *peerRates) *bucket { return &p.challenges }) {
		return e.drop(r, ReasonLimited, nil)
	}
	echo := e.echo.value(now, name)
	if echo == nil {
		return e.drop(r, ReasonChallenge, errNoRandom)
	}
	sealed, err := r.Peer.SealChallenge(nil, &r.req, echo)
	if err != nil {
		return e.drop(r, ReasonStorage, err)
	}
	r.report(ReasonChallenge, nil)
	// It must leave no trace: Verified stays false.
	return Result{Verdict: Reply, Message: sealed, Reason: ReasonChallenge, Peer: name}
}

// withinRate takes one from a bucket of the peer.
func (e *Endpoint) withinRate(now time.Time, name string, rate float64, which func(*peerRates) *bucket) bool {
	s := e.state(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rates == nil {
		s.rates = &peerRates{}
	}
	return which(s.rates).Take(now, 1, rate)
}

// askFresh answers a request that the window accepted but the policy does not:
// by a protected 4.01 with an Echo option (RFC 9175 §2.3), even where the client
// wants no response, since without it nothing is done. The request is no replay,
// so that the answer takes its nonce, and nothing bounds the rate: the request
// could not be accepted once more.
func (e *Endpoint) askFresh(now time.Time, r *Incoming) Result {
	name := r.Peer.Name()
	echo := e.echo.value(now, name)
	if echo == nil {
		return e.drop(r, ReasonChallenge, errNoRandom)
	}
	opts := coap.Options{{Number: coap.Echo, Value: echo}}
	sealed, err := r.seal(nil, oscore.Message{Code: byte(coap.Unauthorized), Body: coap.AppendBody(nil, opts, nil)})
	if err != nil {
		r.report(ReasonStorage, err)
		return Result{Verdict: Drop, Verified: true, Peer: name, Reason: ReasonStorage, Err: err}
	}
	r.report(ReasonChallenge, nil)
	return Result{Verdict: Reply, Message: sealed, Verified: true, Peer: name, Reason: ReasonChallenge}
}
