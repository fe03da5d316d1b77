package ours

import (
	"testing"

	"github.com/oscorelay/oscorelay/interop/peer"
)

// Program starts one of this repository's commands, such as "oscore-proxy".
func Program(t testing.TB, name string, args ...string) *peer.Process {
	t.Helper()
	return peer.Start(t, peer.Spec{Name: name, Path: peer.Program(t, name), Args: args})
}
