package keys

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/oscorelay/oscorelay/oscore"
)

// ReserveID holds an identifier for an EDHOC session, whose connection
// identifier becomes a Recipient ID when the session has a context (RFC 9528
// §A.1). It returns ErrDuplicate if a peer or another session has it.
func (r *Keyring) ReserveID(id []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.free(id) {
		return fmt.Errorf("%w: identifier %x is in use", ErrDuplicate, id)
	}
	r.held[string(id)] = struct{}{}
	return nil
}

// ReleaseID gives an identifier back, before the session's context is added or
// when there will be none.
func (r *Keyring) ReleaseID(id []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, string(id))
}

// ReserveFreeID chooses an identifier that nobody has, holds it and returns it:
// one byte if there is one free, and of those first the ones that EDHOC encodes
// as one byte (RFC 9528 §3.3.2). Those in avoid, such as the peer's choice, are
// passed over: the two must differ (§3.3.3).
func (r *Keyring) ReserveFreeID(avoid ...[]byte) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	usable := func(id []byte) bool {
		return r.free(id) && !slices.ContainsFunc(avoid, func(a []byte) bool { return bytes.Equal(a, id) })
	}
	var seed [1]byte
	_, _ = rand.Read(seed[:]) // never fails (crypto/rand)
	for _, oneByte := range []bool{true, false} {
		var class []byte
		for i := range 256 {
			if encodesAsInt(byte(i)) == oneByte {
				class = append(class, byte(i))
			}
		}
		// From anywhere, so that stores that know nothing of each other choose
		// different ones.
		for i := range class {
			id := []byte{class[(int(seed[0])+i)%len(class)]}
			if usable(id) {
				r.held[string(id)] = struct{}{}
				return id, nil
			}
		}
	}
	for n := 2; n <= oscore.AESCCM16_64_128.MaxIDLen(); n++ {
		id := make([]byte, n)
		// A few draws tell whether the length is crowded.
		for range 16 {
			_, _ = rand.Read(id)
			if usable(id) {
				r.held[string(id)] = struct{}{}
				return id, nil
			}
		}
	}
	return nil, ErrIDs
}

// free reports whether nobody has the identifier. The caller holds r.mu.
func (r *Keyring) free(id []byte) bool {
	_, peer := r.kids[string(id)]
	_, session := r.held[string(id)]
	return !peer && !session
}

// encodesAsInt reports whether the byte is the encoding of a CBOR integer from
// -24 to 23.
func encodesAsInt(b byte) bool { return b < 0x18 || 0x20 <= b && b < 0x38 }
