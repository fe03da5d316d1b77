package ccm

import "unsafe"

// overlaps says whether out shares memory with in at another start than in's
// own, or with aad at all: what crypto/cipher forbids.
func overlaps(out, in, aad []byte) bool {
	return overlap(out, in) && start(out) != start(in) || overlap(out, aad)
}

// overlap says whether two slices share memory. Addresses are compared, never
// followed.
func overlap(x, y []byte) bool {
	return start(x) < start(y)+uintptr(len(y)) && start(y) < start(x)+uintptr(len(x)) &&
		len(x) > 0 && len(y) > 0
}

func start(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
