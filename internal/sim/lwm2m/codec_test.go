package lwm2m

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func standardObjects(t testing.TB) *Objects {
	t.Helper()
	return Standard(300, "U", 2, Security{URI: "coap://192.0.2.1"})
}

// specification returns a device with the values of LwM2M Core §7.4.3.2.1,
// whose bytes the specification prints.
func specification(t testing.TB) *Objects {
	t.Helper()
	o := NewObjects(&Object{ID: 3, Resources: map[uint16]Definition{
		0: {"Manufacturer", String, R, false, false}, 1: {"Model", String, R, false, false},
		2: {"Serial", String, R, false, false}, 3: {"Firmware", String, R, false, false},
		6: {"Sources", Integer, R, true, false}, 7: {"Voltage", Integer, R, true, false}, 8: {"Current", Integer, R, true, false},
		9: {"Battery", Integer, R, false, false}, 10: {"Memory", Integer, R, false, false}, 11: {"Error", Integer, R, true, false},
		13: {"Time", Time, R, false, false}, 14: {"Offset", String, RW, false, false}, 16: {"Binding", String, R, false, false},
	}})
	for path, v := range map[string]Value{
		"/3/0/0": Str("Open Mobile Alliance"), "/3/0/1": Str("Lightweight M2M Client"), "/3/0/2": Str("345000123"), "/3/0/3": Str("1.0"),
		"/3/0/6/0": Int(1), "/3/0/6/1": Int(5), "/3/0/7/0": Int(3800), "/3/0/7/1": Int(5000), "/3/0/8/0": Int(125), "/3/0/8/1": Int(900),
		"/3/0/9": Int(100), "/3/0/10": Int(15), "/3/0/11/0": Int(0), "/3/0/13": Seconds(1367491215), "/3/0/14": Str("+02:00"), "/3/0/16": Str("U"),
	} {
		if err := o.Set(MustPath(path), v); err != nil {
			t.Fatal(path, err)
		}
	}
	return o
}

// TestSpecificationTLV compares with the bytes that LwM2M Core 1.1 prints for
// its example of the Device object.
func TestSpecificationTLV(t *testing.T) {
	const want = "c800144f70656e204d6f62696c6520416c6c69616e6365" +
		"c801164c69676874776569676874204d324d20436c69656e74" +
		"c80209333435303030313233" + "c303312e30" +
		"8606410001410105" + "88070842000ed842011388" + "87084100 7d42010384" +
		"c10964" + "c10a0f" + "830b410000" + "c40d5182428f" + "c60e2b30323a3030" + "c11055"
	o := specification(t)
	records, err := o.Read(MustPath("/3/0"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Encode(TLV, MustPath("/3/0"), records)
	if err != nil {
		t.Fatal(err)
	}
	if w := strings.ReplaceAll(want, " ", ""); hex.EncodeToString(got) != w {
		t.Errorf("got  %x\nwant %s", got, w)
	}
	back, err := Decode(TLV, MustPath("/3/0"), got, o)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, back, records)
}

func equal(t testing.TB, got, want []Record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d:\n%v\n%v", len(got), len(want), got, want)
	}
	for i := range got {
		if got[i].Path != want[i].Path || !got[i].Value.Equal(want[i].Value) {
			t.Errorf("record %d is %v %v, want %v %v", i, got[i].Path, got[i].Value, want[i].Path, want[i].Value)
		}
	}
}

