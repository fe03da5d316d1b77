// Command oscored stands in front of servers that have no OSCORE: devices speak
// OSCORE (RFC 8613) to it, the server gets plain CoAP and notices nothing. It
// keeps keys and sequence numbers in a store of its own, proxies what is not for
// it, and tells about itself by metrics, an administration API and its log.
//
//	device ══OSCORE══► [[terminate]] ──CoAP──► server     internal/terminate
//	client ──────────► [[proxy]] ────────────► server     proxy
//	                      │ keys/bolt: contexts, numbers, observations, journal
//	operator ─► administration API, page, oscored ctl ◄─ Prometheus
//
//	main.go         flags, verbs, exit status, signals
//	config.go       what a configuration holds
//	configfile.go   reading it: lines, mistyped keys
//	configcheck.go  checking it without touching anything
//	configprint.go  -print-config and -check
//	daemon.go       start, run, end
//	reload.go       SIGHUP
//	keyfiles.go     key files, and whether they changed
//	registry.go     contexts: key files, administration, store
//	route.go        a [[terminate]]: its gateway, what a reload changes of it
//	demo.go         without a configuration: fresh keys, a server to try
//	log.go          records at a bounded rate
//	notify.go       the service manager
//	metrics.go survey.go   Prometheus, health, what contexts there are
//	web.go token.go admin.go admincontexts.go page.go   the administration API and its page
//	ctl.go ctlprint.go   its client
//
// Exit status: 0 it ended as it was told to; 1 it failed, and starting again may
// help; 2 a mistake in the command line or the configuration; 3 the store is
// missing, or is there and should not be: a person decides (-init).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/oscorelay/oscorelay/keys/bolt"
)

// Exit status.
const (
	exitOK     = 0
	exitFailed = 1
	exitConfig = 2
	exitStore  = 3
)

// flags are the command line.
type flags struct {
	config  string
	listen  string
	check   bool
	print   bool
	init    bool
	fresh   bool
	once    bool
	version bool
}

const usageText = `oscored puts OSCORE in front of a server that has none.

Usage: oscored [-listen ADDR:PORT]          try it: fresh keys, a server inside, a command to copy
       oscored -config FILE [-init [-fresh]]   serve
       oscored -config FILE -check          check the configuration, touching nothing
       oscored -print-config [-config FILE] show every setting and its default
       oscored ctl VERB                     devices, stuck, contexts, counters, drain, reload: see oscored ctl -h

`

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, signals))
}

// run executes a command line and returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, signals <-chan os.Signal) int {
	if len(args) > 0 && args[0] == "ctl" {
		ctx, stop := endAt(ctx, signals)
		defer stop()
		return runCtl(ctx, args[1:], stdin, stdout, stderr)
	}
	f, err := parseFlags(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "oscored: %v\nRun 'oscored -h' for its flags.\n", err)
		return exitConfig
	}
	switch {
	case f.version:
		fmt.Fprintln(stdout, "oscored", version())
		return exitOK
	case f.print:
		err = printConfig(stdout, f)
	case f.check:
		err = check(ctx, stdout, f)
	default:
		err = serve(ctx, f, stdout, stderr, signals)
	}
	if err != nil {
		fmt.Fprintln(stderr, "oscored:", err)
	}
	return status(err)
}

// status maps an error to the exit status.
func status(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errConfig):
		return exitConfig
	case errors.Is(err, bolt.ErrMissing), errors.Is(err, bolt.ErrExists):
		return exitStore
	}
	return exitFailed
}

func parseFlags(args []string, stdout io.Writer) (*flags, error) {
	f := &flags{}
	s := flag.NewFlagSet("oscored", flag.ContinueOnError)
	s.SetOutput(io.Discard) // errors are printed by run
	s.Usage = func() {
		fmt.Fprint(stdout, usageText)
		s.SetOutput(stdout)
		s.PrintDefaults()
		s.SetOutput(io.Discard)
	}
	s.StringVar(&f.config, "config", "", "configuration `FILE` (TOML)")
	s.StringVar(&f.listen, "listen", "", "without -config: listen for devices on `ADDR:PORT` (default 127.0.0.1:5683, or a free port)")
	s.BoolVar(&f.check, "check", false, "check the configuration and the key files and end; no socket is opened, nothing is changed")
	s.BoolVar(&f.print, "print-config", false, "print the configuration as it takes effect, with comments, and end")
	s.BoolVar(&f.init, "init", false, "make the store, which must not be there: for the first start alone")
	s.BoolVar(&f.fresh, "fresh", false, "what the key files hold and the store does not know was never used anywhere, by any program, on any machine")
	s.BoolVar(&f.once, "once", false, "open the store, take the key files in, and end")
	s.BoolVar(&f.version, "version", false, "print the version and end")
	if err := s.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case s.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", s.Arg(0))
	case f.config == "" && (f.check || f.init || f.fresh || f.once):
		return nil, errors.New("-check, -init, -fresh and -once need -config FILE: without one there is only the demonstration, which makes its own keys")
	case f.config != "" && f.listen != "":
		return nil, errors.New("-listen is for a start without -config: the file says where a route listens")
	}
	return f, nil
}

// buildVersion is set by a package's build.
var buildVersion string

func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// endAt returns a context that ends with the first signal to end.
func endAt(ctx context.Context, signals <-chan os.Signal) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				if s != syscall.SIGHUP {
					cancel()
				}
			}
		}
	}()
	return ctx, cancel
}
