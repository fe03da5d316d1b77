//go:build !amd64 || purego

package ccm

var portableImplementation = implementation{"portable", (*Key).Init}

func implementations() []implementation { return []implementation{portableImplementation} }
