package bolt

import (
	"bytes"
	"fmt"

	"github.com/oscorelay/oscorelay/keys"
)

// MaxFactKey is the longest key of a fact, in bytes.
const MaxFactKey = 128

// factKey is the peer, a zero, which no name holds, and the key.
func factKey(peer, key string) ([]byte, error) {
	if peer == "" || len(peer) > keys.MaxName || bytes.IndexByte([]byte(peer), 0) >= 0 || key == "" || len(key) > MaxFactKey {
		return nil, fmt.Errorf("%w: fact %q of peer %q", ErrTooLong, key, peer)
	}
	return append(append([]byte(peer), 0), key...), nil
}

// PutFact keeps something that is to be known of a peer after a restart, such as
// where it was last heard of, in place of what was kept under that key of 1 to
// [MaxFactKey] bytes. It is sealed at rest, and goes with [Store.Remove].
func (tx *Tx) PutFact(peer, key string, data []byte) error {
	k, err := factKey(peer, key)
	if err != nil {
		return err
	}
	b, err := tx.bucket(bucketFacts)
	if err != nil {
		return err
	}
	return b.Put(k, tx.st.seal(bucketFacts, k, data))
}

// Fact returns what is kept of a peer under a key.
func (tx *Tx) Fact(peer, key string) (data []byte, ok bool, err error) {
	k, err := factKey(peer, key)
	if err != nil {
		return nil, false, err
	}
	v := tx.tx.Bucket(bucketFacts).Get(k)
	if v == nil {
		return nil, false, nil
	}
	if data, err = tx.st.open(bucketFacts, k, v); err != nil {
		return nil, false, fmt.Errorf("keys/bolt: fact %q of %q: %w", key, peer, err)
	}
	return data, true, nil
}

// Facts calls fn for each fact of a peer, or of all for an empty name, until it
// returns an error. fn must not change facts.
func (tx *Tx) Facts(peer string, fn func(peer, key string, data []byte) error) error {
	var prefix []byte
	if peer != "" {
		prefix = append([]byte(peer), 0)
	}
	c := tx.tx.Bucket(bucketFacts).Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		name, key, _ := bytes.Cut(k, []byte{0})
		data, err := tx.st.open(bucketFacts, k, v)
		if err != nil {
			return fmt.Errorf("keys/bolt: fact %q of %q: %w", key, name, err)
		}
		if err := fn(string(name), string(key), data); err != nil {
			return err
		}
	}
	return nil
}

// DeleteFact deletes a fact; one that there is not is no error.
func (tx *Tx) DeleteFact(peer, key string) error {
	k, err := factKey(peer, key)
	if err != nil {
		return err
	}
	b, err := tx.bucket(bucketFacts)
	if err != nil {
		return err
	}
	return b.Delete(k)
}
