package ccm

import "unsafe"

// refuseOverlap panics if out shares memory with in at another start than
// in's own, or with aad at all: the rule of crypto/cipher.
func refuseOverlap(out, in, aad []byte) {
	if overlap(out, in) && &out[0] != &in[0] {
		panic("ccm: invalid buffer overlap of output and input")
	}
	if overlap(out, aad) {
		panic("ccm: invalid buffer overlap of output and additional data")
	}
}

// overlap says whether two slices share memory. The pointers are compared,
// never followed.
func overlap(x, y []byte) bool {
	return len(x) > 0 && len(y) > 0 &&
		uintptr(unsafe.Pointer(&x[0])) <= uintptr(unsafe.Pointer(&y[len(y)-1])) &&
		uintptr(unsafe.Pointer(&y[0])) <= uintptr(unsafe.Pointer(&x[len(x)-1]))
}
