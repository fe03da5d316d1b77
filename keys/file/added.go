package file

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/disk"
	"github.com/oscorelay/oscorelay/keys/internal/vault"
)

// Beside the key file stands, while a process that takes handshakes has the
// directory open, a file of changes to it: a line of JSON, and a line for each
// change, base64 of nonce and ciphertext. The key file is written as a whole,
// with the changes, by the next Open or Close or when they are many; changes to
// an earlier key file than the one that stands beside them count for nothing.
const (
	addedFormat    = "oscorelay keys added 1"
	addedSealedFor = "oscorelay keys added"

	changePut, changeRemove = '+', '-'

	// minChanges is how many changes are appended at least before the key file
	// is written: else as many as there are entries.
	minChanges = 256
)

type addedHead struct {
	Format string `json:"format"`
	Salt   []byte `json:"salt"`
	Of     []byte `json:"of"` // SHA-256 of the key file
}

// added is the open file of changes.
type added struct {
	f    disk.File
	aead cipher.AEAD
	n    int // changes in it
}

func (st *Store) addedName() string { return st.keysName() + ".added" }

// PutSession puts an entry into the key file, in place of one of the same name,
// by appending: for contexts that come and go with handshakes. Its material is
// such as nobody ever used, and its keyring knows that it stands in no other's
// way: that is not checked again.
func (st *Store) PutSession(ctx context.Context, e keys.Entry) error {
	if err := e.Check(); err != nil {
		return err
	}
	st.entriesMu.Lock()
	defer st.entriesMu.Unlock()
	e = e.Clone()
	sender, _, err := keys.Identities(&e.Params)
	if err != nil {
		return err
	}
	if st.Known(ctx, sender[:]) != nil { // the keyring has declared it
		if err := st.declare([]keys.Entry{e}); err != nil {
			return err
		}
	}
	all := slices.Clone(st.entries)
	if i := indexOf(all, e.Name); i >= 0 {
		all[i] = e
	} else {
		all = append(all, e)
	}
	plain := vault.AppendEntry(nil, &e)
	defer clear(plain)
	return st.change(changePut, plain, all)
}

// RemoveSession takes an entry out of the key file as PutSession put it in. Its
// numbers stay, until they are forgotten.
func (st *Store) RemoveSession(name string) error {
	st.entriesMu.Lock()
	defer st.entriesMu.Unlock()
	i := indexOf(st.entries, name)
	if i < 0 {
		return fmt.Errorf("%w: %q in %s", keys.ErrNotFound, name, st.dir)
	}
	return st.change(changeRemove, []byte(name), slices.Delete(slices.Clone(st.entries), i, i+1))
}

func indexOf(entries []keys.Entry, name string) int {
	return slices.IndexFunc(entries, func(e keys.Entry) bool { return e.Name == name })
}

// change makes a change durable, by which the entries become all. The caller
// holds st.entriesMu.
func (st *Store) change(kind byte, plain []byte, all []keys.Entry) error {
	st.mu.Lock()
	err := st.err
	st.mu.Unlock()
	if err != nil {
		return err
	}
	if st.merge || st.added != nil && st.added.n >= max(minChanges, len(all)) {
		return st.writeEntries(all)
	}
	if st.added == nil {
		if st.added, err = st.beginAdded(); err != nil { // there is no key file yet, for one
			return st.writeEntries(all)
		}
	}
	sealed := append([]byte{kind}, plain...)
	defer clear(sealed)
	if err := st.added.append(sealed); err != nil {
		st.merge = true // nothing may follow what was cut short
		return st.writeEntries(all)
	}
	st.entries = all
	return nil
}

// mergeAdded writes the key file if there are changes beside it.
func (st *Store) mergeAdded() error {
	st.entriesMu.Lock()
	defer st.entriesMu.Unlock()
	if st.added == nil {
		return nil
	}
	st.mu.Lock()
	err := st.err
	st.mu.Unlock()
	if err != nil {
		return nil // the changes stay where they are
	}
	return st.writeEntries(st.entries)
}

