package oscore

import (
	"bytes"
	"testing"
)

func TestUnwrapBstr(t *testing.T) {
	for wrapped, content := range map[string]string{
		"\x40": "", "\x41a": "a", "\x58\x01a": "a", "\x59\x00\x01a": "a",
		"\x57" + string(make([]byte, 23)): string(make([]byte, 23)), "\x58\x18" + string(make([]byte, 24)): string(make([]byte, 24)),
	} {
		if got, err := UnwrapBstr([]byte(wrapped)); err != nil || string(got) != content {
			t.Errorf("%x: %x, %v, want %x", wrapped, got, err, content)
		}
	}
	for _, b := range []string{
		"", "\x41", "\x41ab", "\x40a", "\x58", "\x58\x02a", "\x59", "\x59\x00", "\x59\x00\x02a", "\x5a\x00\x00\x00\x01a", "\x5c", "\x5fa\xff", "\x61a", "\x01",
	} {
		_, err := UnwrapBstr([]byte(b))
		want(t, err, errBstr)
	}
	for _, n := range []int{0, 1, 23, 24, 255, 256, 300} {
		b := bytes.Repeat([]byte{7}, n)
		got, err := UnwrapBstr(WrapBstr(b))
		if want(t, err, nil); !bytes.Equal(got, b) {
			t.Errorf("%d bytes come back as %x", n, got)
		}
	}
}
