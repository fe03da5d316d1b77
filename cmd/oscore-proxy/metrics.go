package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/proxy"
)

// What one scrape may take.
const (
	scrapeTime   = 5 * time.Second
	scrapeHeader = 1 << 14 // bytes
	scrapes      = 16      // at a time
)

// serveMetrics serves /metrics until the context ends: HTTP/1.0, a connection a
// scrape, which every scraper speaks. The standard library's server would bring
// TLS, and with it code that knows keys, into a program that has none.
func serveMetrics(ctx context.Context, l net.Listener, p *proxy.Proxy, log *slog.Logger) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	free := make(chan struct{}, scrapes)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil {
				log.Error("metrics are served no more", "error", err.Error())
			}
			return
		}
		free <- struct{}{}
		go func() {
			defer func() { <-free }()
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(scrapeTime))
			in := bufio.NewReaderSize(conn, scrapeHeader)
			status, body := "404 Not Found", []byte("only /metrics is here\n")
			for first := true; ; first = false {
				line, err := in.ReadSlice('\n')
				if err != nil {
					return
				}
				if f := strings.Fields(string(line)); first && len(f) == 3 && f[0] == "GET" && strings.SplitN(f[1], "?", 2)[0] == "/metrics" {
					status, body = "200 OK", exposition(p.Stats())
				}
				if len(bytes.TrimSpace(line)) == 0 && !first {
					break
				}
			}
			fmt.Fprintf(conn, "HTTP/1.0 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", status, len(body))
			_, _ = conn.Write(body)
		}()
	}
}

// exposition writes the counters in the text format of Prometheus.
func exposition(s proxy.Stats) []byte {
	var b bytes.Buffer
	family := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP oscore_proxy_%s %s\n# TYPE oscore_proxy_%s %s\n", name, help, name, kind)
	}
	single := func(name, kind, help string, v any) {
		family(name, kind, help)
		fmt.Fprintf(&b, "oscore_proxy_%s %v\n", name, v)
	}
	single("requests_total", "counter", "Requests passed on.", s.Requests)
	single("responses_total", "counter", "Responses passed back, notifications included.", s.Responses)
	single("transfers_total", "counter", "Requests cut into blocks.", s.Transfers)
	single("moved_total", "counter", "Return addresses that moved with their device.", s.Moved)
	family("dropped_total", "counter", "Messages not passed on, by reason.")
	for _, reason := range proxy.Reasons {
		fmt.Fprintf(&b, "oscore_proxy_dropped_total{reason=%q} %d\n", reason, s.By[reason])
	}
	fmt.Fprintf(&b, "oscore_proxy_dropped_total{reason=\"too_long\"} %d\n", s.TooLong)
	fmt.Fprintf(&b, "oscore_proxy_dropped_total{reason=\"overrun\"} %d\n", s.Overrun)
	single("withheld_total", "counter", "Datagrams held back from addresses that have not shown that they receive.", s.Withheld)
	single("unsent_total", "counter", "Datagrams that the system did not take.", s.Unsent)
	single("exchanges", "gauge", "Requests under way.", s.Exchanges)
	single("observations", "gauge", "Observations.", s.Relations)
	single("upstream_sockets", "gauge", "Sockets toward servers.", s.Upstream)
	single("peers", "gauge", "Addresses remembered.", s.Peers)
	single("remembered_messages", "gauge", "Messages remembered to know their duplicates.", s.Remembered)
	single("outstanding_messages", "gauge", "Messages kept for retransmission or a Reset.", s.Outstanding)
	single("kept_bytes", "gauge", "Bytes kept for deduplication, retransmission and blocks.", s.Bytes)
	family("answer_seconds", "histogram", "From a request to its server's answer.")
	n := uint64(0)
	for i, k := range s.Latency.Buckets {
		n += k
		if i < len(s.Latency.Buckets)-1 {
			fmt.Fprintf(&b, "oscore_proxy_answer_seconds_bucket{le=\"%g\"} %d\n", float64(int(1)<<i)/1000, n)
		}
	}
	fmt.Fprintf(&b, "oscore_proxy_answer_seconds_bucket{le=\"+Inf\"} %d\noscore_proxy_answer_seconds_sum %g\noscore_proxy_answer_seconds_count %d\n", n, s.Latency.Sum.Seconds(), n)
	return b.Bytes()
}
