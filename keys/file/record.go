package file

import (
	"encoding/binary"
	"errors"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/internal/record"
	"github.com/oscorelay/oscorelay/oscore"
)

// Records, each a kind and its fields, integers in network order:
//
//	'E' epoch (8)  skip (8)            an epoch begins: numbers skip, windows are void
//	'N' identity (16)  next (8)        the next number not reserved
//	'F' identity (16)                  the identity, and what was derived from it, is forgotten
//	'R' number (1)  length (2)  text   a reason for taint
//	'T' identity (16)  number (1)      the identity is tainted for that reason
//	'C' base (16)  identity (16)  length (1)  ID Context
//	'W' identity (16)  size (2)  floor (8)  next (8)  bits (8 a word)
//	'X' identity (16)                  the window is taken
//	'U' identity (16)  count (8)       encryptions under the key
const (
	recEpoch   = 'E'
	recNumbers = 'N'
	recForget  = 'F'
	recReason  = 'R'
	recTaint   = 'T'
	recDerived = 'C'
	recWindow  = 'W'
	recTaken   = 'X'
	recUsed    = 'U'
)

var errRecord = errors.New("a record that this version does not know")

func appendEpoch(dst []byte, epoch, skip uint64) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, recEpoch), epoch)
	return binary.BigEndian.AppendUint64(dst, skip)
}

func appendNumbers(dst []byte, id keys.Identity, next uint64) []byte {
	dst = append(append(dst, recNumbers), id[:]...)
	return binary.BigEndian.AppendUint64(dst, next)
}

func appendForget(dst []byte, id keys.Identity) []byte {
	return append(append(dst, recForget), id[:]...)
}

func appendReason(dst []byte, number uint8, text string) []byte {
	text = text[:min(len(text), 1<<16-1)]
	dst = binary.BigEndian.AppendUint16(append(dst, recReason, number), uint16(len(text)))
	return append(dst, text...)
}

func appendTaint(dst []byte, id keys.Identity, reason uint8) []byte {
	return append(append(append(dst, recTaint), id[:]...), reason)
}

func appendDerived(dst []byte, base keys.Identity, d derived) []byte {
	dst = append(append(append(dst, recDerived), base[:]...), d.id[:]...)
	return append(append(dst, uint8(len(d.idContext))), d.idContext...)
}

func appendWindow(dst []byte, id keys.Identity, w oscore.WindowState) []byte {
	return record.AppendWindow(append(append(dst, recWindow), id[:]...), w)
}

func appendTaken(dst []byte, id keys.Identity) []byte {
	return append(append(dst, recTaken), id[:]...)
}

func appendUsed(dst []byte, u keys.Used) []byte {
	return binary.BigEndian.AppendUint64(append(append(dst, recUsed), u.ID[:]...), u.Encrypted)
}

// apply takes the records of a frame into the state.
func (s *state) apply(records []byte) error {
	f := record.Fields{B: records}
	for len(f.B) > 0 {
		switch f.Byte() {
		case recEpoch:
			s.beginEpoch(f.U64(), f.U64())
		case recNumbers:
			id, next := f.ID(), f.U64()
			if next > oscore.MaxSequence+1 {
				return errors.New("a sequence number above 2^40")
			}
			s.ids[id] = history{next: max(next, s.ids[id].next)}
		case recForget:
			id := f.ID()
			delete(s.ids, id)
			delete(s.derived, id)
			delete(s.used, id)
		case recReason:
			n := f.Byte()
			s.reasons[n] = string(f.Take(f.U16()))
		case recTaint:
			id := f.ID()
			s.ids[id] = history{next: s.ids[id].next, taint: f.Byte()}
		case recDerived:
			base, id := f.ID(), f.ID()
			s.derived[base] = derived{id, append([]byte{}, f.Take(int(f.Byte()))...)}
		case recWindow:
			id := f.ID()
			s.windows[id] = f.Window()
		case recTaken:
			delete(s.windows, f.ID())
		case recUsed:
			id, n := f.ID(), f.U64()
			s.used[id] = max(s.used[id], n)
		default:
			return errRecord
		}
		if f.Over {
			return errors.New("a record longer than its frame")
		}
	}
	return nil
}
