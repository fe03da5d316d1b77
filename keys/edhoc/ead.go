package edhoc

import (
	"fmt"
	"slices"
)

// maxEADs bounds the items of one EAD field.
const maxEADs = 32

// EAD is an item of external authorization data (RFC 9528 §3.8). EAD_1 and
// EAD_2 are unprotected, and every item reaches the application before its
// message is verified: nothing harmful may follow from one before the step
// that verifies has returned.
type EAD struct {
	Label    uint16 // the registered label; 0 is padding
	Critical bool   // travels as the negated label; a receiver that does not know it must give up
	Value    []byte // nil when the item has none
}

// Padding returns an item that adds n bytes to a message (RFC 9528 §3.8.1).
// n must be at least 1 and not 26 or 259, which no single item can add.
func Padding(n int) (EAD, error) {
	switch {
	case n == 1:
		return EAD{}, nil
	case n >= 2:
		for head := 1; head <= 3; head++ {
			if v := n - 1 - head; v >= 0 && len(appendHead(nil, majorBytes, uint64(v))) == head {
				return EAD{Value: randomBytes(v)}, nil
			}
		}
	}
	return EAD{}, fmt.Errorf("%w: no padding of %d bytes in one item", ErrConfig, n)
}

func appendEADs(dst []byte, items []EAD) []byte {
	for _, e := range items {
		label := int(e.Label)
		if e.Critical {
			label = -label
		}
		dst = appendInt(dst, label)
		if e.Value != nil {
			dst = appendBytes(dst, e.Value)
		}
	}
	return dst
}

// checkEADs refuses items that cannot travel.
func checkEADs(items []EAD) error {
	if len(items) > maxEADs {
		return fmt.Errorf("%w: %d EAD items, at most %d", ErrConfig, len(items), maxEADs)
	}
	for _, e := range items {
		if e.Label == 0 && e.Critical {
			return fmt.Errorf("%w: padding cannot be critical", ErrConfig)
		}
	}
	return nil
}

// eads consumes the rest of the sequence as an EAD field. Padding is dropped.
func (c *cursor) eads() ([]EAD, error) {
	var items []EAD
	for n := 0; !c.empty(); n++ {
		if n == maxEADs {
			return nil, fmt.Errorf("%w: more than %d EAD items", ErrMalformed, maxEADs)
		}
		label, err := c.int()
		if err != nil {
			return nil, fmt.Errorf("ead_label: %w", err)
		}
		e := EAD{Critical: label < 0}
		if e.Critical {
			label = -label
		}
		if label > 65535 {
			return nil, fmt.Errorf("%w: ead_label out of range", ErrMalformed)
		}
		e.Label = uint16(label)
		if major, ok := c.major(); ok && major == majorBytes {
			if e.Value, err = c.bytes(); err != nil {
				return nil, fmt.Errorf("ead_value: %w", err)
			}
		}
		if e.Label != 0 {
			items = append(items, e)
		}
	}
	return items, nil
}

// checkCritical refuses a critical item whose label is not among understood.
func checkCritical(items []EAD, understood []uint16) error {
	for _, e := range items {
		if e.Critical && !slices.Contains(understood, e.Label) {
			return fmt.Errorf("%w: label %d", ErrCriticalEAD, e.Label)
		}
	}
	return nil
}
