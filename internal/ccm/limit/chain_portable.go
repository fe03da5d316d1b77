//go:build !amd64 || purego

package limit

// Chain encrypts x in place, n times over, under the AES-128 key of FIPS 197,
// Appendix A.1, by crypto/aes.
func Chain(x *[16]byte, n int) { portable(x, n) }
