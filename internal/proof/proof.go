// Package proof lets a test say what it proves.
//
// A test names requirement rows (docs/REQUIREMENTS.md) or a peer's feature
// (docs/INTEROP.md); when it has passed, one machine-readable line goes to the
// test's output, and tools/prooftable turns those lines into the tables. A
// row without such a line from a passing test prints as open.
package proof

import (
	"fmt"
	"strings"
	"testing"
)

// Prefix starts every line that this package writes.
const Prefix = "PROOF "

// Requirement records that the test, once passed, proves the rows on the path
// (for example "direct", "udp-proxy", "relay").
func Requirement(t *testing.T, path string, rows ...string) {
	t.Helper()
	record(t, fmt.Sprintf("requirement rows=%s path=%q", strings.Join(rows, ","), path))
}

// Interop records that the test, once passed, shows a feature working with a
// peer, for example Interop(t, "aiocoap 0.4.17", "client → our server", "Observe").
func Interop(t *testing.T, peer, direction, feature string) {
	t.Helper()
	record(t, fmt.Sprintf("interop peer=%q direction=%q feature=%q", peer, direction, feature))
}

// Checklist records that the test, once passed, proves lines of the RFC
// checklist (ids such as "O-7.4-1", "E-05").
func Checklist(t *testing.T, ids ...string) {
	t.Helper()
	record(t, "checklist ids="+strings.Join(ids, ","))
}

func record(t *testing.T, line string) {
	t.Cleanup(func() {
		if !t.Failed() && !t.Skipped() {
			t.Log(Prefix + line + " test=" + t.Name())
		}
	})
}
