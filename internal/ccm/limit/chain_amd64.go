//go:build !purego

package limit

import "golang.org/x/sys/cpu"

// Chain encrypts x in place, n times over, under the AES-128 key of FIPS 197,
// Appendix A.1.
//
// With AES-NI the round keys are in registers and nothing but the rounds is
// timed: a block's whitening is folded into the last round of the block
// before, as the fastest CBC-MAC would. That is a cycle a block stricter than
// n calls of a block cipher.
func Chain(x *[16]byte, n int) {
	if n <= 0 {
		return
	}
	if !cpu.X86.HasAES {
		portable(x, n)
		return
	}
	chain(x, n)
}

//go:noescape
func chain(x *[16]byte, n int)
