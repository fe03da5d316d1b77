package coap

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDatagram(t *testing.T) {
	// RFC 8613 C.4's unprotected and protected requests.
	for _, s := range []string{
		"44015d1f00003974396c6f63616c686f737483747631",
		"44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e",
		"70000001", "40000001",
	} {
		b := unhex(t, s)
		d, err := ParseDatagram(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(d.Body); err != nil {
			t.Fatal(err)
		}
		if got := d.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%x became %x", b, got)
		}
	}
	d, _ := ParseDatagram(unhex(t, "44015d1f00003974396c6f63616c686f737483747631"))
	if d.Type != Confirmable || d.Code != GET || d.MessageID != 0x5d1f || hex.EncodeToString(d.Token) != "00003974" {
		t.Errorf("header %+v", d)
	}
	if p := Path(d.Body); p != "/tv1" {
		t.Errorf("path %q", p)
	}
	if h, ok := Find(d.Body, URIHost); !ok || string(h) != "localhost" {
		t.Errorf("host %q", h)
	}
}

func TestTokens(t *testing.T) {
	for _, n := range []int{0, 1, 8, 9, 12, 13, 268, 269, 1000, MaxToken} {
		d := Datagram{Code: POST, Token: bytes.Repeat([]byte{0xa5}, n), Body: []byte{0xff, 1}}
		got, err := ParseDatagram(d.Append(nil))
		if err != nil || !bytes.Equal(got.Token, d.Token) || !bytes.Equal(got.Body, d.Body) {
			t.Errorf("datagram token of %d bytes: %v", n, err)
		}
		f := Frame{Code: POST, Token: d.Token, Body: d.Body}
		enc := f.Append(nil)
		g, took, err := ParseFrame(enc, 1<<20)
		if err != nil || took != len(enc) || !bytes.Equal(g.Token, d.Token) || !bytes.Equal(g.Body, d.Body) {
			t.Errorf("frame token of %d bytes: %v", n, err)
		}
		for cut := range min(len(enc), 40) {
			if _, _, err := ParseFrame(enc[:cut], 1<<20); !errors.Is(err, ErrIncomplete) {
				t.Errorf("frame of %d cut at %d: %v", n, cut, err)
			}
		}
	}
}

