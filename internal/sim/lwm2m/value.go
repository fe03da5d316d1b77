package lwm2m

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Errors name what a device answers: see package sim for the table of codes.
var (
	ErrNotFound          = errors.New("lwm2m: not found")
	ErrBadRequest        = errors.New("lwm2m: bad request")
	ErrNotAllowed        = errors.New("lwm2m: operation not allowed")
	ErrUnauthorized      = errors.New("lwm2m: object is not for servers")
	ErrFormat            = errors.New("lwm2m: content format not supported")
	ErrNotAcceptable     = errors.New("lwm2m: accepted format cannot hold this")
	ErrPreconditionState = errors.New("lwm2m: not in the state for this")
)

// Type is the data type of a resource (LwM2M Core, Appendix C).
type Type uint8

// The types.
const (
	None Type = iota // of executable resources
	String
	Integer
	Unsigned
	Float
	Boolean
	Opaque
	Time // seconds since 1970
	Objlnk
)

// Value is the value of a resource or of one of its instances. Of its fields
// the one of its type is set.
type Value struct {
	Type  Type
	Text  string  // String; Objlnk as object:instance
	Int   int64   // Integer, Unsigned, Time; Boolean as 0 or 1
	Float float64 // Float
	Bytes []byte  // Opaque
}

// Constructors.
func Str(s string) Value     { return Value{Type: String, Text: s} }
func Int(i int64) Value      { return Value{Type: Integer, Int: i} }
func Uint(i int64) Value     { return Value{Type: Unsigned, Int: i} }
func Num(f float64) Value    { return Value{Type: Float, Float: f} }
func Bytes(b []byte) Value   { return Value{Type: Opaque, Bytes: b} }
func Seconds(i int64) Value  { return Value{Type: Time, Int: i} }
func Link(o, i uint16) Value { return Value{Type: Objlnk, Text: fmt.Sprintf("%d:%d", o, i)} }

// Bool returns a Boolean.
func Bool(b bool) Value {
	v := Value{Type: Boolean}
	if b {
		v.Int = 1
	}
	return v
}

// Equal reports whether two values are the same.
func (v Value) Equal(w Value) bool {
	return v.Type == w.Type && v.Text == w.Text && v.Int == w.Int && v.Float == w.Float && string(v.Bytes) == string(w.Bytes)
}

// number returns the value for comparisons with gt, lt and st.
func (v Value) number() (float64, bool) {
	switch v.Type {
	case Integer, Unsigned, Time:
		return float64(v.Int), true
	case Float:
		return v.Float, true
	}
	return 0, false
}

// String returns the value in the plain text format (LwM2M Core §7.4.1).
func (v Value) String() string {
	switch v.Type {
	case String, Objlnk:
		return v.Text
	case Integer, Unsigned, Time, Boolean:
		return strconv.FormatInt(v.Int, 10)
	case Float:
		return strconv.FormatFloat(v.Float, 'f', -1, 64)
	case Opaque:
		return base64.StdEncoding.EncodeToString(v.Bytes)
	}
	return ""
}

// ParseText reads the plain text format of a type.
func ParseText(t Type, s string) (Value, error) {
	v := Value{Type: t}
	var err error
	switch t {
	case String:
		if !utf8.ValidString(s) {
			return v, badValue(t, s)
		}
		v.Text = s
		return v, nil
	case Integer, Time:
		v.Int, err = strconv.ParseInt(s, 10, 64)
	case Unsigned:
		if v.Int, err = strconv.ParseInt(s, 10, 64); v.Int < 0 {
			return v, badValue(t, s)
		}
	case Float:
		if v.Float, err = strconv.ParseFloat(s, 64); math.IsNaN(v.Float) || math.IsInf(v.Float, 0) {
			return v, badValue(t, s)
		}
	case Boolean:
		if s != "0" && s != "1" {
			return v, badValue(t, s)
		}
		v = Bool(s == "1")
	case Opaque:
		v.Bytes, err = base64.StdEncoding.DecodeString(s)
	case Objlnk:
		return parseLink(s)
	default:
		return v, fmt.Errorf("%w: the resource has no value", ErrNotAllowed)
	}
	if err != nil {
		return v, badValue(t, s)
	}
	return v, nil
}

func parseLink(s string) (Value, error) {
	o, i, ok := strings.Cut(s, ":")
	object, err1 := strconv.ParseUint(o, 10, 16)
	instance, err2 := strconv.ParseUint(i, 10, 16)
	if !ok || err1 != nil || err2 != nil {
		return Value{}, badValue(Objlnk, s)
	}
	return Link(uint16(object), uint16(instance)), nil
}

var typeNames = [...]string{"none", "string", "integer", "unsigned integer", "float", "boolean", "opaque", "time", "object link"}

func (t Type) String() string { return typeNames[t] }

func badValue(t Type, s string) error {
	if len(s) > 32 {
		s = s[:32] + "…"
	}
	return fmt.Errorf("%w: %q is no value of type %s", ErrBadRequest, s, t)
}
