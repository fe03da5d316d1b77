package lwm2m

import (
	"errors"
	"testing"
)

func TestPaths(t *testing.T) {
	for in, want := range map[string]string{"/": "/", "": "/", "/3": "/3", "3/0": "/3/0", "/3/0/0": "/3/0/0", "/19/0/0/65534": "/19/0/0/65534"} {
		if p, err := ParsePath(in); err != nil || p.String() != want {
			t.Errorf("%q: %v %v", in, p, err)
		}
	}
	for _, in := range []string{"/x", "/3//0", "/3/0/0/0/0", "/65535", "/65536", "/03", "/+3", "/-1", "//"} {
		if p, err := ParsePath(in); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%q: %v %v", in, p, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	o := standardObjects(t)
	for path, want := range map[string]error{
		"/0": ErrUnauthorized, "/0/0/0": ErrUnauthorized, "/21/0": ErrUnauthorized,
		"/4": ErrNotFound, "/3/1": ErrNotFound, "/3/0/77": ErrNotFound, "/3/0/6/9": ErrNotFound, "/3/0/0/0": ErrNotFound,
		"/3/0/4": ErrNotAllowed, "/5/0/0": ErrNotAllowed, "/": ErrNotAllowed,
	} {
		if _, err := o.Read(MustPath(path)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}

// texts returns what is at a path, in order.
func texts(t *testing.T, o *Objects, path string) (out []string) {
	t.Helper()
	records, err := o.Read(MustPath(path))
	if err != nil {
		t.Fatal(path, err)
	}
	for _, r := range records {
		out = append(out, r.Path.String()+"="+r.Value.String())
	}
	return out
}

func TestWrite(t *testing.T) {
	rec := func(path string, v Value) Record { return Record{MustPath(path), v} }
	for _, c := range []struct {
		name, path string
		mode       Mode
		records    []Record
		want       error
		at         string
		then       []string
	}{
		{"a resource", "/3/0/14", Replace, []Record{rec("/3/0/14", Str("Z"))}, nil, "/3/0/14", []string{"/3/0/14=Z"}},
		{"replace an instance", "/3303/0", Replace, nil, nil, "/3303/0/5700", []string{"/3303/0/5700=20.5"}},
		{"replace removes what is optional", "/19/0", Replace, []Record{rec("/19/0/0/3", Bytes([]byte("x")))}, nil, "/19/0", []string{"/19/0/0/3=eA=="}},
		{"update keeps the rest", "/19/1", Update, []Record{rec("/19/1/0/3", Bytes([]byte("x")))}, nil, "/19/1", []string{"/19/1/0/0=dXBsaW5r", "/19/1/0/3=eA=="}},
		{"an optional resource that was not there", "/19/1/3", Replace, []Record{rec("/19/1/3", Str("d"))}, nil, "/19/1/3", []string{"/19/1/3=d"}},
		{"read only", "/3/0/0", Replace, []Record{rec("/3/0/0", Str("x"))}, ErrNotAllowed, "/3/0/0", []string{"/3/0/0=Open Mobile Device"}},
		{"all or nothing", "/3/0", Update, []Record{rec("/3/0/14", Str("x")), rec("/3/0/0", Str("x"))}, ErrNotAllowed, "/3/0/14", []string{"/3/0/14=+02:00"}},
		{"another type", "/3/0/14", Replace, []Record{rec("/3/0/14", Int(1))}, ErrBadRequest, "/3/0/14", []string{"/3/0/14=+02:00"}},
		{"an unknown instance", "/3/7/14", Replace, []Record{rec("/3/7/14", Str("x"))}, ErrNotFound, "/3/0/14", []string{"/3/0/14=+02:00"}},
		{"an object", "/3", Replace, []Record{rec("/3/0/14", Str("x"))}, ErrNotAllowed, "/3/0/14", []string{"/3/0/14=+02:00"}},
		{"security", "/0/0/0", Replace, []Record{rec("/0/0/0", Str("x"))}, ErrUnauthorized, "/3/0/14", []string{"/3/0/14=+02:00"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := standardObjects(t)
			if err := o.Write(MustPath(c.path), c.records, c.mode); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			got := texts(t, o, c.at)
			if len(got) != len(c.then) {
				t.Fatalf("%q, want %q", got, c.then)
			}
			for i := range got {
				if got[i] != c.then[i] {
					t.Errorf("%q, want %q", got, c.then)
				}
			}
		})
	}
}

func TestCreateAndDelete(t *testing.T) {
	o := standardObjects(t)
	var changes []Change
	o.OnChange(func(c Change) { changes = append(changes, c) })
	at, err := o.Create(MustPath("/19"), []Record{{MustPath("/19/7/0/0"), Bytes([]byte("new"))}})
	if err != nil || at != MustPath("/19/7") {
		t.Fatal(at, err)
	}
	if _, err := o.Create(MustPath("/19"), []Record{{MustPath("/19/7/0/0"), Bytes(nil)}}); !errors.Is(err, ErrBadRequest) {
		t.Error(err)
	}
	if _, err := o.Create(MustPath("/3"), []Record{{MustPath("/3/1/14"), Str("")}}); !errors.Is(err, ErrNotAllowed) {
		t.Error(err)
	}
	if err := o.Delete(at); err != nil {
		t.Error(err)
	}
	if err := o.Delete(at); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := o.Delete(MustPath("/3/0")); !errors.Is(err, ErrNotAllowed) {
		t.Error(err)
	}
	if len(changes) != 2 || !changes[0].Instances || !changes[1].Instances {
		t.Errorf("%+v", changes)
	}
}

func TestLinks(t *testing.T) {
	o := standardObjects(t)
	if got, want := o.Links(), `</>;rt="oma.lwm2m";ct="110 112 11542",</1>;ver=1.1,</1/0>,</3>;ver=1.1,</3/0>,</5/0>,</6/0>,</19/0>,</19/1>,</3303/0>,</3303/1>`; got != want {
		t.Errorf("\n%s\n%s", got, want)
	}
	if err := o.SetAttributes(MustPath("/3303/0/5700"), []string{"pmin=1", "gt=25", "lt=10.5"}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/3303/0":      "</3303/0>,</3303/0/5601>,</3303/0/5602>,</3303/0/5605>,</3303/0/5700>;pmin=1;gt=25;lt=10.5,</3303/0/5701>,</3303/0/5750>",
		"/3303/0/5700": "</3303/0/5700>;pmin=1;gt=25;lt=10.5",
		"/3/0/6":       "</3/0/6>;dim=2,</3/0/6/0>,</3/0/6/1>",
		"/19":          "</19>,</19/0>,</19/0/0>;dim=1,</19/0/1>,</19/1>,</19/1/0>;dim=1",
	} {
		if got, err := o.Discover(MustPath(path)); err != nil || got != want {
			t.Errorf("%s: %v\n%s\n%s", path, err, got, want)
		}
	}
	if _, err := o.Discover(MustPath("/21")); !errors.Is(err, ErrUnauthorized) {
		t.Error(err)
	}
}

func TestAttributes(t *testing.T) {
	o := standardObjects(t)
	at := MustPath("/3303/0/5700")
	for _, c := range []struct {
		path    string
		queries []string
		want    error
	}{
		{"/3303/0", []string{"pmin=5", "pmax=60"}, nil},
		{"/3303/0/5700", []string{"st=2"}, nil},
		{"/3303/0/5700", []string{"pmin=x"}, ErrBadRequest},
		{"/3303/0/5700", []string{"st=3", "bogus=1"}, ErrBadRequest}, // all or none
		{"/3303/0/5700", []string{"lt=10", "gt=11"}, ErrBadRequest},  // lt + 2 st is not below gt
		{"/3303/0", []string{"gt=1"}, ErrBadRequest},
		{"/3303/9", []string{"pmin=1"}, ErrNotFound},
	} {
		if err := o.SetAttributes(MustPath(c.path), c.queries); !errors.Is(err, c.want) {
			t.Errorf("%s %q: %v, want %v", c.path, c.queries, err, c.want)
		}
	}
	a := o.Attributes(at)
	if least, most := a.Periods(); least.Seconds() != 5 || most.Seconds() != 60 {
		t.Error(least, most)
	}
	for _, c := range []struct {
		from, to float64
		worth    bool
	}{{20, 21.9, false}, {20, 22, true}, {20, 18, true}} {
		if a.Worth(Num(c.from), Num(c.to)) != c.worth {
			t.Errorf("st=2: %v → %v", c.from, c.to)
		}
	}
	if err := o.SetAttributes(at, []string{"st", "gt=25"}); err != nil {
		t.Fatal(err)
	}
	a = o.Attributes(at)
	for _, c := range []struct {
		from, to float64
		worth    bool
	}{{20, 25, false}, {20, 25.1, true}, {26, 24, true}, {26, 30, false}} {
		if a.Worth(Num(c.from), Num(c.to)) != c.worth {
			t.Errorf("gt=25: %v → %v", c.from, c.to)
		}
	}
}

func TestExecuteCounts(t *testing.T) {
	o := standardObjects(t)
	for want := 1; want <= 3; want++ {
		if n, err := o.Execute(MustPath("/3/0/4"), ""); n != want || err != nil {
			t.Error(n, err)
		}
	}
	for _, path := range []string{"/3/0/0", "/3/0", "/3"} {
		if _, err := o.Execute(MustPath(path), ""); !errors.Is(err, ErrNotAllowed) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if o.Executed(MustPath("/3/0/4")) != 3 || o.Executed(MustPath("/3/0/5")) != 0 {
		t.Error("counts are wrong")
	}
}
