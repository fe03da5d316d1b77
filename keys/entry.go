package keys

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/oscorelay/oscorelay/oscore"
)

// Entry is what is configured for one peer. It holds no sequence number: those
// live in a store, so that restoring or copying settings never rolls them back.
type Entry struct {
	Name     string // unique; no secret
	Params   oscore.Params
	Settings oscore.Settings
	Notes    string // for people
}

// MaxName is the longest name, in bytes.
const MaxName = 128

// Check returns an error that names the field which is wrong, or nil.
func (e *Entry) Check() error {
	if err := checkName(e.Name); err != nil {
		return err
	}
	if err := e.Params.Check(); err != nil {
		return fmt.Errorf("keys: entry %q: %w", e.Name, err)
	}
	if e.Settings.Rederive&^(oscore.RoleClient|oscore.RoleServer) != 0 {
		return fmt.Errorf("keys: entry %q: unknown role in Rederive", e.Name)
	}
	return nil
}

// Clone returns a deep copy.
func (e *Entry) Clone() Entry {
	c := *e
	c.Params = e.Params.Clone()
	return c
}

// Peer returns the entry that the other end holds: the IDs change places, and
// so do the roles of Appendix B.2.
func (e *Entry) Peer() Entry {
	p := e.Clone()
	p.Params = p.Params.Swap()
	p.Settings.Rederive = 0
	if e.Settings.Rederive&oscore.RoleClient != 0 {
		p.Settings.Rederive |= oscore.RoleServer
	}
	if e.Settings.Rederive&oscore.RoleServer != 0 {
		p.Settings.Rederive |= oscore.RoleClient
	}
	p.Settings.RederiveOnStart = false
	return p
}

func checkName(name string) error {
	if name == "" || len(name) > MaxName || !utf8.ValidString(name) {
		return fmt.Errorf("%w: %q (1 to %d bytes of UTF-8)", ErrName, name, MaxName)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) || r == '/' || r == '\\' {
			return fmt.Errorf("%w: %q holds %q", ErrName, name, r)
		}
	}
	return nil
}

// Identity is the fingerprint of one direction of a security context: of its
// key, its Common IV, its algorithm and the ID in its nonces. Two contexts that
// could ever use one nonce under one key have one identity, however their
// parameters are written down. It tells the key to nobody, but whoever guesses a
// weak master secret can confirm the guess by it.
type Identity [16]byte

// String returns the identity in hexadecimal.
func (i Identity) String() string { return hex.EncodeToString(i[:]) }

// Identities returns the identities of both directions: sequence numbers belong
// to the sender's, replay windows to the recipient's. The peer's are the same
// two in the other order.
func Identities(p *oscore.Params) (sender, recipient Identity, err error) {
	k, err := p.Derive()
	if err != nil {
		return sender, recipient, err
	}
	sender = identity(p.AEAD, k.SenderKey, k.CommonIV, p.SenderID)
	recipient = identity(p.AEAD, k.RecipientKey, k.CommonIV, p.RecipientID)
	clear(k.SenderKey)
	clear(k.RecipientKey)
	return sender, recipient, nil
}

func identity(alg oscore.AEAD, key oscore.Secret, commonIV, id []byte) (out Identity) {
	h := sha256.New()
	for _, b := range [][]byte{[]byte("oscorelay identity 1"), []byte(alg.String()), key, commonIV, id} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	copy(out[:], h.Sum(nil))
	return out
}
