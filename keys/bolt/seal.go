package bolt

import (
	"crypto/rand"
	"errors"
)

// sealedFor tells this package's key from the others that one root key leads to.
const sealedFor = "oscorelay keys bolt"

var errSeal = errors.New("the root key does not open this record: it is another root key, or the record was changed")

// seal seals a value for its place, a bucket and a key in it.
func (st *Store) seal(bucket, key, plain []byte) []byte {
	box := make([]byte, st.aead.NonceSize(), st.aead.NonceSize()+len(plain)+st.aead.Overhead())
	_, _ = rand.Read(box) // never fails (crypto/rand)
	return st.aead.Seal(box, box, plain, place(bucket, key))
}

// open opens what seal returned.
func (st *Store) open(bucket, key, box []byte) ([]byte, error) {
	n := st.aead.NonceSize()
	if len(box) < n {
		return nil, errSeal
	}
	plain, err := st.aead.Open(nil, box[:n], box[n:], place(bucket, key))
	if err != nil {
		return nil, errSeal
	}
	return plain, nil
}

func place(bucket, key []byte) []byte {
	b := append(make([]byte, 0, len(bucket)+1+len(key)), bucket...)
	return append(append(b, 0), key...)
}
