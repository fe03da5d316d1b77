package ccm

import "unsafe"

// overlap says whether two slices share memory. Addresses are compared, never
// followed.
func overlap(x, y []byte) bool {
	return start(x) < start(y)+uintptr(len(y)) && start(y) < start(x)+uintptr(len(x)) &&
		len(x) > 0 && len(y) > 0
}

func start(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
