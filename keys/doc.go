// Package keys holds security contexts for an endpoint: it finds them by what
// a message names, gives exclusive access for the time an operation takes, and
// keeps their sequence numbers unrepeatable across crashes.
//
//	Entry ──Add──► Keyring ──Find(kid, kid context)──► Peer ──► oscore.Context
//	                  │                                  │ lease of numbers
//	                  └────────────── store ◄────────────┘ Reserve, durable first
//
// # What never happens
//
// A sequence number is used only if it lies in a range that the store made
// durable before; ranges of one sender key never overlap. A replay window is
// opened only by a context that nobody used before, by a hand-over from a
// clean shutdown that is deleted before it is used, or by a request that
// answered an Echo challenge (RFC 8613, Appendix B.1).
//
// A context whose past is not known is tainted: its key may have protected
// messages under numbers that nobody remembers. It still opens messages, and
// it can be derived anew with fresh randomness (Appendix B.2), but it seals
// nothing ([ErrTainted]).
//
// # Identity
//
// Numbers and windows belong to keys, not to names: an [Identity] is a
// fingerprint of one direction's derived key and Common IV. Whatever parameters
// lead to the same key (an absent salt and one of zeros do) share one sequence,
// and the same material imported again, under whatever name, goes on where it
// stopped.
//
// # Stores
//
// A store needs one method ([SSNStore]). What else it can do it says by further
// interfaces, each with a safe meaning when it is missing:
//
//	History       tells known material from unknown   else: Reserve must refuse what it does not know
//	WindowStore   hands windows over a clean restart  else: Echo after each start
//	ContextStore  keeps what Appendix B.2 agreed on   else: B.2 again after each start
//	UsageStore    counts encryptions over restarts    else: each start counts from 0
//	Directory     finds entries by what a message names: see below
//
// Package keys/file has all of them in a directory, keys/bolt in one file for a
// daemon of many peers; [Memory] is for tests and demonstrations. Package
// keys/keystest holds the suite that a store must pass.
//
// # A million peers
//
// [New] makes a keyring that holds every peer added to it, about 1.6 kB each.
// [NewDirectory] makes one that looks peers up in a store that has all the entries,
// and holds those that were used of late ([DirectoryOptions].Hot). A peer that has to
// go is parked: its replay window, its lease of numbers and its counts stay in
// memory, about 80 bytes, and its keys are derived again when it is asked for. That
// writes nothing, and needs no Echo afterwards. What is parked is void after a
// crash, as what is in use is, and handed over by [Keyring.Close].
//
// Who holds a peer need not know: every operation brings it back. A peer is not
// parked in the middle of an operation or a reservation, nor while it was used since
// the clock's hand passed, as long as there are others; messages that do not verify
// are no use. As long as anybody holds a peer the look-up finds that very one, so
// that requests in flight and observations go on under their keys.
//
//	entry.go     what is configured for a peer; identities
//	keyring.go   the look-up and its five outcomes
//	cold.go      peers that are looked up: hot, evicted, suspended
//	clock.go     which of them go, when there are too many or they rest
//	parked.go    what stays in memory of a peer that was evicted
//	ids.go       identifiers held for EDHOC
//	peer.go      the operations on a context
//	lease.go     reserving sequence numbers ahead of use
//	usage.go     counting encryptions
//	rederive.go  Appendix B.2: Derive and Adopt
//	store.go     what a store does
//	memory.go    a store that forgets
//
// Limits: a crash forgets up to some hundred encryptions of a busy key
// ([Peer.Usage]), and failed decryptions are counted since the start. A removed
// peer's requests in flight may still be answered under the keys they came under. A
// keyring does not see which secret a context was derived from: Adopt takes what the
// same peer's Derive returned.
package keys
