package lwm2m

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Attributes are the notification attributes of one path (LwM2M Core §7.3.2).
type Attributes struct {
	PMin, PMax         *int64 // seconds
	Greater, Less      *float64
	Step               *float64
	Confirm            *bool
	EPMin, EPMax, Edge *int64
	HQMax              *int64
}

// parse applies one query such as pmin=10; a name alone removes the attribute.
func (a *Attributes) parse(query string) error {
	name, s, set := strings.Cut(query, "=")
	bad := fmt.Errorf("%w: attribute %q", ErrBadRequest, query)
	integers := map[string]**int64{"pmin": &a.PMin, "pmax": &a.PMax, "epmin": &a.EPMin, "epmax": &a.EPMax, "edge": &a.Edge, "hqmax": &a.HQMax}
	floats := map[string]**float64{"gt": &a.Greater, "lt": &a.Less, "st": &a.Step}
	switch {
	case integers[name] != nil:
		if !set {
			*integers[name] = nil
			return nil
		}
		i, err := strconv.ParseInt(s, 10, 64)
		if err != nil || i < 0 || i > math.MaxInt32 {
			return bad
		}
		*integers[name] = &i
	case floats[name] != nil:
		if !set {
			*floats[name] = nil
			return nil
		}
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || name == "st" && f < 0 {
			return bad
		}
		*floats[name] = &f
	case name == "con":
		if set && s != "0" && s != "1" {
			return bad
		}
		b := s == "1"
		if a.Confirm = &b; !set {
			a.Confirm = nil
		}
	default:
		return bad
	}
	return nil
}

// String returns the attributes as they stand in a link: ;pmin=10;gt=25.
func (a Attributes) String() string {
	var b strings.Builder
	for _, x := range []struct {
		name string
		v    *int64
	}{{"pmin", a.PMin}, {"pmax", a.PMax}, {"epmin", a.EPMin}, {"epmax", a.EPMax}, {"edge", a.Edge}, {"hqmax", a.HQMax}} {
		if x.v != nil {
			fmt.Fprintf(&b, ";%s=%d", x.name, *x.v)
		}
	}
	for _, x := range []struct {
		name string
		v    *float64
	}{{"gt", a.Greater}, {"lt", a.Less}, {"st", a.Step}} {
		if x.v != nil {
			fmt.Fprintf(&b, ";%s=%s", x.name, strconv.FormatFloat(*x.v, 'f', -1, 64))
		}
	}
	if a.Confirm != nil {
		fmt.Fprintf(&b, ";con=%s", Bool(*a.Confirm))
	}
	return b.String()
}

// over fills what is missing from the attributes of the level above.
func (a Attributes) over(above Attributes) Attributes {
	inherit(&a.PMin, above.PMin)
	inherit(&a.PMax, above.PMax)
	inherit(&a.Confirm, above.Confirm)
	return a
}

func inherit[T any](dst **T, v *T) {
	if *dst == nil {
		*dst = v
	}
}

// Periods returns pmin and pmax as durations, 0 where there is none; a pmax
// below pmin is ignored (LwM2M Core §7.3.2).
func (a Attributes) Periods() (least, most time.Duration) {
	if a.PMin != nil {
		least = time.Duration(*a.PMin) * time.Second
	}
	if a.PMax != nil && (a.PMin == nil || *a.PMax >= *a.PMin) {
		most = time.Duration(*a.PMax) * time.Second
	}
	return least, most
}

// Worth reports whether a change from the value last notified to another is
// to be notified: it crosses gt or lt, or is at least st.
func (a Attributes) Worth(last, now Value) bool {
	x, ok1 := last.number()
	y, ok2 := now.number()
	if !ok1 || !ok2 || a.Greater == nil && a.Less == nil && a.Step == nil {
		return true
	}
	crosses := func(at *float64) bool {
		return at != nil && (x > *at) != (y > *at)
	}
	return crosses(a.Greater) || crosses(a.Less) || a.Step != nil && math.Abs(y-x) >= *a.Step
}

// SetAttributes writes attributes, all of the queries or none.
func (o *Objects) SetAttributes(path Path, queries []string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.read(path); err != nil {
		return err
	}
	a := o.attributes[path]
	for _, q := range queries {
		if err := a.parse(q); err != nil {
			return err
		}
	}
	thresholds := a.Greater != nil || a.Less != nil || a.Step != nil
	if thresholds && path.Depth() < 3 {
		return fmt.Errorf("%w: gt, lt and st belong to a resource", ErrBadRequest)
	}
	if a.Greater != nil && a.Less != nil {
		step := 0.0
		if a.Step != nil {
			step = *a.Step
		}
		if *a.Less+2*step >= *a.Greater {
			return fmt.Errorf("%w: lt + 2*st must be below gt", ErrBadRequest)
		}
	}
	o.attributes[path] = a
	return nil
}

// Attributes returns those in force for a path: its own and, for the periods,
// those of the levels above.
func (o *Objects) Attributes(path Path) Attributes {
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.attributes[path]
	for depth := path.Depth() - 1; depth > 0; depth-- {
		a = a.over(o.attributes[path.Up(depth)])
	}
	return a
}
