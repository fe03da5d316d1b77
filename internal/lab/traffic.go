package lab

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/oscorelay/oscorelay/internal/demo"
)

// traffic is what must work.
var traffic = []step[*Lab]{
	{"read", func(l *Lab) (string, error) {
		return "answered", l.expect("GET", "/oscore/hello/1", nil, "2.05", []byte("Hello World!"))
	}},
	{"write", func(l *Lab) (string, error) {
		return "done once", errors.Join(
			l.expect("PUT", "/value", []byte("21.5"), "2.04", nil),
			l.once("/value", 1))
	}},
	{"observe", observe},
	{"20 KB down, block-wise", func(l *Lab) (string, error) {
		return "byte-identical", l.expect("GET", "/large", nil, "2.05", demo.Large())
	}},
	{"20 KB up, block-wise", func(l *Lab) (string, error) {
		body := make([]byte, demo.LargeSize)
		if _, err := rand.Read(body); err != nil {
			return "", err
		}
		return "byte-identical", errors.Join(l.expect("PUT", "/large", body, "2.04", nil), l.expect("GET", "/large", nil, "2.05", body))
	}},
	{"server asks the device", func(l *Lab) (string, error) {
		return "answered, sealed", l.expect("POST", "/callback", []byte("/3/0/0"), "2.04", []byte("Open Mobile Device"))
	}},
	{"kill -9 of the server", func(l *Lab) (string, error) {
		if err := l.killServer(); err != nil {
			return "", err
		}
		return "back after one Echo", l.expect("GET", "/oscore/hello/1", nil, "2.05", []byte("Hello World!"))
	}},
	{"kill -9 of the device", func(l *Lab) (string, error) {
		if err := l.killDevice(); err != nil {
			return "", err
		}
		return "back, no number used twice", l.expect("GET", "/oscore/hello/1", nil, "2.05", []byte("Hello World!"))
	}},
}

// once checks how often a path's handler ran.
func (l *Lab) once(path string, want int) error {
	if n := settled(want, func() int { return l.handledCount(path) }); n != want {
		return fmt.Errorf("the handler of %s ran %d times, not %d", path, n, want)
	}
	return nil
}

// observe registers, changes the resource, and waits for the notification.
func observe(l *Lab) (string, error) {
	wait := l.begin(request{Method: "OBSERVE", Path: "/value"})
	first, err := wait()
	if err != nil {
		return "", err
	}
	if err := first.is("2.05", []byte("21.5")); err != nil {
		return "", err
	}
	for _, v := range []string{"22.0", "22.5"} {
		from := l.device.mark()
		if err := l.expect("PUT", "/value", []byte(v), "2.04", nil); err != nil {
			return "", err
		}
		if _, err := l.device.wait(10*time.Second, from, func(x line) bool {
			return x.ID == first.ID && x.Event == "notification" && bytes.Equal(x.Payload, []byte(v))
		}); err != nil {
			return "", fmt.Errorf("no notification of %s: %w", v, err)
		}
	}
	return "every change notified", nil
}
