package gocoap_test

import (
	"bytes"
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
	udpclient "github.com/plgd-dev/go-coap/v3/udp/client"
)

// getter is what both kinds of connections do.
type getter interface {
	Get(ctx context.Context, path string, opts ...message.Option) (*pool.Message, error)
	ReleaseMessage(m *pool.Message)
}

// BenchmarkGet is a confirmable GET of 64 bytes and its answer through loopback
// UDP, one at a time, in turn by go-coap alone and sealed: sealed/plain is the
// quotient of their times in this run.
func BenchmarkGet(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 64)
	h := mux.HandlerFunc(func(w mux.ResponseWriter, _ *mux.Message) {
		_ = w.SetResponse(codes.Content, message.AppOctets, bytes.NewReader(body))
	})
	l, err := coapnet.NewListenUDP("udp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := udp.NewServer(options.WithMux(h))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	b.Cleanup(func() {
		s.Stop()
		<-done
		l.Close()
	})
	// go-coap remembers each answer for 247 s and looks through all of them at
	// each datagram: a connection is slower the more it was used. The comparison
	// is with one that is always young.
	var young *udpclient.Conn
	used := 0
	plain := func() getter {
		if used++; young == nil || used%64 == 0 {
			if young != nil {
				young.Close()
			}
			if young, err = udp.Dial(l.LocalAddr().String()); err != nil {
				b.Fatal(err)
			}
		}
		return young
	}
	defer func() { young.Close() }()
	ck, sk := rings(b)
	sealed, err := gocoap.New(gocoap.Config{Keyring: ck}).DialUDP(serveUDP(b, gocoap.New(gocoap.Config{Keyring: sk}), h), "server", nil)
	if err != nil {
		b.Fatal(err)
	}
	defer sealed.Close()
	ctx := context.Background()
	get := func(c getter) {
		resp, err := c.Get(ctx, "/3/0/0")
		if err != nil {
			b.Fatal(err)
		}
		c.ReleaseMessage(resp)
	}
	b.Run("plain", func(b *testing.B) { run(b, func() { get(plain()) }) })
	b.Run("sealed", func(b *testing.B) { run(b, func() { get(sealed) }) })
	b.Run("ratio", func(b *testing.B) {
		var plainTime, sealedTime time.Duration
		for b.Loop() {
			c := plain()
			start := time.Now()
			get(c)
			middle := time.Now()
			get(sealed)
			plainTime += middle.Sub(start)
			sealedTime += time.Since(middle)
		}
		b.ReportMetric(float64(sealedTime)/float64(plainTime), "sealed/plain")
	})
}

func run(b *testing.B, f func()) {
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// BenchmarkIdle is the CPU time that idle connections cost a server and its
// clients in a second of the clock.
func BenchmarkIdle(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ck, sk := rings(b)
			h := mux.HandlerFunc(func(w mux.ResponseWriter, _ *mux.Message) { _ = w.SetResponse(codes.Content, message.AppOctets, nil) })
			addr := serveUDP(b, gocoap.New(gocoap.Config{Keyring: sk}), h)
			cep := gocoap.New(gocoap.Config{Keyring: ck})
			for range n {
				c, err := cep.DialUDP(addr, "server", nil)
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Get(context.Background(), "/x"); err != nil {
					b.Fatal(err)
				}
			}
			start := cpu(b)
			for b.Loop() {
				time.Sleep(time.Second)
			}
			b.ReportMetric(float64(cpu(b)-start)/float64(b.Elapsed())*1e3, "cpu-ms/s")
		})
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
