package file

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
	"github.com/oscorelay/oscorelay/keys/internal/disk/disktest"
)

// session is an entry as handshakes make them: a name again and again, always
// with other keys.
func session(name string, n int) keys.Entry {
	e := demo(name)
	e.Params.MasterSecret = []byte(fmt.Sprintf("%-8s%08d", name, n))
	e.Notes = fmt.Sprint(n)
	return e
}

// notes are the entries by name, told by their notes.
func notes(entries []keys.Entry) map[string]string {
	m := map[string]string{}
	for _, e := range entries {
		m[e.Name] = e.Notes
	}
	return m
}

func putSession(t testing.TB, st *Store, name string, n int) {
	t.Helper()
	if err := st.PutSession(ctx, session(name, n)); err != nil {
		t.Fatal(err)
	}
}

func has(m *disktest.Mem, suffix string) bool {
	return slices.ContainsFunc(m.Names(), func(n string) bool { return strings.HasSuffix(n, suffix) })
}

// TestSessions: contexts of handshakes are there after a clean stop, after a
// crash, and for who reads the directory meanwhile, and the key file is not
// written for each of them.
func TestSessions(t *testing.T) {
	m := disktest.New()
	st := mustOpen(t, m)
	mustPut(t, st, true, "a")
	want := map[string]string{"a": demo("a").Notes}
	before, err := m.ReadFile(st.keysName())
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		name := fmt.Sprint("d", n%7)
		putSession(t, st, name, n)
		want[name] = fmt.Sprint(n)
	}
	if err := st.RemoveSession("d3"); err != nil {
		t.Fatal(err)
	}
	delete(want, "d3")
	if err := st.RemoveSession("d3"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if after, err := m.ReadFile(st.keysName()); err != nil || string(after) != string(before) {
		t.Errorf("the key file was written: %v", err)
	}
	if got := notes(st.Entries()); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	view, err := readView(m, dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(view.Entries) != len(want) {
		t.Errorf("%d entries are read, want %d", len(view.Entries), len(want))
	}
	crashed := mustOpen(t, m.Kill())
	if got := notes(crashed.Entries()); !maps.Equal(got, want) || crashed.Taint() != "" {
		t.Errorf("after a crash %v, want %v; %s", got, want, crashed.Taint())
	}
	if has(crashed.fsys.(*disktest.Mem), ".added") {
		t.Error("the changes are still beside the key file")
	}
	mustClose(t, st)
	if has(m, ".added") {
		t.Error("the changes stay after a clean stop")
	}
	again := mustOpen(t, m)
	if got := notes(again.Entries()); !maps.Equal(got, want) {
		t.Errorf("after a stop %v, want %v", got, want)
	}
	putSession(t, again, "d3", 500)
	mustPut(t, again, true, "b") // writes the key file, with the change
	if has(m, ".added") || notes(again.Entries())["d3"] != "500" {
		t.Error("the key file has not taken the changes up")
	}
	// Many changes are merged, so that the file does not grow for ever.
	for n := range 2 * minChanges {
		putSession(t, again, "d1", 1000+n)
	}
	b, err := m.ReadFile(again.addedName())
	if err != nil || strings.Count(string(b), "\n") > minChanges+1 {
		t.Errorf("%d changes, %v", strings.Count(string(b), "\n")-1, err)
	}
}

// TestSessionsDamaged: changes to another key file count for nothing; what was
// changed in the middle is found.
func TestSessionsDamaged(t *testing.T) {
	m := disktest.New()
	st := mustOpen(t, m)
	mustPut(t, st, true, "a")
	for n := range 3 {
		putSession(t, st, "d", n)
	}
	b, err := m.ReadFile(st.addedName())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(b), "\n")
	for _, c := range []struct {
		name, content string
		want          string // part of the error; empty: opens with notes
		notes         string
	}{
		{"cut short", lines[0] + lines[1] + lines[2][:30], "", "0"},
		{"cut short under its newline", lines[0] + lines[1] + lines[2][:30] + "\n", "", "0"},
		{"head alone", lines[0], "", ""},
		{"changed in the middle", lines[0] + "A" + lines[1][1:] + lines[2] + lines[3], "keys.added:2: ", ""},
		{"one left out", lines[0] + lines[2] + lines[3], "keys.added:2: the root key does not open", ""},
		{"no head", "junk\n" + lines[1], "keys.added:1: not a file of changes", ""},
		{"empty", "", "keys.added:1: not a file of changes", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := m.Kill()
			m.WriteFile(st.addedName(), []byte(c.content))
			st, err := open(m, dir, opts)
			switch {
			case c.want != "":
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
			case err != nil:
				t.Error(err)
			case notes(st.Entries())["d"] != c.notes:
				t.Errorf("%v, want %q", notes(st.Entries()), c.notes)
			}
		})
	}
	other := m.Kill()
	mustClose(t, mustOpen(t, other))
	o := mustOpen(t, other)
	mustPut(t, o, true, "b")
	mustClose(t, o)
	other.WriteFile(st.addedName(), b)
	if got := notes(mustOpen(t, other).Entries()); got["d"] != "2" || len(got) != 3 {
		t.Errorf("%v", got)
	}
}

// TestSessionsCrash: whatever fails, at whatever step, what was acknowledged is
// there when the store is opened again, and no store is left that does not open.
func TestSessionsCrash(t *testing.T) {
	type acknowledged struct{ sure map[string]string }
	life := func(fsys disk.FS, a *acknowledged) error {
		st, err := open(fsys, dir, opts)
		if err != nil {
			return err
		}
		defer st.locks.Release()
		for n := range 4 {
			name := fmt.Sprint("d", n%2)
			if err := st.PutSession(ctx, session(name, n)); err == nil {
				a.sure[name] = fmt.Sprint(n)
			} else if a.sure[name] == "" {
				a.sure[name] = "?" // there or not
			} else {
				a.sure[name] += "|" + fmt.Sprint(n)
			}
		}
		return st.Close()
	}
	steps := 0
	for _, f := range []disktest.Fault{disktest.IO, disktest.Full, disktest.Flush, disktest.Power} {
		for o := range disktest.Outcomes {
			for n := 1; ; n++ {
				m := disktest.New()
				st := mustOpen(t, m)
				mustPut(t, st, true, "a")
				mustClose(t, st)
				m.Arm(n, f)
				a := &acknowledged{sure: map[string]string{}}
				_ = life(m, a)
				if m.Steps() < n {
					break // beyond the last step
				}
				steps++
				again, err := open(m.Restart(o), dir, opts)
				if err != nil {
					t.Fatalf("fault %v at step %d, outcome %v: %v", f, n, o, err)
				}
				got := notes(again.Entries())
				for name, want := range a.sure {
					if !strings.HasPrefix(want, "?") && !slices.Contains(strings.Split(want, "|"), got[name]) {
						t.Fatalf("fault %v at step %d, outcome %v: %q is %q, want %q", f, n, o, name, got[name], want)
					}
				}
			}
		}
	}
	t.Logf("%d faults", steps)
}
