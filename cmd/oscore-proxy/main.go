// Command oscore-proxy carries CoAP between networks without holding a key: a
// forward-proxy, a reverse-proxy, or both (package proxy). It is for nodes that
// nobody trusts: what travels in OSCORE it can neither read nor change
// unnoticed, and no code in it knows keys.
//
//	main.go    start, signals, what is said at the end
//	flags.go   the command line
//	file.go    the configuration file
//	metrics.go counters for Prometheus
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/oscorelay/oscorelay/proxy"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	again := make(chan os.Signal, 1)
	signal.Notify(again, hangup...)
	os.Exit(run(ctx, os.Args[1:], os.Stderr, again))
}

// run works until the context ends and returns the exit status: 2 for a
// mistake in the configuration. A signal on again has it read anew.
func run(ctx context.Context, args []string, stderr io.Writer, again <-chan os.Signal) int {
	say := func(err error) int {
		fmt.Fprintln(stderr, "oscore-proxy:", err)
		if errors.Is(err, proxy.ErrConfig) {
			return 2
		}
		return 1
	}
	cfg, do, err := configure(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "oscore-proxy: %v\nRun 'oscore-proxy -h' for its flags.\n", err)
		return 2
	}
	if do.check {
		if err := proxy.Check(cfg); err != nil {
			return say(err)
		}
		fmt.Fprintln(stderr, "oscore-proxy: the configuration is in order")
		return 0
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	cfg.Logger = log
	p, err := proxy.Listen(cfg)
	if err != nil {
		return say(err)
	}
	served, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	if do.metrics != "" {
		l, err := net.Listen("tcp", do.metrics)
		if err != nil {
			return say(fmt.Errorf("-metrics %s: %w: give an address of this machine and a free port, such as 127.0.0.1:9464", do.metrics, err))
		}
		log.Info("metrics are served", "address", "http://"+l.Addr().String()+"/metrics")
		wg.Go(func() { serveMetrics(served, l, p, log) })
	}
	wg.Go(func() { reload(served, again, args, p, log) })
	err = p.Serve(ctx)
	stop()
	wg.Wait()
	s := p.Stats()
	log.Info("proxy ends", "requests", s.Requests, "responses", s.Responses, "refused", s.Refused, "shed", s.Shed,
		"timeouts", s.Timeouts, "bad_gateway", s.BadGateway, "duplicates", s.Duplicates, "malformed", s.Malformed, "unmatched", s.Unmatched)
	if err != nil {
		return say(err)
	}
	return 0
}

// reload takes routes and networks anew at each signal. A mistake leaves what
// was.
func reload(ctx context.Context, again <-chan os.Signal, args []string, p *proxy.Proxy, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-again:
		}
		cfg, _, err := configure(args, io.Discard)
		if err == nil {
			err = p.Reload(cfg)
		}
		if err != nil {
			log.Error("the configuration is not taken, the one before stays", "error", err.Error())
		}
	}
}
