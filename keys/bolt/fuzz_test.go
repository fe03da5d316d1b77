package bolt

import (
	"bytes"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// FuzzRecords: what a damaged or foreign file may hold is refused or read, and
// what is read is written the same.
func FuzzRecords(f *testing.F) {
	id := keys.Identity{1, 2, 3}
	h := head{offset: 3 * K, line: 2, windows: 5}
	w := oscore.FromEcho(64, 7)
	s, _ := w.State()
	key, err := journalKey(Exchange{"server", 7, []byte{1}})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{h.encode(), numbers{5, K, 2}.encode(id), encodeWindow(5, s), key} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHead(b); err == nil && !bytes.Equal(h.encode(), b) {
			t.Errorf("head %+v", h)
		}
		if n, err := decodeNumbers(id, b); err == nil && !bytes.Equal(n.encode(id), b) {
			t.Errorf("numbers %+v", n)
		}
		if w, ok := decodeWindow(b, 5); ok && !bytes.Equal(encodeWindow(5, w), b) {
			t.Errorf("window %+v", w)
		}
		if x, err := parseJournalKey(b); err == nil && len(x.Peer) <= keys.MaxName && len(x.Token) <= 8 {
			if again, err := journalKey(x); err != nil || !bytes.Equal(again, b) {
				t.Errorf("journal key %+v", x)
			}
		}
	})
}