// beginAdded makes the file of changes to the key file as it is.
func (st *Store) beginAdded() (*added, error) {
	b, err := st.fsys.ReadFile(st.keysName())
	if err != nil {
		return nil, err
	}
	of := sha256.Sum256(b)
	head := addedHead{Format: addedFormat, Salt: make([]byte, 32), Of: of[:]}
	_, _ = rand.Read(head.Salt) // never fails (crypto/rand)
	a := new(added)
	if a.aead, err = vault.Cipher(st.root, head.Salt, addedSealedFor); err != nil {
		return nil, err
	}
	line, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	if err = disk.Replace(st.fsys, st.addedName(), append(line, '\n')); err != nil {
		return nil, err
	}
	if a.f, err = st.fsys.Append(st.addedName()); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *added) append(plain []byte) error {
	var nonce [12]byte
	_, _ = rand.Read(nonce[:]) // never fails (crypto/rand)
	box := a.aead.Seal(nonce[:], nonce[:], plain, addedPlace(a.n))
	a.n++
	if _, err := a.f.Write(append(base64.StdEncoding.AppendEncode(nil, box), '\n')); err != nil {
		return err
	}
	return a.f.Sync()
}

// addedPlace is what is authenticated of where a change stands.
func addedPlace(i int) []byte { return fmt.Appendf(nil, "%s %d", addedFormat, i+1) }

// dropAdded takes the file of changes away, now that the key file beside it is
// another, which has them: if it stays it counts for nothing.
func (st *Store) dropAdded() {
	if st.added != nil {
		_ = st.added.f.Close()
	}
	if st.added != nil || st.merge {
		_ = st.fsys.Remove(st.addedName())
	}
	st.added, st.merge = nil, false
}

// loadAdded applies the changes to the key file whose bytes are given, and
// reports whether there are any.
func (st *Store) loadAdded(keyFile []byte) (any bool, err error) {
	name := st.addedName()
	b, err := st.fsys.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("keys/file: %w", err)
	}
	lines := bytes.Split(b, []byte{'\n'})
	lines = lines[:len(lines)-1] // what a crash cut short was never acknowledged
	var head addedHead
	if len(lines) == 0 || json.Unmarshal(lines[0], &head) != nil || head.Format != addedFormat {
		return false, fmt.Errorf("keys/file: %s:1: not a file of changes of this version (%q expected); without it the peers of the last handshakes must shake hands anew", name, addedFormat)
	}
	if of := sha256.Sum256(keyFile); !bytes.Equal(of[:], head.Of) {
		return false, nil
	}
	aead, err := vault.Cipher(st.root, head.Salt, addedSealedFor)
	if err != nil {
		return false, err
	}
	for i, line := range lines[1:] {
		if err := st.applyAdded(aead, i, line); err != nil {
			if i == len(lines)-2 {
				break // the last, cut short under its newline
			}
			return false, fmt.Errorf("keys/file: %s:%d: %w", name, i+2, err)
		}
	}
	return len(lines) > 1, nil
}

func (st *Store) applyAdded(aead cipher.AEAD, i int, line []byte) error {
	box, err := base64.StdEncoding.AppendDecode(nil, line)
	if err != nil || len(box) < aead.NonceSize() {
		return errors.New("not base64; restore the directory from a backup, or remove the file: the peers of the last handshakes must shake hands anew then")
	}
	plain, err := aead.Open(nil, box[:aead.NonceSize()], box[aead.NonceSize():], addedPlace(i))
	if err != nil || len(plain) == 0 {
		return errors.New("the root key does not open this change: it is another root key, or the file was changed")
	}
	defer clear(plain)
	switch plain[0] {
	case changePut:
		e, err := vault.ParseEntry(plain[1:])
		if err != nil {
			return err
		}
		if at := indexOf(st.entries, e.Name); at >= 0 {
			st.entries[at] = e
		} else {
			st.entries = append(st.entries, e)
		}
	case changeRemove:
		if at := indexOf(st.entries, string(plain[1:])); at >= 0 {
			st.entries = slices.Delete(st.entries, at, at+1)
		}
	default:
		return fmt.Errorf("change of an unknown kind %q", plain[0])
	}
	return nil
}
