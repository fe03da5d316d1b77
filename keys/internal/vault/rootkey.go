package vault

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/oscorelay/oscorelay/keys/internal/disk"
)

// RootKey reads the root key, or makes one if there is nothing that it
// would have to open.
func RootKey(fsys disk.FS, name string, create bool) ([]byte, error) {
	mode, err := fsys.Mode(name)
	if errors.Is(err, fs.ErrNotExist) {
		if !create {
			return nil, fmt.Errorf("the root key %s is missing, without it the keys cannot be read: put it back", name)
		}
		root := make([]byte, 32)
		_, _ = rand.Read(root) // never fails (crypto/rand)
		return root, disk.Replace(fsys, name, []byte(hex.EncodeToString(root)+"\n"))
	}
	if err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	if perm := mode.Perm(); perm&0o077 != 0 && checkModes {
		return nil, fmt.Errorf("the root key %s can be read by others (mode %04o): chmod 600 it, and consider its keys known", name, perm)
	}
	b, err := fsys.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	root, err := hex.DecodeString(string(bytes.TrimSpace(b)))
	if err != nil || len(root) != 32 {
		return nil, fmt.Errorf("the root key %s is not 64 hexadecimal digits", name)
	}
	return root, nil
}

// Cipher returns AES-256-GCM under a key derived from the root key for one use,
// which a salt of its own tells from the others.
func Cipher(root, salt []byte, use string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, root, salt, use, 32)
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
