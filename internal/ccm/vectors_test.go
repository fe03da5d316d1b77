package ccm

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/oscorelay/oscorelay/testvectors"
)

// hexBytes is a byte string that JSON holds as hex.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(raw []byte) error {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	b, err := hex.DecodeString(s)
	*h = b
	return err
}

func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	raw, err := testvectors.FS.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// RFC 3610 §8: all 24 packets, sealed and opened.
func TestRFC3610(t *testing.T) {
	var file struct {
		Packets []struct {
			Packet, TagSize                        int
			Key, Nonce, AAD, Plaintext, Ciphertext hexBytes
		}
	}
	readVectors(t, "rfc3610.json", &file)
	if len(file.Packets) != 24 {
		t.Fatalf("%d packets, want 24", len(file.Packets))
	}
	each(t, func(t *testing.T, im implementation) {
		for _, v := range file.Packets {
			k := im.key(t, v.Key, len(v.Nonce), v.TagSize)
			got, err := k.Seal(nil, v.Nonce, v.Plaintext, v.AAD)
			if err != nil || !bytes.Equal(got, v.Ciphertext) {
				t.Errorf("packet %d: Seal = %x, %v, want %x", v.Packet, got, err, v.Ciphertext)
			}
			got, err = k.Open(nil, v.Nonce, v.Ciphertext, v.AAD)
			if err != nil || !bytes.Equal(got, v.Plaintext) {
				t.Errorf("packet %d: Open = %x, %v, want %x", v.Packet, got, err, v.Plaintext)
			}
		}
	})
}

// Wycheproof: valid values seal and open to the published ones; invalid ones
// name the refusal they expect.
func TestWycheproof(t *testing.T) {
	var file struct {
		NumberOfTests int
		TestGroups    []struct {
			IVSize, KeySize, TagSize int
			Tests                    []struct {
				TCID                       int
				Comment, Result            string
				Key, IV, AAD, Msg, CT, Tag hexBytes
			}
		}
	}
	readVectors(t, "wycheproof_aes_ccm.json", &file)
	each(t, func(t *testing.T, im implementation) {
		seen := 0
		results := map[string]int{}
		for _, g := range file.TestGroups {
			for _, v := range g.Tests {
				seen++
				name := fmt.Sprintf("%d %s", v.TCID, v.Comment)
				var k Key
				err := im.init(&k, v.Key, g.IVSize/8, g.TagSize/8)
				if legalNonce := g.IVSize >= 56 && g.IVSize <= 104; !legalNonce {
					if !errors.Is(err, ErrNonceSize) {
						t.Errorf("%s: Init = %v, want %v", name, err, ErrNonceSize)
					}
					results["nonce size"]++
					continue
				}
				if legalTag := g.TagSize >= 32 && g.TagSize <= 128 && g.TagSize%16 == 0; !legalTag {
					if !errors.Is(err, ErrTagSize) {
						t.Errorf("%s: Init = %v, want %v", name, err, ErrTagSize)
					}
					results["tag size"]++
					continue
				}
				if err != nil {
					t.Errorf("%s: Init: %v", name, err)
					continue
				}
				sealed := append(append([]byte{}, v.CT...), v.Tag...)
				got, err := k.Open(nil, v.IV, sealed, v.AAD)
				results[v.Result]++
				switch v.Result {
				case "valid":
					if err != nil || !bytes.Equal(got, v.Msg) {
						t.Errorf("%s: Open = %x, %v", name, got, err)
					}
					got, err = k.Seal(nil, v.IV, v.Msg, v.AAD)
					if err != nil || !bytes.Equal(got, sealed) {
						t.Errorf("%s: Seal = %x, %v", name, got, err)
					}
				case "invalid":
					if !errors.Is(err, ErrOpen) || got != nil {
						t.Errorf("%s: Open = %x, %v, want %v", name, got, err, ErrOpen)
					}
				default:
					t.Errorf("%s: unknown result %q", name, v.Result)
				}
			}
		}
		if seen != file.NumberOfTests {
			t.Errorf("%d tests, the file announces %d", seen, file.NumberOfTests)
		}
		t.Log(results)
		for _, kind := range []string{"valid", "invalid", "nonce size", "tag size"} {
			if results[kind] == 0 {
				t.Errorf("no value of kind %q", kind)
			}
		}
	})
}
