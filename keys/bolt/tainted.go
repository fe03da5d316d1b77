package bolt

import (
	"bytes"
	"context"

	"github.com/oscorelay/oscorelay/keys"
)

// Tainted counts the entries whose current context is tainted, and names the first of
// them, in no order. It reads the numbers and no entry.
func (st *Store) Tainted(ctx context.Context, most int) (n int, names []string, err error) {
	const page = 5000
	defer st.trim(0)
	last := []byte{'s'}
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return n, names, err
		}
		st.mu.Lock()
		h := st.h
		st.mu.Unlock()
		err := st.View(ctx, func(tx *Tx) error {
			index := tx.tx.Bucket(bucketIndex)
			derived := tx.tx.Bucket(bucketDerived)
			c := index.Cursor()
			k, name := c.Seek(last)
			if bytes.Equal(k, last) {
				k, name = c.Next()
			}
			looked := 0
			for ; len(k) == 1+len(keys.Identity{}) && k[0] == 's' && looked < page; k, name = c.Next() {
				looked++
				last = append(last[:0], k...)
				id := keys.Identity(k[1:])
				if v := derived.Get(id[:]); len(v) >= len(id) {
					id = keys.Identity(v)
				}
				if _, taint := known(tx.tx, &h, id); taint == nil || !live(tx.tx, name) {
					continue
				}
				if n++; len(names) < most {
					names = append(names, string(name))
				}
			}
			more = looked == page
			return nil
		})
		if err != nil {
			return n, names, err
		}
	}
	return n, names, nil
}
