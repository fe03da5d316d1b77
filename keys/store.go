package keys

import (
	"context"
	"errors"

	"github.com/oscorelay/oscorelay/oscore"
)

// SSNStore makes sender sequence numbers unrepeatable. It is all that a device
// has to implement, with the standard library's types alone.
type SSNStore interface {
	// Reserve returns a range [lo, hi) of 1 to n numbers that was never
	// returned for id before and never will be again, whatever crashes: it is
	// durable when Reserve returns. After an error whose outcome is not known
	// the range counts as spent. An id that the store knows nothing of is
	// refused with an error that is [ErrTainted]; ranges end at 2^40, and then
	// the error is oscore.ErrSequenceExhausted. Safe for concurrent use.
	Reserve(ctx context.Context, id []byte, n uint32) (lo, hi uint64, err error)
}

// History is a store that tells known material from unknown.
type History interface {
	// Known returns nil if every number spent under id is covered by the
	// store's ranges, and else an error that is [ErrTainted] and says why.
	Known(ctx context.Context, id []byte) error
	// Declare makes an id known of which nobody has used a number from next
	// on, durably. It reports whether that is news; for an id already known it
	// changes nothing. An id that was in use and whose history was lost is
	// refused with ErrTainted: saying that it is new does not make it so.
	Declare(ctx context.Context, id []byte, next uint64) (created bool, err error)
	// Forget makes an id unknown, and what ContextStore keeps for it: its key is
	// gone for good, and if it ever comes back it is tainted.
	Forget(ctx context.Context, id []byte) error
}

// Window is a replay window to hand over.
type Window struct {
	ID    Identity // the recipient's identity
	State oscore.WindowState
}

// WindowStore is a store that hands replay windows over from a clean shutdown
// to the next start.
type WindowStore interface {
	// PutWindows saves windows that accept nothing any more.
	PutWindows(ctx context.Context, windows []Window) error
	// TakeWindow returns a saved window, once: its deletion is durable before
	// TakeWindow returns, so that a crash cannot bring it back.
	TakeWindow(ctx context.Context, id []byte) (s oscore.WindowState, ok bool, err error)
}

// Derived is what Appendix B.2 left behind for a peer.
type Derived struct {
	IDContext []byte   // of the third security context
	ID        Identity // the sender's identity under it
	Next      uint64   // the first number not yet spent under it
}

// ContextStore is a store that keeps derived contexts over restarts.
type ContextStore interface {
	// PutDerived saves the context that took the place of the one configured,
	// whose sender's identity is base, and makes its numbers known from Next
	// on; both or neither, durably. The one saved before is forgotten.
	PutDerived(ctx context.Context, base []byte, d Derived) error
	// Derived returns the ID Context saved for base.
	Derived(ctx context.Context, base []byte) (idContext []byte, ok bool, err error)
}

// Used is how many messages were protected under a sender key.
type Used struct {
	ID        Identity // the sender's identity
	Encrypted uint64
}

// UsageStore is a store that keeps count of encryptions over restarts.
type UsageStore interface {
	// PutUsed saves counts durably. They only ever grow.
	PutUsed(ctx context.Context, used []Used) error
	// Used returns the count saved for a sender's identity, 0 if there is none.
	Used(ctx context.Context, id []byte) (uint64, error)
}

// Directory is a store that has the entries too, and finds them by what a message
// names: a keyring on it need not hold a peer for each ([NewDirectory]). All
// methods are safe for concurrent use, and see an entry as soon as it is written.
//
// Two entries never have one key, or one pair of kid and kid context, and no more
// share a kid than can be tried in turn: what [Keyring.Add] refuses, a Directory
// refuses when entries are written. Around a change it calls [Keyring.Suspend].
type Directory interface {
	SSNStore
	History
	WindowStore
	ContextStore
	UsageStore

	// Lookup returns what kid and kidContext may name.
	Lookup(ctx context.Context, kid, kidContext []byte) (Candidates, error)
	// Load returns an entry and what belongs to it. The caller owns it.
	Load(ctx context.Context, name string) (r Record, ok bool, err error)
	// Clash returns ErrDuplicate if an entry cannot stand beside those that have
	// other names.
	Clash(ctx context.Context, e *Entry) error
	// HasKID reports whether an entry has that Recipient ID.
	HasKID(ctx context.Context, kid []byte) (bool, error)
	// Names returns up to n names that come after one, in order.
	Names(ctx context.Context, after string, n int) ([]string, error)
	// Len returns the number of entries.
	Len() int
}

// Candidates are names of entries.
type Candidates struct {
	// Exact has that kid, and that kid context as its ID Context, configured or
	// derived, or wrapped as Appendix B.2 has it; "" if there is none, and for a
	// nil kid context.
	Exact string
	// KID are, for a nil kid context, the entries with that kid: those that send
	// no kid context first; oscore.MaxCandidates at most.
	KID []string
	// Rederive are, for a kid context, the entries with that kid that may begin
	// Appendix B.2; oscore.MaxCandidates at most.
	Rederive []string
}

// Record is an entry in a Directory.
type Record struct {
	Entry     Entry
	Index     uint32   // a small number that is the entry's alone
	Sender    Identity // of what is configured
	Recipient Identity
	Derived   []byte // the ID Context from Appendix B.2, nil if it has not run
	Taint     error  // of the current context: what [History.Known] says
	Encrypted uint64 // under it: what [UsageStore.Used] says
}

// Errors of a Keyring and its stores.
var (
	// ErrTainted: numbers may have been used that nobody remembers, so that the
	// context may not seal. See [TaintError].
	ErrTainted = errors.New("keys: history of the sequence numbers is unknown")
	// ErrClosed: the keyring or the store is closed, or the peer was removed.
	ErrClosed = errors.New("keys: closed")
	// ErrDuplicate: another entry stands in the way.
	ErrDuplicate = errors.New("keys: duplicate")
	// ErrName: a name that cannot be used.
	ErrName = errors.New("keys: invalid name")
	// ErrNotFound: there is no such peer.
	ErrNotFound = errors.New("keys: no such peer")
	// ErrDerived: a context that cannot be derived or adopted as asked.
	ErrDerived = errors.New("keys: not a newly derived context of this peer")
	// ErrIDs: no identifier is free.
	ErrIDs = errors.New("keys: no free identifier")
)

// TaintError says why a context is tainted; errors.Is finds [ErrTainted].
type TaintError struct {
	Reason string // what happened
}

// Mend tells what helps a tainted context.
const Mend = "agree on a new context (RFC 8613 Appendix B.2, EDHOC) or make new keys (oscore keys new)"

// Error says what happened and what helps.
func (e *TaintError) Error() string {
	return ErrTainted.Error() + ": " + e.Reason + "; " + Mend
}

// Is reports whether target is ErrTainted.
func (e *TaintError) Is(target error) bool { return target == ErrTainted }
