package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/proxy"
)

// log is an output that is read while it is written.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// await waits until the output matches, and returns the first group.
func (l *log) await(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		l.mu.Lock()
		text := l.b.String()
		l.mu.Unlock()
		if m := re.FindStringSubmatch(text); m != nil {
			return m[len(m)-1]
		}
		select {
		case <-deadline:
			t.Fatalf("no %q in %s", pattern, text)
		case <-tick.C:
		}
	}
}

// TestMetricsAndReload: the counters can be scraped while the proxy works, and
// a signal has it take new routes, or keep the old ones if the file is wrong.
func TestMetricsAndReload(t *testing.T) {
	file := write(t, "listen = \"127.0.0.1:0\"\ndrain = \"1s\"\n[[route]]\nto = \"127.0.0.1:1\"\n")
	ctx, cancel := context.WithCancel(t.Context())
	again, out, done := make(chan os.Signal), &log{}, make(chan int)
	go func() { done <- run(ctx, []string{"-config", file, "-metrics", "127.0.0.1:0"}, out, again) }()
	url := out.await(t, `address=(http://[^ \n]*)`)
	conn, err := net.Dial("udp", out.await(t, `proxy listens" address=([^ ]*)`))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{0xff}); err != nil {
		t.Fatal(err)
	}
	get := func(url string) (int, string) {
		t.Helper()
		r, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		status, text := get(url)
		if status != http.StatusOK {
			t.Fatal(status, text)
		}
		if strings.Contains(text, `oscore_proxy_dropped_total{reason="malformed"} 1`+"\n") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(text)
		}
	}
	if status, _ := get(strings.TrimSuffix(url, "/metrics") + "/secrets"); status != http.StatusNotFound {
		t.Error(status)
	}
	for _, c := range []struct{ text, want string }{
		{"[[route]]\nto = \"127.0.0.1\"\n", "is not taken"},
		{"[[rout]]\n", ":1: unknown key"},
		{"[[route]]\nto = \"127.0.0.1:1\"\n[[route]]\nto = \"127.0.0.1:2\"\n", "new routes.*routes=2"},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		again <- os.Interrupt
		out.await(t, c.want)
	}
	cancel()
	if status := <-done; status != 0 {
		t.Errorf("status %d", status)
	}
}

// TestExposition: every line is of the text format, every family is announced
// once, and the histogram adds up.
func TestExposition(t *testing.T) {
	s := proxy.Stats{Requests: 7, By: map[string]uint64{"timeout": 3}, Latency: proxy.Histogram{Count: 3, Sum: 1500 * time.Millisecond}}
	s.Latency.Buckets[0], s.Latency.Buckets[15] = 1, 2
	text := string(exposition(s))
	line := regexp.MustCompile(`^(# (HELP|TYPE) oscore_proxy_[a-z_]+ .+|oscore_proxy_[a-z_]+(\{[a-z]+="[^"]+"\})? [0-9.e+-]+)$`)
	types := map[string]int{}
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		if !line.MatchString(l) {
			t.Errorf("%q", l)
		}
		if rest, ok := strings.CutPrefix(l, "# TYPE "); ok {
			types[strings.Fields(rest)[0]]++
		}
	}
	for name, n := range types {
		if n != 1 {
			t.Errorf("%s is announced %d times", name, n)
		}
	}
	for _, want := range []string{
		"oscore_proxy_requests_total 7\n", `dropped_total{reason="timeout"} 3` + "\n",
		`bucket{le="0.001"} 1` + "\n", `bucket{le="16.384"} 1` + "\n", `bucket{le="+Inf"} 3` + "\n", "seconds_sum 1.5\n", "seconds_count 3\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestMetricsAddress: what cannot be listened on is said with the flag.
func TestMetricsAddress(t *testing.T) {
	var out bytes.Buffer
	status := run(t.Context(), []string{"-listen", "127.0.0.1:0", "-reverse", "127.0.0.1:1", "-metrics", "127.0.0.1"}, &out, nil)
	if status != 1 || !strings.Contains(out.String(), "-metrics 127.0.0.1: ") || !strings.Contains(out.String(), "such as 127.0.0.1:9464") {
		t.Errorf("status %d, %s", status, fmt.Sprint(out.String()))
	}
}
