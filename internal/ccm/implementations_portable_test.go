//go:build !amd64 || purego

package ccm

var portableImplementation = implementation{"portable", (*Key).Init}

func implementations() []implementation { return []implementation{portableImplementation} }

// longestWithoutAllocation: from bulk on crypto/cipher allocates. The race
// detector lets sync.Pool drop what it is given, so there even a short message
// may allocate.
var longestWithoutAllocation = func() int {
	if raceEnabled {
		return -1
	}
	return bulk - 1
}()
