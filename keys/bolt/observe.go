package bolt

import (
	"bytes"
	"fmt"

	"github.com/oscorelay/oscorelay/keys"
)

// Observation is one that goes on over restarts.
type Observation struct {
	Peer  string // the device
	Token []byte // of whoever observes, at most 8 bytes
	// Data is what taking it up again needs, such as the request that asked for
	// it. It is sealed at rest.
	Data []byte
}

// observeKey is the peer, a zero, which no name holds, and the token.
func observeKey(peer string, token []byte) ([]byte, error) {
	if peer == "" || len(peer) > keys.MaxName || len(token) > 8 || bytes.IndexByte([]byte(peer), 0) >= 0 {
		return nil, fmt.Errorf("%w: peer %q, token of %d bytes", ErrTooLong, peer, len(token))
	}
	return append(append([]byte(peer), 0), token...), nil
}

// PutObservation keeps an observation, in place of the one of that peer and token.
func (tx *Tx) PutObservation(o Observation) error {
	key, err := observeKey(o.Peer, o.Token)
	if err != nil {
		return err
	}
	b, err := tx.bucket(bucketObserve)
	if err != nil {
		return err
	}
	return b.Put(key, tx.st.seal(bucketObserve, key, o.Data))
}

// DeleteObservation ends an observation; one that there is not is no error.
func (tx *Tx) DeleteObservation(peer string, token []byte) error {
	key, err := observeKey(peer, token)
	if err != nil {
		return err
	}
	b, err := tx.bucket(bucketObserve)
	if err != nil {
		return err
	}
	return b.Delete(key)
}

// Observations calls fn for each observation of a peer, or of all for an empty
// name, until it returns an error. fn must not change observations.
func (tx *Tx) Observations(peer string, fn func(Observation) error) error {
	var prefix []byte
	if peer != "" {
		prefix = append([]byte(peer), 0)
	}
	c := tx.tx.Bucket(bucketObserve).Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		name, token, _ := bytes.Cut(k, []byte{0})
		data, err := tx.st.open(bucketObserve, k, v)
		if err != nil {
			return fmt.Errorf("keys/bolt: observation of %q: %w", name, err)
		}
		if err := fn(Observation{string(name), bytes.Clone(token), data}); err != nil {
			return err
		}
	}
	return nil
}
