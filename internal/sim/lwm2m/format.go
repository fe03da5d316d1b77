package lwm2m

import (
	"fmt"
	"slices"
)

// Content formats.
const (
	Text       = 0
	LinkFormat = 40
	Octets     = 42
	SenMLJSON  = 110
	SenMLCBOR  = 112
	TLV        = 11542
)

// Record is one value with its full path, of depth 3, or 4 where the resource
// is a multiple one. In a request of composite operations, and where a whole
// instance is named, the path may be shorter and the value's type None.
type Record struct {
	Path  Path
	Value Value
}

// Types tells the definition of a resource to decoders.
type Types interface {
	Resource(object, resource uint16) (Definition, bool)
}

// Encode returns records in a format, as the answer to reading path; for a
// composite operation the path is the root.
func Encode(format int, path Path, records []Record) ([]byte, error) {
	switch format {
	case SenMLJSON, SenMLCBOR:
		return encodeSenML(format, path, records)
	case TLV:
		if path.Depth() > 0 {
			return encodeTLV(path, records), nil
		}
	case Text, Octets:
		if len(records) == 1 && path == records[0].Path {
			v := records[0].Value
			if format == Text {
				return []byte(v.String()), nil
			}
			if v.Type == Opaque {
				return slices.Clone(v.Bytes), nil
			}
		}
	default:
		return nil, fmt.Errorf("%w: %d", ErrNotAcceptable, format)
	}
	return nil, fmt.Errorf("%w: format %d, %s", ErrNotAcceptable, format, path)
}

// Decode reads what was written to a path; for a composite operation the path
// is the root.
func Decode(format int, path Path, payload []byte, types Types) ([]Record, error) {
	switch format {
	case SenMLJSON, SenMLCBOR:
		return decodeSenML(format, path, payload, types)
	case TLV:
		return decodeTLV(path, payload, types)
	case Text, Octets:
		if path.Depth() < 3 {
			return nil, fmt.Errorf("%w: %d holds a single value", ErrFormat, format)
		}
		def, ok := types.Resource(path.ID(0), path.ID(2))
		if !ok {
			return nil, fmt.Errorf("%w: %s", ErrNotFound, path)
		}
		if format == Octets {
			if def.Type != Opaque {
				return nil, fmt.Errorf("%w: %s is not opaque", ErrFormat, path)
			}
			return []Record{{path, Bytes(slices.Clone(payload))}}, nil
		}
		v, err := ParseText(def.Type, string(payload))
		return []Record{{path, v}}, err
	}
	return nil, fmt.Errorf("%w: %d", ErrFormat, format)
}
