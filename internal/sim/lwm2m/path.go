package lwm2m

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Path names an object, an instance, a resource or a resource instance. The
// zero value is the root.
type Path struct {
	ids [4]uint16
	n   int
}

// NewPath returns the path of up to four IDs.
func NewPath(ids ...uint16) Path {
	var p Path
	p.n = copy(p.ids[:], ids)
	return p
}

// ParsePath reads a path such as /3/0/0; the leading slash may be missing.
func ParsePath(s string) (Path, error) {
	var p Path
	s = strings.TrimPrefix(s, "/")
	if s == "" {
		return p, nil
	}
	for part := range strings.SplitSeq(s, "/") {
		id, err := strconv.ParseUint(part, 10, 16)
		if err != nil || p.n == len(p.ids) || part[0] == '+' || len(part) > 1 && part[0] == '0' || id == 65535 {
			return Path{}, fmt.Errorf("%w: %q is not a path such as /3/0/0", ErrBadRequest, s)
		}
		p.ids[p.n] = uint16(id)
		p.n++
	}
	return p, nil
}

// MustPath is ParsePath for paths in the program's text.
func MustPath(s string) Path {
	p, err := ParsePath(s)
	if err != nil {
		panic(err) // a mistake in the program
	}
	return p
}

// String returns the path with a leading slash.
func (p Path) String() string {
	b := make([]byte, 0, 24)
	for _, id := range p.ids[:p.n] {
		b = strconv.AppendUint(append(b, '/'), uint64(id), 10)
	}
	if p.n == 0 {
		return "/"
	}
	return string(b)
}

// Depth is the number of IDs: 1 for an object, 2 an instance, 3 a resource, 4
// a resource instance.
func (p Path) Depth() int { return p.n }

// ID returns the ID at that place, from 0.
func (p Path) ID(i int) uint16 { return p.ids[i] }

// Child returns the path one step down.
func (p Path) Child(id uint16) Path {
	p.ids[p.n] = id
	p.n++
	return p
}

// Up returns the path cut to that depth.
func (p Path) Up(depth int) Path {
	for i := depth; i < p.n; i++ {
		p.ids[i] = 0
	}
	p.n = min(p.n, depth)
	return p
}

// Holds reports whether q is p or lies below it.
func (p Path) Holds(q Path) bool { return p.n <= q.n && q.Up(p.n) == p }

func comparePaths(a, b Path) int {
	if c := slices.Compare(a.ids[:a.n], b.ids[:b.n]); c != 0 {
		return c
	}
	return cmp.Compare(a.n, b.n)
}
