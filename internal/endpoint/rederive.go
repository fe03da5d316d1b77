package endpoint

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
)

// Appendix B.2: a new context from the old master secret and fresh randomness
// of both ends.
//
//	client                                         server
//	request #1   ID Context = R1        ─────────► (not acted on)
//	             second context         ◄───────── response #1, 4.01, ID Context = R2 || R1
//	request #2   ID Context = R2 || R3  ─────────► verified, adopted, acted on
//	adopted      third context          ◄───────── response #2
//
// The server remembers nothing of a run but one key: R2 is a random S2 and a
// MAC of it and of the time (B.2.1). The key dies with the first run that
// completes, so that no request #2 is accepted twice and no ID Context is
// adopted twice: a second time would begin its sequence numbers anew.

const (
	saltLen = 8 // bytes of R1, S2 and R3
	macLen  = 8
	r2Len   = saltLen + macLen
	// runLifetime is how long a server's run may take.
	runLifetime = 5 * time.Minute
	// runRate bounds the answers to request #1 of one peer, a second: it may be
	// replayed, and costs a few key derivations, as little as a few datagrams.
	runRate = 256
)

// serverRun is what a server remembers of its runs with one peer.
type serverRun struct {
	key  [32]byte // K_HMAC of Appendix B.2.1
	open bool     // key is valid
	last []byte   // ID Context of the last request #2 that was claimed
}

// epoch is the unit in which R2 tells its age.
func (e *Endpoint) epoch() time.Duration { return max(e.cfg.EchoLifetime/2, runLifetime/32) }

// issue returns a new R2 for a run with the peer.
func (e *Endpoint) issue(now time.Time, peer string) ([]byte, error) {
	r2 := make([]byte, saltLen, r2Len)
	if err := e.random(r2); err != nil {
		return nil, err // B.2: not without good randomness
	}
	var key [32]byte
	if err := e.random(key[:]); err != nil {
		return nil, err
	}
	s := e.state(peer)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		s.run = &serverRun{}
	}
	if !s.run.open {
		s.run.key, s.run.open = key, true
	}
	return append(r2, s.run.mac(r2, uint64(max(0, now.Sub(e.start))/e.epoch()))...), nil
}

func (u *serverRun) mac(s2 []byte, epoch uint64) []byte {
	h := hmac.New(sha256.New, u.key[:])
	h.Write(s2)
	h.Write(binary.BigEndian.AppendUint64(nil, epoch))
	return h.Sum(nil)[:macLen]
}

// claimed is what became of a claim.
type claimed int

const (
	claimNone  claimed = iota // no R2 of a run under way: request #1
	claimStale                // request #2 once more
	claimWon                  // request #2
	claimFresh                // request #2 whose R2 is not older than an Echo value may be
)

// claim ends the peer's runs if the ID Context of a request, which verified,
// begins with an R2 of one. Of several that reach request #2 one wins.
func (e *Endpoint) claim(now time.Time, peer string, id []byte) claimed {
	s := e.find(peer)
	if s == nil {
		return claimNone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.run
	switch {
	case u == nil || len(id) < r2Len+saltLen:
		return claimNone
	case bytes.Equal(u.last, id):
		return claimStale
	case !u.open:
		return claimNone
	}
	epoch, step := uint64(max(0, now.Sub(e.start))/e.epoch()), e.epoch()
	for age := uint64(0); age <= epoch && time.Duration(age)*step <= runLifetime; age++ {
		if !hmac.Equal(u.mac(id[:saltLen], epoch-age), id[saltLen:r2Len]) {
			continue
		}
		clear(u.key[:])
		u.open, u.last = false, slices.Clone(id)
		if time.Duration(age+1)*step <= e.cfg.EchoLifetime {
			return claimFresh
		}
		return claimWon
	}
	return claimNone
}

// receiveRederive processes request #1 or #2 of Appendix B.2.
func (e *Endpoint) receiveRederive(now time.Time, in Inbound, opt oscore.Option, peers []oscore.Peer) Result {
	id, err := oscore.UnwrapBstr(opt.KIDContext)
	if err != nil || len(id) == 0 || len(id) > oscore.MaxIDContext-r2Len {
		return e.refuse(now, in, opt, "", oscore.ErrNoContext)
	}
	err = oscore.ErrNoContext
	r := e.incoming(&in, opt)
	for i, peer := range peers {
		if peer.Settings().Rederive&oscore.RoleServer == 0 {
			continue
		}
		if bytes.Equal(peer.IDContext(), id) {
			return e.receive(now, in, opt, peers[i:i+1]) // adopted since the look-up
		}
		ctx, derr := peer.Derive(id, opt.KIDContext)
		if derr != nil {
			err = derr
			continue
		}
		ctx.Begin()
		r.Peer = peer
		m, oerr := ctx.OpenRequest(r.room[:0], &r.req, in.Message)
		if oerr != nil && !errors.Is(oerr, oscore.ErrPlaintext) {
			err = oerr
			continue
		}
		name := peer.Name()
		claim := e.claim(now, name, id)
		switch claim {
		case claimNone:
			return e.answerFirst(now, r, id)
		case claimStale:
			return e.refuse(now, in, opt, name, oscore.ErrReplay)
		}
		if aerr := peer.Adopt(ctx); aerr != nil {
			return e.drop(r, ReasonStorage, aerr)
		}
		e.adopted(name)
		r.report(ReasonRederived, nil)
		return e.verified(now, in, r, m, oerr, claim == claimFresh)
	}
	return e.refuse(now, in, opt, "", err)
}

// offerRederive answers a request that is authentic, under a context whose
// history is unknown, with response #1: the run that the server initiates.
func (e *Endpoint) offerRederive(now time.Time, r *Incoming) Result {
	if r.Peer.Settings().Rederive&oscore.RoleServer == 0 {
		return e.drop(r, ReasonTainted, ErrTainted)
	}
	return e.answerFirst(now, r, r.Peer.IDContext())
}

// answerFirst sends response #1: 4.01 under the second context, whose ID
// Context is R2 || ID1, with R2 as kid context (step 2). The request may be a
// replay, so it leaves no trace.
func (e *Endpoint) answerFirst(now time.Time, r *Incoming, id1 []byte) Result {
	name := r.Peer.Name()
	if !e.withinRate(now, name, runRate, func(p *peerRates) *bucket { return &p.runs }) {
		return e.drop(r, ReasonLimited, nil)
	}
	r2, err := e.issue(now, name)
	if err != nil {
		return e.drop(r, ReasonChallenge, err)
	}
	second, err := r.Peer.Derive(slices.Concat(r2, id1), nil)
	if err != nil {
		return e.drop(r, ReasonStorage, err)
	}
	sealed, err := r.req.SealUnder(nil, second, oscore.WrapBstr(r2), oscore.Message{Code: byte(coap.Unauthorized)})
	if err != nil {
		return e.drop(r, ReasonStorage, err)
	}
	r.report(ReasonChallenge, nil)
	return Result{Verdict: Reply, Message: sealed, Reason: ReasonChallenge, Peer: name}
}
