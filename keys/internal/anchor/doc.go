// Package anchor keeps outside a store where the store has got to, so that a copy,
// an old backup or a deleted store does not pass for the last state, and what was
// declared new on this machine.
//
//	anchor.go   the anchor and what it says of a state
//	ledger.go   what was declared new, in whichever store
package anchor
