// Command oscore-proxy carries CoAP between networks without holding a key: a
// forward-proxy, a reverse-proxy, or both (package proxy). It is for nodes that
// nobody trusts: what travels in OSCORE it can neither read nor change
// unnoticed, and no code in it knows keys.
//
//	main.go    start, signals, what is said at the end
//	flags.go   the command line
//	file.go    the configuration file
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/oscorelay/oscorelay/proxy"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stderr))
}

// run works until the context ends and returns the exit status: 2 for a
// mistake in the configuration.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	cfg, check, err := configure(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "oscore-proxy: %v\nRun 'oscore-proxy -h' for its flags.\n", err)
		return 2
	}
	if check {
		if err := proxy.Check(cfg); err != nil {
			fmt.Fprintln(stderr, "oscore-proxy:", err)
			return 2
		}
		fmt.Fprintln(stderr, "oscore-proxy: the configuration is in order")
		return 0
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	cfg.Logger = log
	p, err := proxy.Listen(cfg)
	if err != nil {
		fmt.Fprintln(stderr, "oscore-proxy:", err)
		if errors.Is(err, proxy.ErrConfig) {
			return 2
		}
		return 1
	}
	err = p.Serve(ctx)
	s := p.Stats()
	log.Info("proxy ends", "requests", s.Requests, "responses", s.Responses, "refused", s.Refused, "shed", s.Shed,
		"timeouts", s.Timeouts, "bad_gateway", s.BadGateway, "duplicates", s.Duplicates, "malformed", s.Malformed, "unmatched", s.Unmatched)
	if err != nil {
		fmt.Fprintln(stderr, "oscore-proxy:", err)
		return 1
	}
	return 0
}
