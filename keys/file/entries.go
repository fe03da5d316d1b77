package file

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/vault"
)

// The key file is a line of JSON that says what it is, and a line for each entry:
// base64 of nonce and ciphertext.
const (
	keysFormat = "oscorelay keys 2"
	sealedFor  = "oscorelay keys file"
)

type keysHead struct {
	Format string `json:"format"`
	Salt   []byte `json:"salt"`
	Count  int    `json:"count"`
}

// encodeEntries seals entries under the root key.
func encodeEntries(root []byte, entries []keys.Entry) ([]byte, error) {
	head := keysHead{Format: keysFormat, Salt: make([]byte, 32), Count: len(entries)}
	_, _ = rand.Read(head.Salt) // never fails (crypto/rand)
	aead, err := vault.Cipher(root, head.Salt, sealedFor)
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
		plain := vault.AppendEntry(nil, &entries[i])
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
	aead, err := vault.Cipher(root, head.Salt, sealedFor)
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
		e, err := vault.ParseEntry(plain)
		clear(plain)
		if err != nil {
			return nil, fmt.Errorf("keys/file: %s:%d: %w", name, i+2, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}
