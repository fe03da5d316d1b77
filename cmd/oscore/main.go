// Command oscore is the tool for people: it makes and checks keys, talks
// sealed CoAP from the shell, explains captured messages, signs firmware and
// runs the demonstration laboratory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// command is one verb of the tool. Its run function owns its flags; an error
// it returns is printed as "oscore: <error>" and ends the process with 1, a
// usageError with 2.
type command struct {
	name    string
	summary string
	run     func(ctx context.Context, io stdio, args []string) error
}

// stdio is where a command reads and writes, so that tests can hold all three.
type stdio struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// commands lists the verbs in the order the help shows them. Each stands in a
// file of its own name.
var commands []command

// usageError is a mistake in the command line: exit status 2.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// usagef returns a usageError.
func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) < 2 || args[1] == "help" || args[1] == "-h" || args[1] == "--help" {
		usage(stdout)
		if len(args) < 2 {
			return 2
		}
		return 0
	}
	for _, c := range commands {
		if c.name != args[1] {
			continue
		}
		err := c.run(ctx, stdio{stdin, stdout, stderr}, args[2:])
		var bad usageError
		switch {
		case err == nil, errors.Is(err, flag.ErrHelp):
			return 0
		case errors.As(err, &bad):
			fmt.Fprintf(stderr, "oscore %s: %v\nRun 'oscore %s -h' for its flags.\n", c.name, err, c.name)
			return 2
		default:
			fmt.Fprintf(stderr, "oscore %s: %v\n", c.name, err)
			return 1
		}
	}
	fmt.Fprintf(stderr, "oscore: unknown command %q\nRun 'oscore help' for the list.\n", args[1])
	return 2
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "oscore: end-to-end security for CoAP and LwM2M from the shell (RFC 8613).")
	fmt.Fprintln(w, "\nUsage: oscore <command> [flags] [arguments]")
	fmt.Fprintln(w)
	for _, c := range commands {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.summary)
	}
	fmt.Fprintln(w, "\n'oscore <command> -h' shows a command's flags.")
}
