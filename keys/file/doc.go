// Package file keeps keys and their sequence numbers in a directory, for
// devices, libraries and the command line. It needs no database.
//
//	DIR/keys       the contexts, sealed under the root key; written as a whole
//	DIR/keys.added changes to them since, appended while a server takes handshakes
//	DIR/state      numbers, windows, derived contexts; appended, checked, compacted
//	DIR/root.key   the root key, mode 0600; Options.RootKey puts it elsewhere
//	DIR/lock       held while the store is open
//	ANCHORS/<store>.anchor   where the state has got to, outside DIR and its backups
//	ANCHORS/declared-new     what was declared new on this machine
//
// # State
//
// The state file is a sequence of frames, each with a number, a length and a
// CRC, made durable by one fdatasync before anything in it is used. Calls that
// come together share a frame. A frame cut short by a crash is the last one, was
// never acknowledged, and is cut off; a frame damaged before others makes Open
// refuse, naming file and offset. After a failed flush the store refuses
// everything until it is opened again: what the disk holds then is not known,
// and a second flush may claim success for data that is gone. A full disk spends
// the range asked for, and no more.
//
// Each Open is a new epoch. The frame that begins it voids every window that
// was saved before, so that a window restored once cannot come back.
//
// # Anchor
//
// A state file can be copied, restored from a backup or deleted, and nothing in
// it would tell. The anchor tells: it names the store, its epoch, its directory
// and machine, and how many frames the state has. It is written first: an epoch
// before it begins, and a limit of frames before the state reaches it. What does
// not match is unknown history, and every context becomes tainted (see package
// keys) with a message that says what happened. Such a store begins a new line
// with an anchor of its own; the one it was copied from goes on undisturbed.
//
// After a crash the anchor's limit may be some frames ahead of the state. Each of
// those may be missing because the state was restored to a moment ago, so every
// context skips the numbers they could have held: some thousands, of 2^40.
//
// Beside the anchors a ledger lists what was declared new on this machine, so
// that the same keys cannot be declared new twice, in two directories or after
// one was deleted.
//
// A copy of the whole machine, anchor included, is not detectable from inside.
//
// # Sealing at rest
//
// Each entry of the key file is sealed with AES-256-GCM under a key that
// HKDF-SHA-256 derives from the root key and a salt drawn for each writing of
// the file, with a random nonce; its place and the number of entries are
// authenticated, so entries can be neither exchanged nor left out. AES-GCM
// because the standard library has it, in hardware; a key for each writing, so
// that random nonces never come near their limit. Sealing protects a key file
// that travels without the root key: put the root key elsewhere to gain by it.
//
//	open.go     Open, Close, what taints
//	store.go    the interfaces of package keys, group commit
//	state.go    what the records say
//	record.go   records
//	frame.go    frames, torn and damaged ones
//	entries.go  the key file
//	added.go    changes appended beside it
//	view.go     reading without opening
//
// Beside it, for keys/bolt as well: keys/internal/anchor, keys/internal/vault (the
// root key and sealed entries), keys/internal/record.
//
// Limits: one process at a time; all of the state is held in memory, about 100
// bytes a context; the key file is written as a whole with each change, but for
// those of [Store.PutSession] and [Store.RemoveSession].
package file