// TestFormats has the bytes of each format, worked out by hand from the
// specifications, and reads them back.
func TestFormats(t *testing.T) {
	o := standardObjects(t)
	for _, c := range []struct {
		path   string
		format int
		want   string // hex: at the start
	}{
		{"/3/0/0", Text, hex.EncodeToString([]byte("Open Mobile Device"))},
		{"/6/0/1", Text, hex.EncodeToString([]byte("-7.25"))},
		{"/1/0/6", Text, "30"},
		{"/3/0/22/0", Text, hex.EncodeToString([]byte("19:0"))},
		{"/19/1/0/0", Text, hex.EncodeToString([]byte("dXBsaW5r"))},
		{"/19/1/0/0", Octets, hex.EncodeToString([]byte("uplink"))},
		{"/3/0/9", TLV, "c10964"},
		{"/3/0/6", TLV, "8606410001410105"},
		{"/3/0/6/1", TLV, "410105"},
		{"/3/0/22", TLV, "861644000013" + "0000"},
		{"/6/0/1", TLV, "c401c0e80000"},          // -7.25 as a float of 4 bytes
		{"/6/0/0", TLV, "c8000840" + "45c94120"}, // 43.5723 needs 8
		{"/3303/0/5700", TLV, "e4164441a40000"},  // ID of 2 bytes, 20.5
		{"/3/0/9", SenMLJSON, hex.EncodeToString([]byte(`[{"bn":"/3/0/9","v":100}]`))},
		{"/3/0/6", SenMLJSON, hex.EncodeToString([]byte(`[{"bn":"/3/0/6/","n":"0","v":1},{"n":"1","v":5}]`))},
		{"/1/0/6", SenMLJSON, hex.EncodeToString([]byte(`[{"bn":"/1/0/6","vb":false}]`))},
		{"/3/0/22/0", SenMLJSON, hex.EncodeToString([]byte(`[{"bn":"/3/0/22/0","vlo":"19:0"}]`))},
		{"/19/1/0/0", SenMLJSON, hex.EncodeToString([]byte(`[{"bn":"/19/1/0/0","vd":"dXBsaW5r"}]`))},
		{"/3/0/9", SenMLCBOR, "81" + "a2" + "21" + "66" + hex.EncodeToString([]byte("/3/0/9")) + "02" + "1864"},
		{"/3/0/14", SenMLCBOR, "81" + "a2" + "21" + "67" + hex.EncodeToString([]byte("/3/0/14")) + "03" + "66" + hex.EncodeToString([]byte("+02:00"))},
		{"/6/0/1", SenMLCBOR, "81" + "a2" + "21" + "66" + hex.EncodeToString([]byte("/6/0/1")) + "02" + "f9c740"}, // -7.25
		{"/1/0/6", SenMLCBOR, "81" + "a2" + "21" + "66" + hex.EncodeToString([]byte("/1/0/6")) + "04" + "f4"},
		{"/3/0/22/0", SenMLCBOR, "81" + "a2" + "21" + "69" + hex.EncodeToString([]byte("/3/0/22/0")) + "63766c6f" + "64" + hex.EncodeToString([]byte("19:0"))},
		{"/19/1/0/0", SenMLCBOR, "81" + "a2" + "21" + "69" + hex.EncodeToString([]byte("/19/1/0/0")) + "08" + "46" + hex.EncodeToString([]byte("uplink"))},
	} {
		path := MustPath(c.path)
		records, err := o.Read(path)
		if err != nil {
			t.Fatal(c.path, err)
		}
		got, err := Encode(c.format, path, records)
		if err != nil {
			t.Fatalf("%s in %d: %v", c.path, c.format, err)
		}
		if !strings.HasPrefix(hex.EncodeToString(got), c.want) || c.path != "/6/0/0" && len(got)*2 != len(c.want) {
			t.Errorf("%s in %d:\n%x %q\n%s", c.path, c.format, got, got, c.want)
		}
		back, err := Decode(c.format, path, got, o)
		if err != nil {
			t.Errorf("%s in %d: %v", c.path, c.format, err)
			continue
		}
		equal(t, back, records)
	}
}

// TestRoundTrips reads whole objects and instances in the formats that hold
// them.
func TestRoundTrips(t *testing.T) {
	o := standardObjects(t)
	for _, s := range []string{"/1", "/3", "/3/0", "/5/0", "/6", "/19", "/3303", "/3303/1"} {
		for _, format := range []int{TLV, SenMLJSON, SenMLCBOR} {
			records, err := o.Read(MustPath(s))
			if err != nil {
				t.Fatal(s, err)
			}
			b, err := Encode(format, MustPath(s), records)
			if err != nil {
				t.Fatal(s, format, err)
			}
			back, err := Decode(format, MustPath(s), b, o)
			if err != nil {
				t.Fatal(s, format, err)
			}
			equal(t, back, records)
		}
	}
}

