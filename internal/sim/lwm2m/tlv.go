package lwm2m

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// The types of a TLV's identifier: bits 7 and 6 of its first byte.
const (
	tlvInstance         = 0
	tlvResourceInstance = 1
	tlvMultiple         = 2
	tlvResource         = 3
)

// appendTLV appends one TLV: type byte, identifier of 1 or 2 bytes, length in
// the type byte or in 1 to 3 bytes, value.
func appendTLV(dst []byte, kind byte, id uint16, value []byte) []byte {
	head := kind << 6
	if id > 0xff {
		head |= 1 << 5
	}
	n := len(value)
	switch {
	case n < 8:
		head |= byte(n)
	case n < 1<<8:
		head |= 1 << 3
	case n < 1<<16:
		head |= 2 << 3
	default:
		head |= 3 << 3
	}
	dst = append(dst, head)
	if id > 0xff {
		dst = append(dst, byte(id>>8))
	}
	dst = append(dst, byte(id))
	switch head >> 3 & 3 {
	case 1:
		dst = append(dst, byte(n))
	case 2:
		dst = append(dst, byte(n>>8), byte(n))
	case 3:
		dst = append(dst, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, value...)
}

// nextTLV reads one TLV.
func nextTLV(b []byte) (kind byte, id uint16, value, rest []byte, err error) {
	bad := func() (byte, uint16, []byte, []byte, error) {
		return 0, 0, nil, nil, fmt.Errorf("%w: TLV is cut short", ErrBadRequest)
	}
	head := b[0]
	b = b[1:]
	if head&(1<<5) != 0 {
		if len(b) < 2 {
			return bad()
		}
		id, b = binary.BigEndian.Uint16(b), b[2:]
	} else {
		if len(b) < 1 {
			return bad()
		}
		id, b = uint16(b[0]), b[1:]
	}
	n := int(head & 7)
	if extra := int(head >> 3 & 3); extra > 0 {
		if len(b) < extra {
			return bad()
		}
		n = 0
		for _, x := range b[:extra] {
			n = n<<8 | int(x)
		}
		b = b[extra:]
	}
	if len(b) < n {
		return bad()
	}
	return head >> 6, id, b[:n], b[n:], nil
}

// encodeTLV encodes what was read from a path of depth 1 to 4.
func encodeTLV(path Path, records []Record) []byte {
	switch path.Depth() {
	case 1:
		var out []byte
		for len(records) > 0 {
			instance := records[0].Path.Up(2)
			n := slices.IndexFunc(records, func(r Record) bool { return !instance.Holds(r.Path) })
			if n < 0 {
				n = len(records)
			}
			out = appendTLV(out, tlvInstance, instance.ID(1), tlvResources(records[:n]))
			records = records[n:]
		}
		return out
	case 4:
		var out []byte
		for _, r := range records {
			out = appendTLV(out, tlvResourceInstance, r.Path.ID(3), tlvValue(r.Value))
		}
		return out
	}
	return tlvResources(records)
}

// tlvResources encodes resources of one instance.
func tlvResources(records []Record) (out []byte) {
	for i := 0; i < len(records); {
		r := records[i]
		switch r.Path.Depth() {
		case 3:
			if r.Value.Type == None { // a multiple resource without instances
				out = appendTLV(out, tlvMultiple, r.Path.ID(2), nil)
			} else {
				out = appendTLV(out, tlvResource, r.Path.ID(2), tlvValue(r.Value))
			}
			i++
		case 4:
			var inner []byte
			resource := r.Path.Up(3)
			for ; i < len(records) && resource.Holds(records[i].Path); i++ {
				inner = appendTLV(inner, tlvResourceInstance, records[i].Path.ID(3), tlvValue(records[i].Value))
			}
			out = appendTLV(out, tlvMultiple, resource.ID(2), inner)
		default: // an instance without resources
			i++
		}
	}
	return out
}

func tlvValue(v Value) []byte {
	switch v.Type {
	case String:
		return []byte(v.Text)
	case Opaque:
		return v.Bytes
	case Boolean:
		return []byte{byte(v.Int)}
	case Float:
		if f := float32(v.Float); float64(f) == v.Float {
			return binary.BigEndian.AppendUint32(nil, math.Float32bits(f))
		}
		return binary.BigEndian.AppendUint64(nil, math.Float64bits(v.Float))
	case Objlnk:
		var o, i uint16
		_, _ = fmt.Sscanf(v.Text, "%d:%d", &o, &i) // made by Link
		return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, o), i)
	case Unsigned:
		return trimUint(uint64(v.Int))
	}
	switch i := v.Int; {
	case i == int64(int8(i)):
		return []byte{byte(i)}
	case i == int64(int16(i)):
		return binary.BigEndian.AppendUint16(nil, uint16(i))
	case i == int64(int32(i)):
		return binary.BigEndian.AppendUint32(nil, uint32(i))
	default:
		return binary.BigEndian.AppendUint64(nil, uint64(i))
	}
}

