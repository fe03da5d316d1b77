//go:build interop

package interop

import (
	"fmt"
	"os"
	"testing"

	"github.com/oscorelay/oscorelay/interop/peer"
)

func TestMain(m *testing.M) {
	status := m.Run()
	if err := peer.RemovePrograms(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(status)
}
