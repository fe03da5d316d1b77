package vault

import (
	"errors"
	"reflect"
	"testing"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

func samples() []keys.Entry {
	return []keys.Entry{
		{Name: "plain", Params: oscore.Params{MasterSecret: []byte("0123456789abcdef"), SenderID: []byte{1}, RecipientID: []byte{2}}},
		{Name: "everything", Notes: "two\nlines", Params: oscore.Params{
			MasterSecret: []byte{1}, MasterSalt: []byte{2}, IDContext: []byte{}, RecipientID: []byte{3, 4},
			AEAD: oscore.ChaCha20Poly1305, HKDF: oscore.HKDFSHA384, WindowSize: 1024, OmitKIDContext: true,
		}, Settings: oscore.Settings{Rederive: oscore.RoleClient | oscore.RoleServer, RederiveOnStart: true, NoEcho: true, MaxUnfragmented: 512}},
		{Params: oscore.Params{MasterSecret: make([]byte, 300), IDContext: []byte("context")}},
	}
}

func TestEntry(t *testing.T) {
	for _, want := range samples() {
		b := AppendEntry([]byte{9}, &want)[1:]
		got, err := ParseEntry(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
		for n := range b {
			if _, err := ParseEntry(b[:n]); !errors.Is(err, ErrEntry) {
				t.Errorf("%d of %d bytes: %v", n, len(b), err)
			}
		}
		for _, other := range [][]byte{append([]byte{2}, b[1:]...), append(b[:len(b):len(b)], 0), []byte(`{"name":"x"}`)} {
			if _, err := ParseEntry(other); !errors.Is(err, ErrEntry) {
				t.Errorf("%x: %v", other, err)
			}
		}
	}
}

func FuzzEntry(f *testing.F) {
	for _, e := range samples() {
		f.Add(AppendEntry(nil, &e))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEntry(b)
		if err != nil {
			return
		}
		if again, err := ParseEntry(AppendEntry(nil, &e)); err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%+v, %v, was %+v", again, err, e)
		}
	})
}