func TestFormatErrors(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		want      error
	}{
		{"short header", "400100", errShort},
		{"version 0", "00010001", errVersion},
		{"version 2", "80010001", errVersion},
		{"token length 15", "4f010001", errTokenLength},
		{"token cut short", "440100010102", errShort},
		{"extended token cut short", "4d010001", errShort},
		{"second extended token cut short", "4e01000100", errShort},
		{"empty with token", "4100000101", errEmpty},
		{"empty with body", "40000001ff01", errEmpty},
	} {
		_, err := ParseDatagram(unhex(t, c.hex))
		if !errors.Is(err, c.want) || !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, c := range []struct {
		name, hex string
		want      error
	}{
		{"delta 15", "f0", errReservedDelta},
		{"length 15", "0f", errReservedLen},
		{"delta cut short", "d0", errOptionShort},
		{"second delta cut short", "e000", errOptionShort},
		{"length cut short", "0d", errOptionShort},
		{"second length cut short", "0e00", errOptionShort},
		{"value cut short", "b2aa", errOptionShort},
		{"number above 65535", "e0fef2e00000", errOptionNumber},
		{"marker without payload", "ff", errMarker},
		{"marker without payload after an option", "b161ff", errMarker},
	} {
		if err := Check(unhex(t, c.hex)); !errors.Is(err, c.want) || !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestFrameBounds(t *testing.T) {
	f := Frame{Code: PUT, Token: []byte{1}, Body: append([]byte{0xff}, make([]byte, 70000)...)}
	enc := f.Append(nil)
	if _, _, err := ParseFrame(enc[:5], 65536); !errors.Is(err, ErrFrameTooLarge) {
		t.Errorf("announced size above the maximum: %v", err)
	}
	if _, n, err := ParseFrame(append(enc, 1, 2), len(enc)); err != nil || n != len(enc) {
		t.Errorf("frame of exactly the maximum: %d %v", n, err)
	}
	if _, _, err := ParseFrame(enc, len(enc)-1); !errors.Is(err, ErrFrameTooLarge) {
		t.Errorf("one byte above the maximum: %v", err)
	}
	if _, _, err := ParseFrame([]byte{0x0f, 1}, 100); !errors.Is(err, errTokenLength) {
		t.Errorf("token length 15: %v", err)
	}
	g, n, err := ParseFrame(unhex(t, "2100aabbcc"), 100)
	if err != nil || n != 5 || len(g.Token)+len(g.Body) != 0 {
		t.Errorf("empty frame: %+v %d %v", g, n, err)
	}
}

func TestOptionsRoundTrip(t *testing.T) {
	long := bytes.Repeat([]byte{7}, 300)
	opts := Options{{URIPath, []byte("b")}, {65535, long}, {URIHost, []byte("h")}, {URIPath, []byte("c")}, {RequestTag, nil}, {2048, long[:13]}}
	body := AppendBody(nil, opts, []byte("payload"))
	got, payload, err := Split(body)
	if err != nil || string(payload) != "payload" {
		t.Fatal(err, payload)
	}
	want := Options{{URIHost, []byte("h")}, {URIPath, []byte("b")}, {URIPath, []byte("c")}, {RequestTag, nil}, {2048, long[:13]}, {65535, long}}
	if !got.Equal(want) {
		t.Errorf("got %v", got)
	}
	size := 0
	previous := uint16(0)
	for _, o := range want {
		size += OptionSize(previous, o.Number, len(o.Value))
		previous = o.Number
	}
	if size+1+len("payload") != len(body) {
		t.Errorf("OptionSize sums to %d of %d bytes", size, len(body))
	}
}

func TestBlock(t *testing.T) {
	for _, b := range []Block{{0, false, 0}, {0, true, 6}, {1, false, 2}, {MaxBlockNum, true, 6}, {15, true, 0}, {16, false, 5}} {
		got, err := ParseBlock(b.Append(nil))
		if err != nil || got != b {
			t.Errorf("%+v became %+v, %v", b, got, err)
		}
	}
	if _, err := ParseBlock([]byte{7}); !errors.Is(err, errBlockSize) {
		t.Error(err)
	}
	if _, err := ParseBlock([]byte{0, 0, 0, 1}); !errors.Is(err, errBlockLong) {
		t.Error(err)
	}
	for size, want := range map[int]uint8{0: 0, 16: 0, 31: 0, 32: 1, 1023: 5, 1024: 6, 5000: 6} {
		if got := SZX(size); got != want {
			t.Errorf("SZX(%d) = %d", size, got)
		}
	}
}

func TestUint(t *testing.T) {
	for _, v := range []uint32{0, 1, 255, 256, 65535, 65536, 1<<24 - 1, 1 << 24, 1<<32 - 1} {
		if got, ok := Uint(AppendUint(nil, v)); !ok || got != v {
			t.Errorf("%d became %d", v, got)
		}
	}
	if _, ok := Uint(make([]byte, 5)); ok {
		t.Error("five bytes accepted")
	}
}

func TestWalkDoesNotAllocate(t *testing.T) {
	body := AppendBody(nil, Options{{URIPath, []byte("sensors")}, {URIPath, []byte("temp")}, {ContentFormat, []byte{50}}}, []byte("x"))
	bad := []byte{0xf1}
	if n := testing.AllocsPerRun(100, func() {
		if Check(body) != nil || Check(bad) == nil {
			t.Fail()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzDatagram: whatever parses is rebuilt to a message that parses the same.
func FuzzDatagram(f *testing.F) {
	f.Add([]byte("\x44\x01\x5d\x1f\x00\x00\x39\x74\x39localhost\x83tv1"))
	f.Add([]byte{0x4d, 2, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDatagram(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error %v is no format error", err)
			}
			return
		}
		e, err := ParseDatagram(d.Append(nil))
		if err != nil || e.Type != d.Type || e.Code != d.Code || e.MessageID != d.MessageID || !bytes.Equal(e.Token, d.Token) || !bytes.Equal(e.Body, d.Body) {
			t.Fatalf("%x: %+v then %+v, %v", b, d, e, err)
		}
		checkBody(t, d.Body)
	})
}

// FuzzFrame: the same over streams, and a frame's bound is kept.
func FuzzFrame(f *testing.F) {
	f.Add([]byte{0x21, 1, 9, 0xff, 1})
	f.Add([]byte{0xf1, 0xff, 0xff, 0xff, 0xff, 1, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		g, n, err := ParseFrame(b, 2048)
		if err != nil {
			return
		}
		if n > 2048 || n > len(b) {
			t.Fatalf("took %d of %d", n, len(b))
		}
		h, m, err := ParseFrame(g.Append(nil), 4096)
		if err != nil || h.Code != g.Code || !bytes.Equal(h.Token, g.Token) || !bytes.Equal(h.Body, g.Body) || m > n {
			t.Fatalf("%x: %+v then %+v, %v", b[:n], g, h, err)
		}
		checkBody(t, g.Body)
	})
}

func checkBody(t *testing.T, body []byte) {
	opts, payload, err := Split(body)
	if err != nil {
		if !errors.Is(err, ErrFormat) {
			t.Fatalf("error %v is no format error", err)
		}
		return
	}
	again, payload2, err := Split(AppendBody(nil, opts, payload))
	if err != nil || !again.Equal(opts) || !bytes.Equal(payload, payload2) {
		t.Fatalf("body %x: %v", body, err)
	}
}
