package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/anchor"
	"github.com/oscorelay/oscorelay/keys/internal/record"
	"github.com/oscorelay/oscorelay/oscore"
)

// The buckets, and what their keys and values are; integers in network order.
var (
	bucketMeta    = []byte("meta")    // "head", "root", "next", "mark"
	bucketReasons = []byte("reasons") // line (4): why the line ended
	bucketNumbers = []byte("numbers") // identity: numbers
	bucketWindows = []byte("windows") // identity: generation (8), window
	bucketDerived = []byte("derived") // identity configured: identity (16), ID Context
	bucketUsed    = []byte("used")    // identity: encryptions (8)
	bucketEntries = []byte("entries") // name: place (4), source (2), sealed entry
	bucketSources = []byte("sources") // source (2): its name
	bucketPlaces  = []byte("places")  // place (4): name
	bucketIndex   = []byte("index")   // see index.go
	bucketFacts   = []byte("facts")   // see facts.go
	bucketObserve = []byte("observe") // see observe.go
	bucketJournal = []byte("journal") // see journal.go
	bucketTimes   = []byte("times")   // time (8), key in the journal: nothing

	buckets = [][]byte{
		bucketMeta, bucketReasons, bucketNumbers, bucketWindows, bucketDerived, bucketUsed, bucketEntries, bucketPlaces, bucketIndex,
		bucketSources, bucketFacts, bucketObserve, bucketJournal, bucketTimes,
	}

	keyHead = []byte("head")
	keyRoot = []byte("root") // a known text under the root key
	keyNext = []byte("next") // the next place (8), the number of entries (8), of those with a source (8)
	keyMark = []byte("mark") // see Store.Mark
)

// headMagic has the version of the store's form; one of another is refused.
const (
	headName  = "oscore bolt "
	headMagic = headName + "3\r\n"
)

// head is what holds for all of the store. Every commit writes it.
type head struct {
	at      anchor.State
	offset  uint64 // how far numbers moved on by starts and crashes since the store was made
	line    uint32 // counts the mishaps that tainted everything
	windows uint64 // the generation of windows that is valid
	salt    [32]byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errForm: it is no store that this program can use.
var errForm = errors.New("this is not a store of this version")

var errDamaged = errors.New("damaged")

func (h *head) encode() []byte {
	b := append([]byte(headMagic), h.at.Store[:]...)
	for _, v := range []uint64{h.at.Epoch, h.at.Frames, h.offset} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(b, h.line)
	b = binary.BigEndian.AppendUint64(b, h.windows)
	b = append(b, h.salt[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeHead(b []byte) (h head, err error) {
	if len(b) < len(headMagic)+4 || string(b[:len(headMagic)]) != headMagic {
		form, ok := strings.CutPrefix(string(b[:min(len(b), len(headMagic))]), headName)
		if ok {
			return h, fmt.Errorf("%w: its form is %s, and this program has %s: use the program that made it", errForm, strings.TrimSpace(form), headMagic[len(headName):len(headMagic)-2])
		}
		return h, fmt.Errorf("%w: it is none", errForm)
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[len(body):]) {
		return h, errDamaged
	}
	f := record.Fields{B: body[len(headMagic):]}
	h.at.Store = anchor.UUID(f.ID())
	h.at.Epoch, h.at.Frames, h.offset = f.U64(), f.U64(), f.U64()
	h.line = binary.BigEndian.Uint32(f.Take(4))
	h.windows = f.U64()
	h.salt = [32]byte(f.Take(32))
	if f.Over || len(f.B) > 0 {
		return h, errDamaged
	}
	return h, nil
}

// numbers is what is known of an identity: that nobody used a number from base
// on when the store's offset was offset.
type numbers struct {
	base, offset uint64
	line         uint32
}

// start returns the first number of the block that the identity owns at an
// offset of the store.
func (n numbers) start(offset uint64) uint64 {
	return min(n.base+(offset-n.offset), oscore.MaxSequence+1)
}

func (n numbers) encode(id keys.Identity) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 24), n.base)
	b = binary.BigEndian.AppendUint64(b, n.offset)
	b = binary.BigEndian.AppendUint32(b, n.line)
	return binary.BigEndian.AppendUint32(b, numbersSum(id, b))
}

func numbersSum(id keys.Identity, b []byte) uint32 {
	return crc32.Update(crc32.Checksum(id[:], castagnoli), castagnoli, b)
}

func decodeNumbers(id keys.Identity, b []byte) (n numbers, err error) {
	if len(b) != 24 || numbersSum(id, b[:20]) != binary.BigEndian.Uint32(b[20:]) {
		return n, errDamaged
	}
	n = numbers{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[16:])}
	if n.base > oscore.MaxSequence+1 {
		return n, errDamaged
	}
	return n, nil
}
