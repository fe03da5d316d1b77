package file

import (
	"bytes"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/anchor"
	"github.com/oscorelay/oscorelay/keys/internal/disk/disktest"
	"github.com/oscorelay/oscorelay/oscore"
)

// stateSeed is a state with a record of each kind.
func stateSeed() []byte {
	s := newState(anchor.UUID{1})
	s.epoch = 3
	id, other := keys.Identity{1}, keys.Identity{2}
	s.reasons[1] = "because"
	s.ids[id], s.ids[other] = history{next: 7}, history{next: 9, taint: 1}
	s.derived[id] = derived{other, []byte("context")}
	w := oscore.FromEcho(100, 5)
	s.windows[id], _ = w.State()
	b := s.encode(4, func(keys.Identity) bool { return true })
	at := len(b)
	b = beginFrame(b, 5)
	b = appendTaken(appendForget(appendNumbers(b, id, 8), other), id)
	endFrame(b, at)
	return b
}

// FuzzState: what is read can be written, and is then read as the same.
func FuzzState(f *testing.F) {
	f.Add(stateSeed())
	f.Add(stateSeed()[:headerLen+30])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, valid, err := readState("state", b)
		if err != nil {
			return
		}
		if valid > len(b) {
			t.Fatalf("%d of %d bytes are valid", valid, len(b))
		}
		again := s.encode(s.frames, func(keys.Identity) bool { return true })
		s2, valid, err := readState("state", again)
		if err != nil || valid != len(again) {
			t.Fatalf("written anew: %v, %d of %d", err, valid, len(again))
		}
		if third := s2.encode(s2.frames, func(keys.Identity) bool { return true }); !bytes.Equal(again, third) {
			t.Fatal("not the same after a second reading")
		}
	})
}

// FuzzRecords does without the checksum, which keeps a fuzzer out.
func FuzzRecords(f *testing.F) {
	f.Add(stateSeed()[headerLen+frameHead:])
	f.Fuzz(func(t *testing.T, records []byte) {
		b := beginFrame(appendHeader(nil, anchor.UUID{1}), 1)
		b = append(b, records...)
		endFrame(b, headerLen)
		s, _, err := readState("state", b)
		if err != nil {
			return
		}
		again := s.encode(1, func(keys.Identity) bool { return true })
		s2, _, err := readState("state", again)
		if err != nil {
			t.Fatal(err)
		}
		for id, h := range s.ids {
			if s2.ids[id] != h {
				t.Fatalf("%v became %v", h, s2.ids[id])
			}
		}
		for _, w := range s.windows {
			oscore.Restore(w) // refuses what does not hold together
		}
	})
}

// FuzzFiles opens a directory whose files are anything.
func FuzzFiles(f *testing.F) {
	m := disktest.New()
	st, err := open(m, dir, opts)
	if err != nil {
		f.Fatal(err)
	}
	mustPut(f, st, true, "a")
	mustClose(f, st)
	read := func(name string) []byte {
		b, err := m.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	name := anchor.Name(opts.AnchorDir, st.s.store)
	f.Add(read("/store/keys"), read("/store/state"), read(name))
	root := read("/store/root.key")
	f.Fuzz(func(t *testing.T, k, s, a []byte) {
		m := disktest.New()
		m.WriteFile("/store/root.key", root)
		m.WriteFile("/store/keys", k)
		m.WriteFile("/store/state", s)
		m.WriteFile(name, a)
		if _, err := readView(m, dir, opts); err != nil {
			return
		}
		st, err := open(m, dir, opts)
		if err != nil {
			return
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
