package ccm

import "testing"

// implementation is one way to compute CCM; the suite runs over each that this
// build has (see implementations_portable_test.go and its amd64 sibling).
type implementation struct {
	name string
	init func(k *Key, key []byte, nonceSize, tagSize int) error
}

// each runs a test over every implementation of this build.
func each(t *testing.T, test func(t *testing.T, im implementation)) {
	t.Helper()
	for _, im := range implementations() {
		t.Run(im.name, func(t *testing.T) { test(t, im) })
	}
}

// key returns an initialised Key or ends the test.
func (im implementation) key(t testing.TB, key []byte, nonceSize, tagSize int) *Key {
	t.Helper()
	k := new(Key)
	if err := im.init(k, key, nonceSize, tagSize); err != nil {
		t.Fatal(err)
	}
	return k
}
