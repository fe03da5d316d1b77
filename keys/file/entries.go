package file

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
	"github.com/oscorelay/oscorelay/oscore"
)

// The key file is a line of JSON that says what it is, and a line for each entry:
// base64 of nonce and ciphertext.
const keysFormat = "oscorelay keys 1"

type keysHead struct {
	Format string `json:"format"`
	Salt   []byte `json:"salt"`
	Count  int    `json:"count"`
}

// sealed is an entry as it stands under the seal.
type sealed struct {
	Name            string `json:"name"`
	Secret          []byte `json:"secret"`
	Salt            []byte `json:"salt,omitempty"`
	IDContext       []byte `json:"id_context,omitempty"`
	HasIDContext    bool   `json:"has_id_context,omitempty"` // an empty one is not an absent one
	SenderID        []byte `json:"sender_id"`
	RecipientID     []byte `json:"recipient_id"`
	AEAD            int    `json:"aead,omitempty"`
	HKDF            int    `json:"hkdf,omitempty"`
	Window          int    `json:"window,omitempty"`
	OmitKIDContext  bool   `json:"omit_kid_context,omitempty"`
	Rederive        int    `json:"rederive,omitempty"`
	RederiveOnStart bool   `json:"rederive_on_start,omitempty"`
	NoEcho          bool   `json:"no_echo,omitempty"`
	MaxUnfragmented int    `json:"max_unfragmented,omitempty"`
	Notes           string `json:"notes,omitempty"`
}

func toSealed(e *keys.Entry) sealed {
	p, s := &e.Params, &e.Settings
	return sealed{
		Name: e.Name, Secret: p.MasterSecret, Salt: p.MasterSalt, IDContext: p.IDContext, HasIDContext: p.IDContext != nil,
		SenderID: p.SenderID, RecipientID: p.RecipientID, AEAD: int(p.AEAD), HKDF: int(p.HKDF), Window: p.WindowSize,
		OmitKIDContext: p.OmitKIDContext, Rederive: int(s.Rederive), RederiveOnStart: s.RederiveOnStart, NoEcho: s.NoEcho,
		MaxUnfragmented: s.MaxUnfragmented, Notes: e.Notes,
	}
}

func (s *sealed) entry() keys.Entry {
	e := keys.Entry{
		Name: s.Name, Notes: s.Notes,
		Params: oscore.Params{
			MasterSecret: s.Secret, MasterSalt: s.Salt, IDContext: s.IDContext, SenderID: s.SenderID, RecipientID: s.RecipientID,
			AEAD: oscore.AEAD(s.AEAD), HKDF: oscore.HKDF(s.HKDF), WindowSize: s.Window, OmitKIDContext: s.OmitKIDContext,
		},
		Settings: oscore.Settings{
			Rederive: oscore.Role(s.Rederive), RederiveOnStart: s.RederiveOnStart, NoEcho: s.NoEcho, MaxUnfragmented: s.MaxUnfragmented,
		},
	}
	if s.HasIDContext && e.Params.IDContext == nil {
		e.Params.IDContext = []byte{}
	}
	return e
}

// encodeEntries seals entries under the root key.
func encodeEntries(root []byte, entries []keys.Entry) ([]byte, error) {
	head := keysHead{Format: keysFormat, Salt: make([]byte, 32), Count: len(entries)}
	_, _ = rand.Read(head.Salt) // never fails (crypto/rand)
	aead, err := fileCipher(root, head.Salt)
	if err != nil {
		return nil, err
	}
	out, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	out = append(out, '\n')
	var nonce [12]byte
	for i := range entries {
		plain, err := json.Marshal(toSealed(&entries[i]))
		if err != nil {
			return nil, err
		}
		_, _ = rand.Read(nonce[:])
		box := aead.Seal(append([]byte(nil), nonce[:]...), nonce[:], plain, place(i, len(entries)))
		clear(plain)
		out = base64.StdEncoding.AppendEncode(out, box)
		out = append(out, '\n')
	}
	return out, nil
}

// place is what is authenticated of where an entry stands.
func place(i, of int) []byte { return fmt.Appendf(nil, "%s %d/%d", keysFormat, i+1, of) }

func fileCipher(root, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, root, salt, "oscorelay keys file", 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// decodeEntries opens a key file.
func decodeEntries(name string, root, b []byte) ([]keys.Entry, error) {
	lines := bytes.Split(bytes.TrimSuffix(b, []byte{'\n'}), []byte{'\n'})
	var head keysHead
	if err := json.Unmarshal(lines[0], &head); err != nil || head.Format != keysFormat {
		return nil, fmt.Errorf("keys/file: %s:1: not a key file of this version (%q expected)", name, keysFormat)
	}
	lines = lines[1:]
	if len(lines) != head.Count {
		return nil, fmt.Errorf("keys/file: %s: %d entries where %d are announced: the file was cut or edited; restore it from a backup (numbers are not in it)",
			name, len(lines), head.Count)
	}
	aead, err := fileCipher(root, head.Salt)
	if err != nil {
		return nil, err
	}
	entries := make([]keys.Entry, 0, len(lines))
	for i, line := range lines {
		box, err := base64.StdEncoding.AppendDecode(nil, line)
		if err != nil || len(box) < aead.NonceSize() {
			return nil, fmt.Errorf("keys/file: %s:%d: not base64; restore the file from a backup (numbers are not in it)", name, i+2)
		}
		plain, err := aead.Open(nil, box[:aead.NonceSize()], box[aead.NonceSize():], place(i, head.Count))
		if err != nil {
			return nil, fmt.Errorf("keys/file: %s:%d: the root key does not open this entry: it is another root key, or the file was changed", name, i+2)
		}
		var s sealed
		err = json.Unmarshal(plain, &s)
		clear(plain)
		if err != nil {
			return nil, fmt.Errorf("keys/file: %s:%d: unreadable entry", name, i+2)
		}
		entries = append(entries, s.entry())
	}
	return entries, nil
}

// readRootKey reads the root key, or makes one if there is no key file that it
// would have to open.
func readRootKey(fsys disk.FS, name string, create bool) ([]byte, error) {
	mode, err := fsys.Mode(name)
	if errors.Is(err, fs.ErrNotExist) {
		if !create {
			return nil, fmt.Errorf("keys/file: the root key %s is missing, without it the key file cannot be read: put it back", name)
		}
		root := make([]byte, 32)
		_, _ = rand.Read(root) // never fails (crypto/rand)
		return root, disk.Replace(fsys, name, []byte(hex.EncodeToString(root)+"\n"))
	}
	if err != nil {
		return nil, fmt.Errorf("keys/file: root key: %w", err)
	}
	if perm := mode.Perm(); perm&0o077 != 0 && checkModes {
		return nil, fmt.Errorf("keys/file: the root key %s can be read by others (mode %04o): chmod 600 it, and consider its keys known", name, perm)
	}
	b, err := fsys.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("keys/file: root key: %w", err)
	}
	root, err := hex.DecodeString(string(bytes.TrimSpace(b)))
	if err != nil || len(root) != 32 {
		return nil, fmt.Errorf("keys/file: the root key %s is not 64 hexadecimal digits", name)
	}
	return root, nil
}
