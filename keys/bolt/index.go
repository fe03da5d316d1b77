package bolt

import (
	"bytes"
	"fmt"

	bbolt "go.etcd.io/bbolt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// The index holds what no two entries may share, and what few may, as a keyring
// sees it when it adds them:
//
//	's' sender's identity              name of its entry
//	'r' recipient's identity           name of its entry
//	'p' length, kid, ID Context        name of its entry
//	'b' length, kid, name              found by the kid alone: oscore.MaxCandidates at most
//	'd' length, kid, name              may begin Appendix B.2: as many
//
// and what a context from Appendix B.2 is found by, in place of what is configured:
//
//	'n' name                           its ID Context
//	'q' length, kid, ID Context        name; and the same with the ID Context wrapped
//
// A key may name an entry that a crash kept from being written, and holds for
// nothing then.
type indexed struct {
	name              string
	sender, recipient keys.Identity
	keys              [][]byte // one owner each
	shared            [][]byte // prefix of those that few may share
}

func kidKey(kind byte, kid, rest []byte) []byte {
	b := append([]byte{kind, byte(len(kid))}, kid...)
	return append(b, rest...)
}

func index(e *keys.Entry) (x indexed, err error) {
	sender, recipient, err := keys.Identities(&e.Params)
	if err != nil {
		return x, fmt.Errorf("keys/bolt: entry %q: %w", e.Name, err)
	}
	return indexOf(e, sender, recipient), nil
}

func indexOf(e *keys.Entry, sender, recipient keys.Identity) (x indexed) {
	p := &e.Params
	x.name, x.sender, x.recipient = e.Name, sender, recipient
	x.keys = [][]byte{append([]byte{'s'}, x.sender[:]...), append([]byte{'r'}, x.recipient[:]...)}
	if p.IDContext != nil {
		x.keys = append(x.keys, kidKey('p', p.RecipientID, p.IDContext))
	}
	if p.IDContext == nil || p.OmitKIDContext {
		x.shared = append(x.shared, kidKey('b', p.RecipientID, nil))
	}
	if e.Settings.Rederive&oscore.RoleServer != 0 {
		x.shared = append(x.shared, kidKey('d', p.RecipientID, nil))
	}
	return x
}

// each calls fn for each key of the index and its value.
func (x *indexed) each(fn func(key, value []byte) error) error {
	for _, k := range x.keys {
		if err := fn(k, []byte(x.name)); err != nil {
			return err
		}
	}
	for _, k := range x.shared {
		if err := fn(append(bytes.Clone(k), x.name...), nil); err != nil {
			return err
		}
	}
	return nil
}

// clashes finds entries that stand in each other's way, among new ones and those
// in the store that none of them replaces and that do not go.
func clashes(tx *bbolt.Tx, fresh []indexed, gone []string) error {
	taken := make(map[string]string, 3*len(fresh))
	names := make(map[string]bool, len(fresh))
	counts := map[string]int{}
	for i := range fresh {
		x := &fresh[i]
		if names[x.name] {
			return twice([]byte(x.name))
		}
		names[x.name] = true
		for _, k := range x.keys {
			if other, ok := taken[string(k)]; ok {
				return clash(k, other, x.name)
			}
			taken[string(k)] = x.name
		}
		for _, k := range x.shared {
			counts[string(k)]++
		}
	}
	for _, name := range gone {
		names[name] = true
	}
	b, entries := tx.Bucket(bucketIndex), tx.Bucket(bucketEntries)
	stays := func(name []byte) bool { return !names[string(name)] && entries.Get(name) != nil }
	for k, name := range taken {
		for _, k := range owners([]byte(k)) {
			if other := b.Get(k); other != nil && stays(other) {
				return clash(k, string(other), name)
			}
		}
	}
	for prefix, n := range counts {
		c := b.Cursor()
		for k, _ := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, _ = c.Next() {
			if stays(k[len(prefix):]) {
				n++
			}
		}
		if n > oscore.MaxCandidates {
			return tooMany([]byte(prefix), n)
		}
	}
	return nil
}

// owners are the keys whose owner stands in the way of another owner of key.
func owners(key []byte) [][]byte {
	if key[0] == 'p' {
		return [][]byte{key, append([]byte{'q'}, key[1:]...)}
	}
	return [][]byte{key}
}

func twice(name []byte) error {
	return fmt.Errorf("%w: there are two entries named %q", keys.ErrDuplicate, name)
}

func tooMany(prefix []byte, n int) error {
	return fmt.Errorf("%w: recipient ID %x would be shared by %d entries that cannot be told apart by a kid context, or that answer Appendix B.2; %d is the most: give them other IDs",
		keys.ErrDuplicate, prefix[2:], n, oscore.MaxCandidates)
}

func clash(key []byte, a, b string) error {
	what := map[byte]string{
		's': "one sender key (same master secret, salt, ID context and sender ID)",
		'r': "one recipient key (same master secret, salt, ID context and recipient ID)",
		'p': "one recipient ID and one ID context: give one another ID",
		'q': "one recipient ID and one ID context: give one another ID",
	}[key[0]]
	return fmt.Errorf("%w: entries %q and %q have %s", keys.ErrDuplicate, a, b, what)
}
