// Package bolt keeps a daemon's keys, their sequence numbers, its observations and
// facts of devices and its journal of unsafe requests in one file, on
// go.etcd.io/bbolt.
//
//	DIR/store.db   everything; entries, facts, observed requests and responses sealed
//	DIR/root.key   the root key, mode 0600; Options.RootKey puts it elsewhere
//	DIR/lock       held while the store is open
//	ANCHORS/…      where the store has got to, outside DIR and its backups
//
// # Starts
//
// Open refuses a store that is missing unless it is told to make one
// ([Options].Init): keys whose numbers begin at 0 again repeat nonces. What
// taints, the anchor, the locks and the ledger of what was declared new are those
// of package keys/file, and its documentation tells about them.
//
// Each start is one commit, whatever the number of contexts. The record of a
// context says from which number on nobody used one, and what the store's offset
// was then. A start adds [K] to the offset, and what a crash may have lost, so
// that every context owns K numbers more without a write of its own:
//
//	offset when written ──► base ... K K K │ this start's K │
//	                             └ offset now − offset then ┘
//
// A context that asks for more than is left of them has a new record written. A
// store that has to taint everything counts up its line in the same commit;
// records of an earlier line are tainted. Windows carry a generation in the same
// way, which a crash counts up.
//
// # Peers
//
// [Store.Keyring] holds no peer that is not in use: it finds entries in the file, by
// an index of kids and kid contexts, and derives their keys on demand. So a start
// reads one page or two, whatever the number of contexts, and memory grows with those
// that were heard, not with those that there are. [Store.Put], [Store.Import] and
// [Store.Remove] take effect when they return. Each entry has a small number of its
// own for ever ([Store.Index]).
//
// The index is in the file because that has to be there anyway: a table of raw keys
// in memory would read and unseal every entry at each start, and be a second truth
// to keep. The pages of the file that were read count as resident (RssFile) although
// the kernel takes them back when it needs them; what the process cannot give back
// is RssAnon. BenchmarkFleet tells both.
//
// # Commits
//
// Callers that come together share a transaction, with two flushes and now and
// then one of the anchor. After a failed flush the store refuses everything until
// it is opened again: what the disk holds then is not known. A full disk spends
// the numbers asked for, and no more, if the file is seen to be as before.
//
// # One process
//
// The store is for one process on one machine. So it has no Acquire and Renew
// with a time to live: Open acquires everything, the locks are the fence, and
// [Store.Epoch] is its number. Nothing here expires under a process that stalls.
//
// # Sealing at rest
//
// Entries, facts, data of observations and responses in the journal are sealed with
// AES-256-GCM under a key that HKDF-SHA-256 derives from the root key and the
// store's salt, with random nonces (2^32 writes at most), bound to their place.
// Names, tokens, keys of facts, identities and numbers are in the clear. Whoever can
// write the file can put an older record back in its place, or leave one out.
//
//	open.go       Open, Close, what taints
//	head.go       the buckets, what holds for all, the record of a context
//	commit.go     transactions shared by callers, failures
//	numbers.go    Reserve and what is known
//	contexts.go   windows, derived contexts
//	entries.go    entries
//	import.go     bulk import
//	sync.go       import of all that key files have, and what left them
//	spill.go      sorting more than memory is to hold
//	index.go      what entries may not share, and are found by
//	tainted.go    counting what seals nothing
//	trim_*.go     mapped pages that are not wanted
//	directory.go  the keyring's view of the store
//	tx.go         Update and View
//	places.go     the small number of each entry
//	facts.go      small durable facts of a device
//	observe.go    observations
//	journal.go    unsafe requests
//	seal.go       sealing
//
// Limits: of each context that was used since the start the store holds about 60
// bytes in memory, its numbers and that its window was taken, and the keyring 80.
// The file has about 550 bytes an entry, and does not shrink. It cannot be read while
// a process has it open. A damaged page shows when it is read: the record is refused
// then, and when it is in the way of a write the store stops.
package bolt