func trimUint(u uint64) []byte {
	switch {
	case u < 1<<8:
		return []byte{byte(u)}
	case u < 1<<16:
		return binary.BigEndian.AppendUint16(nil, uint16(u))
	case u < 1<<32:
		return binary.BigEndian.AppendUint32(nil, uint32(u))
	}
	return binary.BigEndian.AppendUint64(nil, u)
}

// parseTLVValue reads a value of a type.
func parseTLVValue(t Type, b []byte) (Value, error) {
	bad := fmt.Errorf("%w: %d bytes are no %s", ErrBadRequest, len(b), t)
	switch t {
	case String:
		return ParseText(String, string(b))
	case Opaque:
		return Bytes(slices.Clone(b)), nil
	case Boolean:
		if len(b) != 1 || b[0] > 1 {
			return Value{}, bad
		}
		return Bool(b[0] == 1), nil
	case Float:
		f := math.NaN()
		switch len(b) {
		case 4:
			f = float64(math.Float32frombits(binary.BigEndian.Uint32(b)))
		case 8:
			f = math.Float64frombits(binary.BigEndian.Uint64(b))
		}
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return Value{}, bad
		}
		return Num(f), nil
	case Objlnk:
		if len(b) != 4 {
			return Value{}, bad
		}
		return Link(binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])), nil
	case Integer, Time, Unsigned:
		var u uint64
		switch len(b) {
		case 1, 2, 4, 8:
			for _, x := range b {
				u = u<<8 | uint64(x)
			}
		default:
			return Value{}, bad
		}
		if t == Unsigned {
			if u > math.MaxInt64 {
				return Value{}, bad
			}
			return Uint(int64(u)), nil
		}
		shift := 64 - 8*len(b)
		return Value{Type: t, Int: int64(u<<shift) >> shift}, nil
	}
	return Value{}, fmt.Errorf("%w: the resource has no value", ErrNotAllowed)
}

// decodeTLV reads what was written to a path.
func decodeTLV(path Path, b []byte, types Types) (records []Record, err error) {
	for len(b) > 0 {
		var kind byte
		var id uint16
		var value []byte
		if kind, id, value, b, err = nextTLV(b); err != nil {
			return nil, err
		}
		at := path
		switch {
		case kind == tlvInstance && path.Depth() <= 2 && path.Depth() > 0:
			if path.Depth() == 2 && path.ID(1) != id {
				return nil, fmt.Errorf("%w: TLV of instance %d in %s", ErrBadRequest, id, path)
			}
			inner, err := decodeTLV(path.Up(1).Child(id), value, types)
			if err != nil {
				return nil, err
			}
			if len(inner) == 0 {
				inner = []Record{{Path: path.Up(1).Child(id)}}
			}
			records = append(records, inner...)
			continue
		case (kind == tlvResource || kind == tlvMultiple) && path.Depth() == 2:
			at = path.Child(id)
		case (kind == tlvResource || kind == tlvMultiple) && path.Depth() == 3 && path.ID(2) == id:
		case kind == tlvResourceInstance && path.Depth() == 3:
			at = path.Child(id)
		case kind == tlvResourceInstance && path.Depth() == 4 && path.ID(3) == id:
		default:
			return nil, fmt.Errorf("%w: TLV of type %d and ID %d does not belong in %s", ErrBadRequest, kind, id, path)
		}
		if kind == tlvMultiple {
			inner, err := decodeTLV(at, value, types)
			if err != nil {
				return nil, err
			}
			if len(inner) == 0 {
				inner = []Record{{Path: at}}
			}
			records = append(records, inner...)
			continue
		}
		def, ok := types.Resource(at.ID(0), at.ID(2))
		if !ok {
			return nil, fmt.Errorf("%w: %s", ErrNotFound, at)
		}
		v, err := parseTLVValue(def.Type, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		records = append(records, Record{at, v})
	}
	return records, nil
}
