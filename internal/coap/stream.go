package coap

import (
	"encoding/binary"
	"errors"
)

// Frame is a message over a stream transport (RFC 8323 §3.2). Token and Body
// alias the bytes it was parsed from.
type Frame struct {
	Code  Code
	Token []byte
	Body  []byte
}

// ErrIncomplete means that the bytes so far are the beginning of a frame: read
// more and parse again.
var ErrIncomplete = errors.New("coap: incomplete frame")

// ErrFrameTooLarge means that a frame announces more bytes than its reader
// takes; the connection cannot be followed any further (RFC 8323 §5.3.1: Abort).
var ErrFrameTooLarge = errors.New("coap: frame larger than the maximum message size")

// ParseFrame reads one frame from the start of b and returns the bytes it
// took. max bounds the whole frame in bytes. It returns [ErrIncomplete] when b
// ends before the frame does, [ErrFrameTooLarge] as soon as the header
// announces more than max, and errors that wrap [ErrFormat].
func ParseFrame(b []byte, max int) (f Frame, n int, err error) {
	if len(b) < 1 {
		return f, 0, ErrIncomplete
	}
	size, header := uint64(b[0]>>4), 1
	switch size {
	case 13:
		if len(b) < 2 {
			return f, 0, ErrIncomplete
		}
		size, header = 13+uint64(b[1]), 2
	case 14:
		if len(b) < 3 {
			return f, 0, ErrIncomplete
		}
		size, header = 269+uint64(binary.BigEndian.Uint16(b[1:])), 3
	case 15:
		if len(b) < 5 {
			return f, 0, ErrIncomplete
		}
		size, header = 65805+uint64(binary.BigEndian.Uint32(b[1:])), 5
	}
	tkl := b[0] & 0xf
	if tkl == 15 {
		return f, 0, errTokenLength
	}
	if size > uint64(max) {
		return f, 0, ErrFrameTooLarge
	}
	if len(b) < header+1 {
		return f, 0, ErrIncomplete
	}
	f.Code = Code(b[header])
	token, rest, err := parseToken(tkl, b[header+1:])
	if err != nil { // tkl 15 is excluded: the bytes end inside the token
		if len(b) > max {
			return f, 0, ErrFrameTooLarge
		}
		return f, 0, ErrIncomplete
	}
	if uint64(len(rest)) < size {
		if uint64(len(b)-len(rest))+size > uint64(max) {
			return f, 0, ErrFrameTooLarge
		}
		return f, 0, ErrIncomplete
	}
	n = len(b) - len(rest) + int(size)
	if n > max {
		return f, 0, ErrFrameTooLarge
	}
	f.Token, f.Body = token, rest[:size:size]
	if f.Code == Empty && (len(f.Token) != 0 || len(f.Body) != 0) {
		// RFC 8323 §3.3: an Empty message over a stream is ignored whatever it
		// holds, so the frame is returned for the caller to skip.
		f.Token, f.Body = nil, nil
	}
	return f, n, nil
}

// Append appends the frame's bytes. A body above 4 GiB + 65804 does not fit a
// frame and cannot be had in memory here.
func (f Frame) Append(dst []byte) []byte {
	t := nibble(uint32(len(f.Token)))
	size := uint64(len(f.Body))
	switch {
	case size < 13:
		dst = append(dst, byte(size)<<4|t)
	case size < 269:
		dst = append(dst, 13<<4|t, byte(size-13))
	case size < 65805:
		dst = append(dst, 14<<4|t)
		dst = binary.BigEndian.AppendUint16(dst, uint16(size-269))
	default:
		dst = append(dst, 15<<4|t)
		dst = binary.BigEndian.AppendUint32(dst, uint32(size-65805))
	}
	dst = append(dst, byte(f.Code))
	dst = appendExtended(dst, t, uint32(len(f.Token)))
	dst = append(dst, f.Token...)
	return append(dst, f.Body...)
}
