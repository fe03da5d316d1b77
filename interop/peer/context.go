package peer

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Context is a security context as both sides share it. IDs are named by the
// party, not by the direction.
type Context struct {
	Secret    []byte
	Salt      []byte
	ClientID  []byte
	ServerID  []byte
	IDContext []byte // nil: none
	AEAD      int    // COSE number
	// HKDF is the COSE number of the HMAC-based KDF, -10 SHA-256, -11 SHA-512;
	// for SHA-384, which has none, that of the HMAC: 6.
	HKDF int
	// OmitKIDContext leaves the ID Context out of requests.
	OmitKIDContext bool
}

// Interop gives the interop specification's contexts: AB without an ID
// Context (RFC 8613 C.1), CD with one (C.3's).
func Interop(withIDContext bool) Context {
	c := Context{
		Secret:   []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		Salt:     []byte{0x9e, 0x7c, 0xa9, 0x22, 0x23, 0x78, 0x63, 0x40},
		ClientID: []byte{},
		ServerID: []byte{1},
		AEAD:     10,
		HKDF:     -10,
	}
	if withIDContext {
		c.IDContext = []byte{0x37, 0xcb, 0xf3, 0x21, 0x00, 0x17, 0xa2, 0xd3}
	}
	return c
}

// words gives the context as --key=value or key=value arguments.
func (c Context) words(prefix string, client bool) []string {
	own, other := c.ServerID, c.ClientID
	if client {
		own, other = other, own
	}
	w := []string{
		prefix + "secret=" + hex.EncodeToString(c.Secret),
		prefix + "salt=" + hex.EncodeToString(c.Salt),
		prefix + "sid=" + hex.EncodeToString(own),
		prefix + "rid=" + hex.EncodeToString(other),
		prefix + "alg=" + strconv.Itoa(c.AEAD),
		prefix + "hkdf=" + strconv.Itoa(c.HKDF),
	}
	if c.IDContext != nil {
		w = append(w, prefix+"idctx="+hex.EncodeToString(c.IDContext))
	}
	if c.OmitKIDContext && client {
		w = append(w, prefix+"omit-kidctx=1")
	}
	return w
}

// aiocoap's names of the COSE numbers.
var (
	aiocoapAEADs = map[int]string{
		1: "A128GCM", 2: "A192GCM", 3: "A256GCM",
		10: "AES-CCM-16-64-128", 11: "AES-CCM-16-64-256", 12: "AES-CCM-64-64-128", 13: "AES-CCM-64-64-256",
		24: "ChaCha20/Poly1305",
		30: "AES-CCM-16-128-128", 31: "AES-CCM-16-128-256", 32: "AES-CCM-64-128-128", 33: "AES-CCM-64-128-256",
	}
	aiocoapHashes = map[int]string{-10: "sha256", 6: "sha384", -11: "sha512"}
)

// WriteAiocoap writes the context directory of one side as aiocoap wants it.
// sequence.json is aiocoap's own affair.
func (c Context) WriteAiocoap(t testing.TB, dir string, client bool) {
	t.Helper()
	own, other := c.ServerID, c.ClientID
	if client {
		own, other = other, own
	}
	alg, hash := aiocoapAEADs[c.AEAD], aiocoapHashes[c.HKDF]
	if alg == "" || hash == "" {
		t.Fatalf("aiocoap has no AEAD %d or no HKDF %d", c.AEAD, c.HKDF)
	}
	settings := map[string]any{
		"sender-id_hex": hex.EncodeToString(own), "recipient-id_hex": hex.EncodeToString(other),
		"algorithm": alg, "kdf-hashfun": hash, "window": 32,
	}
	if c.IDContext != nil {
		settings["id-context_hex"] = hex.EncodeToString(c.IDContext)
	}
	secret := map[string]string{
		"secret_hex": hex.EncodeToString(c.Secret), "salt_hex": hex.EncodeToString(c.Salt),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeJSON(t, filepath.Join(dir, "settings.json"), settings)
	writeJSON(t, filepath.Join(dir, "secret.json"), secret)
}

// WriteTshark writes the context into a fresh tshark profile and gives the
// folder for WIRESHARK_CONFIG_DIR.
func (c Context) WriteTshark(t testing.TB) string {
	t.Helper()
	if c.AEAD != 10 {
		t.Fatalf("the name that tshark has for AEAD %d is not known here", c.AEAD)
	}
	dir := t.TempDir()
	line := fmt.Sprintf("\"%x\",\"%x\",\"%x\",\"%x\",\"%x\",\"AES-CCM-16-64-128 (CCM*)\"\n",
		c.ClientID, c.ServerID, c.Secret, c.Salt, c.IDContext)
	if err := os.WriteFile(filepath.Join(dir, "oscore_contexts"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeJSON(t testing.TB, file string, v any) {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// leshan gives the context as Leshan's programs take it.
func (c Context) leshan(client bool) string {
	own, other := c.ServerID, c.ClientID
	if client {
		own, other = other, own
	}
	return fmt.Sprintf("%x,%x,%x,%x,%d,%d", c.Secret, c.Salt, own, other, c.AEAD, c.HKDF)
}