func TestBadPayloads(t *testing.T) {
	o := standardObjects(t)
	unhex := func(s string) string {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, c := range []struct {
		name, path string
		format     int
		payload    string
		want       error
	}{
		{"text of an instance", "/3/0", Text, "x", ErrFormat},
		{"text that is no number", "/1/0/1", Text, "5x", ErrBadRequest},
		{"text that is no boolean", "/1/0/6", Text, "true", ErrBadRequest},
		{"text of nothing", "/3/0/77", Text, "x", ErrNotFound},
		{"octets of a string", "/3/0/14", Octets, "x", ErrFormat},
		{"unknown format", "/3/0/14", 60, "x", ErrFormat},
		{"TLV cut in its head", "/3/0", TLV, unhex("c8"), ErrBadRequest},
		{"TLV cut in its value", "/3/0", TLV, unhex("c60e2b30"), ErrBadRequest},
		{"TLV of another resource", "/3/0/14", TLV, unhex("c10f41"), ErrBadRequest},
		{"TLV of another instance", "/3/0", TLV, unhex("0301c10f41"), ErrBadRequest},
		{"TLV integer of 3 bytes", "/1/0", TLV, unhex("c301000001"), ErrBadRequest},
		{"TLV of an unknown resource", "/3/0", TLV, unhex("c14d41"), ErrNotFound},
		{"JSON that is none", "/3/0", SenMLJSON, "{", ErrBadRequest},
		{"JSON with a tail", "/3/0", SenMLJSON, "[] []", ErrBadRequest},
		{"JSON outside of the path", "/3/0", SenMLJSON, `[{"n":"/1/0/1","v":1}]`, ErrBadRequest},
		{"JSON of another type", "/3/0", SenMLJSON, `[{"n":"/3/0/14","v":1}]`, ErrBadRequest},
		{"JSON fraction in an integer", "/1/0", SenMLJSON, `[{"n":"/1/0/1","v":1.5}]`, ErrBadRequest},
		{"JSON name without slash", "/3/0", SenMLJSON, `[{"n":"3/0/14","vs":"x"}]`, ErrBadRequest},
		{"JSON path too deep", "/3/0", SenMLJSON, `[{"n":"/3/0/14/0/0","vs":"x"}]`, ErrBadRequest},
		{"CBOR that is none", "/3/0", SenMLCBOR, "\xff", ErrBadRequest},
		{"CBOR with a tail", "/3/0", SenMLCBOR, "\x80\x80", ErrBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Decode(c.format, MustPath(c.path), []byte(c.payload), o); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func FuzzTLV(f *testing.F) {
	o := Standard(300, "U", 2, Security{})
	paths := []string{"/3/0", "/3", "/19/0/0", "/19/0/0/0", "/3303/0", "/1/0/1", "/6/0", "/3/0/22"}
	for i, s := range paths {
		records, err := o.Read(MustPath(s))
		if err != nil {
			f.Fatal(err)
		}
		b, err := Encode(TLV, MustPath(s), records)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, b)
	}
	fuzzFormat(f, o, TLV, paths)
}

func FuzzSenMLCBOR(f *testing.F) { fuzzSenML(f, SenMLCBOR) }
func FuzzSenMLJSON(f *testing.F) { fuzzSenML(f, SenMLJSON) }

func fuzzSenML(f *testing.F, format int) {
	o := Standard(300, "U", 2, Security{})
	paths := []string{"/", "/3/0", "/1/0", "/3303/0/5700"}
	for i, s := range []string{"/6", "/3/0", "/1/0", "/3303/0/5700"} {
		records, err := o.Read(MustPath(s))
		if err != nil {
			f.Fatal(err)
		}
		b, err := Encode(format, MustPath(paths[i]), records)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, b)
	}
	fuzzFormat(f, o, format, paths)
}

// fuzzFormat: what decodes encodes, and decodes to the same.
func fuzzFormat(f *testing.F, o *Objects, format int, paths []string) {
	f.Fuzz(func(t *testing.T, which int, b []byte) {
		path := MustPath(paths[uint(which)%uint(len(paths))])
		records, err := Decode(format, path, b, o)
		if err != nil {
			return
		}
		for _, r := range records {
			if r.Value.Type == None {
				return // names a path; encoded as such by composite operations alone
			}
		}
		again, err := Encode(format, path, records)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(format, path, again, o)
		if err != nil {
			t.Fatalf("%x → %x: %v", b, again, err)
		}
		if format == TLV {
			return // gathers what stood apart: the order may differ
		}
		equal(t, back, records)
	})
}
