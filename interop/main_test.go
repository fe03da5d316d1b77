//go:build interop

package interop

import (
	"os"
	"testing"

	"github.com/oscorelay/oscorelay/interop/ours"
)

func TestMain(m *testing.M) {
	status := m.Run()
	ours.RemovePrograms()
	os.Exit(status)
}
