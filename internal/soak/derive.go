package soak

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// Context is a security context from the device's side (RFC 8613 §3.1), with the
// algorithms that are mandatory.
type Context struct {
	Name         string
	MasterSecret []byte
	MasterSalt   []byte
	IDContext    []byte // nil: none
	Device       []byte // Sender ID of the device
	Server       []byte // Sender ID of the server
}

// The algorithm is AES-CCM-16-64-128 (RFC 9053 §4.2).
const (
	algorithm = 10
	keyLen    = 16
	nonceLen  = 13
	tagLen    = 8
)

// material is what a context derives.
type material struct {
	Context
	up, down cipher.Block // keys of the device, of the server
	commonIV []byte
}

// derive derives the keys and the Common IV (RFC 8613 §3.2.1).
func derive(c Context) (m material, err error) {
	m = material{Context: c}
	expand := func(id []byte, kind string, n int) []byte {
		info := []byte{0x85}
		info = appendBytes(info, 0x40, id)
		if c.IDContext == nil {
			info = append(info, 0xf6)
		} else {
			info = appendBytes(info, 0x40, c.IDContext)
		}
		info = append(info, algorithm)
		info = appendBytes(info, 0x60, []byte(kind))
		info = append(info, byte(n))
		out, e := hkdf.Key(sha256.New, c.MasterSecret, c.MasterSalt, string(info), n)
		err = errors.Join(err, e)
		return out
	}
	up, down := expand(c.Device, "Key", keyLen), expand(c.Server, "Key", keyLen)
	m.commonIV = expand(nil, "IV", nonceLen)
	if err != nil {
		return m, err
	}
	if m.up, err = aes.NewCipher(up); err == nil {
		m.down, err = aes.NewCipher(down)
	}
	return m, err
}

// appendBytes appends a CBOR string of less than 256 bytes, of major type 2 (0x40)
// or 3 (0x60).
func appendBytes(b []byte, major byte, s []byte) []byte {
	if len(s) < 24 {
		b = append(b, major|byte(len(s)))
	} else {
		b = append(b, major|24, byte(len(s)))
	}
	return append(b, s...)
}

// nonce is RFC 8613 §5.2: of the ID of the end that drew the Partial IV.
func (m *material) nonce(id, partialIV []byte) (n [nonceLen]byte) {
	n[0] = byte(len(id))
	copy(n[1+7-len(id):], id)
	copy(n[nonceLen-len(partialIV):], partialIV)
	subtle.XORBytes(n[:], n[:], m.commonIV)
	return n
}

// aad is RFC 8613 §5.4: of the request's kid and Partial IV.
func aad(kid, partialIV []byte) []byte {
	ext := []byte{0x85, 0x01, 0x81, algorithm}
	ext = appendBytes(ext, 0x40, kid)
	ext = appendBytes(ext, 0x40, partialIV)
	ext = append(ext, 0x40)
	return appendBytes(append([]byte{0x83, 0x68}, "Encrypt0\x40"...), 0x40, ext)
}

// open is AES-CCM with a tag of 8 bytes and a length of 2 (RFC 3610). ok is false
// if the tag does not verify.
func open(key cipher.Block, nonce [nonceLen]byte, aad, sealed []byte) (plain []byte, ok bool) {
	if len(sealed) < tagLen {
		return nil, false
	}
	body, tag := sealed[:len(sealed)-tagLen], sealed[len(sealed)-tagLen:]
	var counter, stream [16]byte
	counter[0] = 1 // L - 1
	copy(counter[1:], nonce[:])
	plain = bytes.Clone(body)
	for i := 0; i < len(plain); i += 16 {
		binary.BigEndian.PutUint16(counter[14:], uint16(i/16+1))
		key.Encrypt(stream[:], counter[:])
		subtle.XORBytes(plain[i:], plain[i:], stream[:])
	}
	var mac [16]byte
	mac[0] = 0x40 | (tagLen-2)/2<<3 | 1
	copy(mac[1:], nonce[:])
	binary.BigEndian.PutUint16(mac[14:], uint16(len(plain)))
	key.Encrypt(mac[:], mac[:])
	chain := func(b []byte) {
		for i, c := range b {
			if mac[i%16] ^= c; i%16 == 15 || i == len(b)-1 {
				key.Encrypt(mac[:], mac[:])
			}
		}
	}
	chain(append(binary.BigEndian.AppendUint16(nil, uint16(len(aad))), aad...))
	chain(plain)
	binary.BigEndian.PutUint16(counter[14:], 0)
	key.Encrypt(stream[:], counter[:])
	subtle.XORBytes(mac[:tagLen], mac[:tagLen], stream[:tagLen])
	return plain, subtle.ConstantTimeCompare(mac[:tagLen], tag) == 1
}
