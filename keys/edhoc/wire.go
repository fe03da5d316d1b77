package edhoc

import "fmt"

// CBOR's major types (RFC 8949 §3.1).
const (
	majorUint  = 0
	majorNint  = 1
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6
	majorOther = 7
)

// maxDepth bounds how deep the items of a message may be nested; a claims set
// with a key in it has four levels.
const maxDepth = 8

// cursor walks a CBOR sequence (RFC 8742) item by item. It takes nothing but
// deterministic encodings: shortest heads and definite lengths (RFC 8949
// §4.2.1, which RFC 9528 §3.1 demands). What it returns aliases the input.
type cursor struct{ rest []byte }

func (c *cursor) empty() bool { return len(c.rest) == 0 }

// major returns the major type of the next item.
func (c *cursor) major() (byte, bool) {
	if c.empty() {
		return 0, false
	}
	return c.rest[0] >> 5, true
}

// head consumes an initial byte and its argument.
func (c *cursor) head() (major byte, arg uint64, err error) {
	if c.empty() {
		return 0, 0, fmt.Errorf("%w: ends early", ErrMalformed)
	}
	first := c.rest[0]
	major, info := first>>5, first&0x1f
	if info < 24 {
		c.rest = c.rest[1:]
		return major, uint64(info), nil
	}
	if info == 31 {
		return 0, 0, fmt.Errorf("%w: indefinite length", ErrEncoding)
	}
	if info > 27 {
		return 0, 0, fmt.Errorf("%w: reserved additional information %d", ErrMalformed, info)
	}
	n := 1 << (info - 24)
	if len(c.rest) < 1+n {
		return 0, 0, fmt.Errorf("%w: ends early", ErrMalformed)
	}
	for _, b := range c.rest[1 : 1+n] {
		arg = arg<<8 | uint64(b)
	}
	// A float has no shorter head to be held to; everything else has.
	if major != majorOther || info == 24 {
		least := [...]uint64{24, 1 << 8, 1 << 16, 1 << 32}[info-24]
		if major == majorOther {
			least = 32
		}
		if arg < least {
			return 0, 0, fmt.Errorf("%w: longer than needed", ErrEncoding)
		}
	}
	c.rest = c.rest[1+n:]
	return major, arg, nil
}

// int consumes an integer that fits into 32 bits; EDHOC has no larger ones.
func (c *cursor) int() (int, error) {
	major, arg, err := c.head()
	switch {
	case err != nil:
		return 0, err
	case major > majorNint:
		return 0, fmt.Errorf("%w: not an integer", ErrMalformed)
	case arg > 1<<31-1:
		return 0, fmt.Errorf("%w: integer out of range", ErrMalformed)
	case major == majorNint:
		return -1 - int(arg), nil
	}
	return int(arg), nil
}

// bytes consumes a byte string.
func (c *cursor) bytes() ([]byte, error) { return c.string(majorBytes, "a byte string") }

// text consumes a text string.
func (c *cursor) text() ([]byte, error) { return c.string(majorText, "a text string") }

func (c *cursor) string(want byte, what string) ([]byte, error) {
	major, n, err := c.head()
	if err != nil {
		return nil, err
	}
	if major != want {
		return nil, fmt.Errorf("%w: not %s", ErrMalformed, what)
	}
	if n > uint64(len(c.rest)) {
		return nil, fmt.Errorf("%w: ends early", ErrMalformed)
	}
	s := c.rest[:n:n]
	c.rest = c.rest[n:]
	return s, nil
}

// item consumes one whole item of any type and returns its encoding.
func (c *cursor) item() ([]byte, error) {
	start := c.rest
	if err := c.skip(maxDepth); err != nil {
		return nil, err
	}
	n := len(start) - len(c.rest)
	return start[:n:n], nil
}

func (c *cursor) skip(depth int) error {
	if depth == 0 {
		return fmt.Errorf("%w: nested deeper than %d", ErrMalformed, maxDepth)
	}
	major, arg, err := c.head()
	if err != nil {
		return err
	}
	children := uint64(0)
	switch major {
	case majorBytes, majorText:
		if arg > uint64(len(c.rest)) {
			return fmt.Errorf("%w: ends early", ErrMalformed)
		}
		c.rest = c.rest[arg:]
	case majorArray:
		children = arg
	case majorMap:
		if arg > uint64(len(c.rest)) { // each pair takes two bytes; also keeps the doubling from overflowing
			return fmt.Errorf("%w: ends early", ErrMalformed)
		}
		children = 2 * arg
	case majorTag:
		children = 1
	}
	for ; children > 0; children-- {
		if err := c.skip(depth - 1); err != nil {
			return err
		}
	}
	return nil
}

// appendHead appends the shortest head for a major type and its argument.
func appendHead(dst []byte, major byte, n uint64) []byte {
	m := major << 5
	switch {
	case n < 24:
		return append(dst, m|byte(n))
	case n < 1<<8:
		return append(dst, m|24, byte(n))
	case n < 1<<16:
		return append(dst, m|25, byte(n>>8), byte(n))
	case n < 1<<32:
		return append(dst, m|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, m|27, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32),
		byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func appendInt(dst []byte, n int) []byte {
	if n < 0 {
		return appendHead(dst, majorNint, uint64(-1-n))
	}
	return appendHead(dst, majorUint, uint64(n))
}

func appendBytes(dst, s []byte) []byte {
	return append(appendHead(dst, majorBytes, uint64(len(s))), s...)
}

func appendText(dst []byte, s string) []byte {
	return append(appendHead(dst, majorText, uint64(len(s))), s...)
}
