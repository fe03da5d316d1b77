//go:build !purego

package ccm

import "testing"

var portableImplementation = implementation{"portable twin", initPortable}

// implementations are the assembly, if this processor runs it, and the
// portable twin that stands in for it elsewhere.
func implementations() []implementation {
	list := []implementation{portableImplementation}
	if useAssembly {
		list = append(list, implementation{"assembly", (*Key).Init})
	}
	return list
}

func initPortable(k *Key, key []byte, nonceSize, tagSize int) error {
	if err := k.Init(key, nonceSize, tagSize); err != nil {
		return err
	}
	k.cipher.expandPortable(key)
	return nil
}

// A machine that lacks AES-NI proves the twin alone, and says so.
func TestAssemblyIsTested(t *testing.T) {
	if !useAssembly {
		t.Skip("this processor has no AES-NI: the assembly is not tested here")
	}
	if k := implementations()[0].key(t, noise(1, 16), 13, 8); k.cipher.rounds != 0 {
		t.Error("the twin runs the assembly")
	}
	if k := implementations()[1].key(t, noise(1, 16), 13, 8); k.cipher.rounds != 10 {
		t.Errorf("an AES-128 key runs %d rounds of assembly", k.cipher.rounds)
	}
}

// longestWithoutAllocation: the assembly allocates nothing; without it the key
// is expanded on every call.
var longestWithoutAllocation = func() int {
	if useAssembly {
		return 1 << 20
	}
	return -1
}()
