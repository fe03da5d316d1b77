package lwm2m

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// senml is one record of RFC 8428, with the labels of its §6 for CBOR, and
// LwM2M's vlo.
type senml struct {
	BaseName string  `json:"bn,omitempty" cbor:"-2,keyasint,omitempty"`
	Name     string  `json:"n,omitempty" cbor:"0,keyasint,omitempty"`
	Number   any     `json:"v,omitempty" cbor:"2,keyasint,omitempty"`
	Text     *string `json:"vs,omitempty" cbor:"3,keyasint,omitempty"`
	Bool     *bool   `json:"vb,omitempty" cbor:"4,keyasint,omitempty"`
	Data     any     `json:"vd,omitempty" cbor:"8,keyasint,omitempty"` // JSON: base64url without padding
	Link     *string `json:"vlo,omitempty" cbor:"vlo,omitempty"`
}

var (
	senmlEncoder = must(cbor.EncOptions{Sort: cbor.SortNone, ShortestFloat: cbor.ShortestFloat16}.EncMode())
	senmlDecoder = must(cbor.DecOptions{MaxNestedLevels: 8, MaxArrayElements: 4096, MaxMapPairs: 64, DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // constant options
	}
	return v
}

// encodeSenML gives the first record a base name: the path read.
func encodeSenML(format int, path Path, records []Record) ([]byte, error) {
	pack := make([]senml, 0, len(records))
	for i, r := range records {
		var s senml
		name := r.Path.String()
		if path.Depth() > 0 {
			base := path.String()
			if path.Depth() < r.Path.Depth() {
				base += "/"
			}
			name = strings.TrimPrefix(name, base)
			if i == 0 {
				s.BaseName = base
			}
		}
		s.Name = name
		s.set(format, r.Value)
		pack = append(pack, s)
	}
	if format == SenMLJSON {
		return json.Marshal(pack)
	}
	return senmlEncoder.Marshal(pack)
}

func (s *senml) set(format int, v Value) {
	switch v.Type {
	case String:
		s.Text = &v.Text
	case Integer, Unsigned, Time:
		s.Number = v.Int
	case Float:
		s.Number = v.Float
	case Boolean:
		b := v.Int == 1
		s.Bool = &b
	case Opaque:
		if format == SenMLJSON {
			s.Data = base64.RawURLEncoding.EncodeToString(v.Bytes)
		} else {
			s.Data = slices.Concat([]byte{}, v.Bytes)
		}
	case Objlnk:
		s.Link = &v.Text
	}
}

// decodeSenML reads records; those without a value have the type None.
func decodeSenML(format int, path Path, payload []byte, types Types) ([]Record, error) {
	var pack []senml
	var err error
	if format == SenMLJSON {
		d := json.NewDecoder(strings.NewReader(string(payload)))
		d.UseNumber()
		if err = d.Decode(&pack); err == nil && d.More() {
			err = fmt.Errorf("data after the array")
		}
	} else {
		err = senmlDecoder.Unmarshal(payload, &pack)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: SenML: %v", ErrBadRequest, err)
	}
	base := ""
	records := make([]Record, 0, len(pack))
	for _, s := range pack {
		if s.BaseName != "" {
			base = s.BaseName
		}
		name := base + s.Name
		if !strings.HasPrefix(name, "/") {
			return nil, fmt.Errorf("%w: SenML name %q does not start with /", ErrBadRequest, name)
		}
		at, err := ParsePath(strings.TrimSuffix(name, "/"))
		if err != nil {
			return nil, err
		}
		if !path.Holds(at) {
			return nil, fmt.Errorf("%w: SenML record %s in %s", ErrBadRequest, at, path)
		}
		r := Record{Path: at}
		if s.has() {
			if at.Depth() < 3 {
				return nil, fmt.Errorf("%w: %s is no resource", ErrBadRequest, at)
			}
			def, ok := types.Resource(at.ID(0), at.ID(2))
			if !ok {
				return nil, fmt.Errorf("%w: %s", ErrNotFound, at)
			}
			if r.Value, err = s.value(def.Type); err != nil {
				return nil, fmt.Errorf("%s: %w", at, err)
			}
		}
		records = append(records, r)
	}
	return records, nil
}

func (s *senml) has() bool {
	return s.Number != nil || s.Text != nil || s.Bool != nil || s.Data != nil || s.Link != nil
}

// value returns the record's value if it is of the type.
func (s *senml) value(t Type) (Value, error) {
	switch {
	case t == String && s.Text != nil:
		return ParseText(String, *s.Text)
	case t == Boolean && s.Bool != nil:
		return Bool(*s.Bool), nil
	case t == Objlnk && s.Link != nil:
		return parseLink(*s.Link)
	case t == Opaque && s.Data != nil:
		switch d := s.Data.(type) {
		case []byte:
			return Bytes(d), nil
		case string:
			if b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(d, "=")); err == nil {
				return Bytes(b), nil
			}
		}
	case s.Number != nil:
		return s.number(t)
	}
	return Value{}, fmt.Errorf("%w: SenML record holds no %s", ErrBadRequest, t)
}

func (s *senml) number(t Type) (Value, error) {
	bad := fmt.Errorf("%w: %v is no %s", ErrBadRequest, s.Number, t)
	var i int64
	var f float64
	var err error
	whole := true
	switch n := s.Number.(type) {
	case int64:
		i, f = n, float64(n)
	case uint64:
		i, f, whole = int64(n), float64(n), n <= math.MaxInt64
	case float64:
		i, f, whole = int64(n), n, n == math.Trunc(n) && math.Abs(n) < 1<<53
	case float32:
		f = float64(n)
		i, whole = int64(f), f == math.Trunc(f) && math.Abs(f) < 1<<53
	case json.Number:
		if i, err = strconv.ParseInt(n.String(), 10, 64); err != nil {
			whole = false
		}
		if f, err = n.Float64(); err != nil {
			return Value{}, bad
		}
	default:
		return Value{}, bad
	}
	switch {
	case t == Float && !math.IsNaN(f) && !math.IsInf(f, 0):
		return Num(f), nil
	case (t == Integer || t == Time || t == Unsigned && i >= 0) && whole:
		return Value{Type: t, Int: i}, nil
	}
	return Value{}, bad
}

// EncodePaths returns the payload of a composite read or observation.
func EncodePaths(format int, paths []Path) ([]byte, error) {
	records := make([]Record, len(paths))
	for i, p := range paths {
		records[i].Path = p
	}
	if format != SenMLJSON && format != SenMLCBOR {
		return nil, fmt.Errorf("%w: %d names no paths, SenML does (110, 112)", ErrFormat, format)
	}
	return encodeSenML(format, Path{}, records)
}
