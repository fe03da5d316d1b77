package anchor

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
)

func ids(from, n int) (out []keys.Identity) {
	for i := range n {
		var id keys.Identity
		binary.LittleEndian.PutUint32(id[:], uint32(from+i)) // not in order
		out = append(out, id)
	}
	return out
}

// TestLedger: what one store claimed no other gets, however many it claimed at once;
// it may itself claim it again.
func TestLedger(t *testing.T) {
	dir := t.TempDir()
	a, b := NewUUID(), NewUUID()
	claim := func(store UUID, where string, want []keys.Identity, taken int) {
		t.Helper()
		got, err := Claim(disk.OS{}, dir, store, where, want)
		if err != nil || len(got) != taken {
			t.Fatalf("%d are taken, %v, want %d", len(got), err, taken)
		}
		for id, of := range got {
			if of != "/first store" {
				t.Fatalf("%s is taken by %q", id, of)
			}
		}
	}
	claim(a, "/first store", ids(0, 3), 0)
	claim(a, "/first store", ids(5, many), 0)
	claim(a, "/first store", ids(0, many), 0)
	claim(b, "/second", ids(2, 1), 1)
	claim(b, "/second", ids(many/2, 1), 1)
	claim(b, "/second", ids(many, 2*many), 5)
	claim(b, "/second", ids(many+5, 1), 0) // the refusal claimed nothing
	claim(b, "/second", ids(2*many, 2*many), 0)
	claim(b, "/second", ids(2*many, 2*many), 0)

	// A line that was cut short counts for nothing, and ends there.
	name := filepath.Join(dir, LedgerName)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(text, segment+LedgerName+".0011"...), 0o600); err != nil {
		t.Fatal(err)
	}
	claim(b, "/second", ids(0, 1), 1)
	claim(b, "/second", ids(9*many, 1), 0)
	// One whose file is missing does: it may have any key.
	if err := os.WriteFile(name, append(text, "\n"+segment+LedgerName+".0011 "+a.String()+" /first store\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(disk.OS{}, dir, b, "/second", ids(10*many, 1)); err == nil || !strings.Contains(err.Error(), "/first store") {
		t.Errorf("a missing file: %v", err)
	}
	// No line leads out of the directory.
	if err := os.WriteFile(name, append(text, "\n"+segment+"../elsewhere "+a.String()+" /first store\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	claim(b, "/second", ids(10*many, 1), 0)
}

// TestLedgerAtOnce: of two that claim at the same time the one whose line came first
// wins.
func TestLedgerAtOnce(t *testing.T) {
	for _, n := range []int{1, many} {
		dir := t.TempDir()
		a, b := NewUUID(), NewUUID()
		first := &between{do: func() {
			if taken, err := Claim(disk.OS{}, dir, a, "/a", ids(0, 1)); err != nil || len(taken) != 0 {
				t.Errorf("%d are taken, %v", len(taken), err)
			}
		}}
		taken, err := Claim(first, dir, b, "/b", ids(0, n))
		if err != nil || len(taken) != 1 || taken[ids(0, 1)[0]] != "/a" {
			t.Errorf("%d at once: %v, %v", n, taken, err)
		}
	}
}

// between does something before a line is appended.
type between struct {
	disk.OS
	do func()
}

func (b *between) Append(name string) (disk.File, error) {
	b.do()
	return b.OS.Append(name)
}
