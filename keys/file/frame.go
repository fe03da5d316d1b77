package file

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/oscorelay/oscorelay/keys/internal/anchor"
)

// A state file is a header and frames:
//
//	header  magic (16)  store (16)  crc (4)
//	frame   mark (4)  length (4)  crc (4)  number (8)  records (length)
//
// The CRC (Castagnoli) covers length, number and records. Numbers count up by
// one; the first frame may have any.
const (
	stateMagic = "oscore state 1\r\n" // the line end shows a transfer as text
	headerLen  = 16 + 16 + 4
	frameHead  = 4 + 4 + 4 + 8
)

var (
	frameMark  = []byte{0xf5, 'F', 'R', 0x0a}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func appendHeader(dst []byte, store anchor.UUID) []byte {
	at := len(dst)
	dst = append(dst, stateMagic...)
	dst = append(dst, store[:]...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// beginFrame appends a frame's head; endFrame completes it.
func beginFrame(dst []byte, number uint64) []byte {
	dst = append(dst, frameMark...)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint64(dst, number)
}

// endFrame completes the frame that begins at the given place of b.
func endFrame(b []byte, at int) {
	f := b[at:]
	binary.BigEndian.PutUint32(f[4:], uint32(len(f)-frameHead))
	binary.BigEndian.PutUint32(f[8:], frameSum(f))
}

func frameSum(f []byte) uint32 {
	sum := crc32.Update(0, castagnoli, f[4:8])
	return crc32.Update(sum, castagnoli, f[12:])
}

// parseFrame returns the frame at the start of b; n is 0 if there is none.
func parseFrame(b []byte) (number uint64, records []byte, n int) {
	if len(b) < frameHead || string(b[:4]) != string(frameMark) {
		return 0, nil, 0
	}
	length := binary.BigEndian.Uint32(b[4:])
	if uint64(length) > uint64(len(b)-frameHead) {
		return 0, nil, 0
	}
	n = frameHead + int(length)
	if frameSum(b[:n]) != binary.BigEndian.Uint32(b[8:]) {
		return 0, nil, 0
	}
	return binary.BigEndian.Uint64(b[12:]), b[frameHead:n], n
}

// damage is a state file that is not as it was written.
type damage struct {
	name   string
	offset int
	what   string
}

func (e *damage) Error() string {
	return fmt.Sprintf("keys/file: %s is damaged at offset %d: %s. Do not restore a copy of it over this one; move it away, "+
		"and the contexts open as tainted: they can be derived anew (RFC 8613 Appendix B.2, EDHOC) or replaced (oscore keys new)",
		e.name, e.offset, e.what)
}

// parseState calls apply for each frame of a state file. It returns the store,
// and how long the valid part is: what comes after it is a frame cut short.
func parseState(name string, b []byte, apply func(number uint64, records []byte) error) (store anchor.UUID, valid int, err error) {
	if len(b) < headerLen {
		return store, 0, &damage{name, len(b), "the header is cut short"}
	}
	if string(b[:16]) != stateMagic {
		return store, 0, &damage{name, 0, "this is not a state file"}
	}
	if crc32.Checksum(b[:32], castagnoli) != binary.BigEndian.Uint32(b[32:]) {
		return store, 0, &damage{name, 16, "the header's checksum is wrong"}
	}
	copy(store[:], b[16:])
	at, last := headerLen, uint64(0)
	for at < len(b) {
		number, records, n := parseFrame(b[at:])
		if n == 0 {
			if next := nextFrame(b, at+1); next >= 0 {
				return store, at, &damage{name, at, fmt.Sprintf("no valid record here, but one follows at %d", next)}
			}
			break
		}
		if at > headerLen && number != last+1 {
			return store, at, &damage{name, at, fmt.Sprintf("record %d follows record %d", number, last)}
		}
		if err := apply(number, records); err != nil {
			return store, at, &damage{name, at, err.Error()}
		}
		at, last = at+n, number
	}
	if at == headerLen {
		// The first frame is written together with the header.
		return store, at, &damage{name, at, "it holds no record"}
	}
	return store, at, nil
}

// nextFrame returns where a valid frame begins, from at on; -1 if none does.
func nextFrame(b []byte, at int) int {
	for ; at+frameHead <= len(b); at++ {
		if b[at] == frameMark[0] {
			if _, _, n := parseFrame(b[at:]); n > 0 {
				return at
			}
		}
	}
	return -1
}
