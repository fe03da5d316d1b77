package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/oscorelay/oscorelay/internal/capture"
	"github.com/oscorelay/oscorelay/internal/explain"
)

// maxCapture bounds what is read from a file or from standard input, in bytes.
const maxCapture = 16 << 20

// readCaptured collects messages from arguments: hex, "-" for standard input,
// or a file's name. A file holds text as it is pasted, a packet capture, or one
// message in binary.
func readCaptured(in io.Reader, args []string) ([][]byte, error) {
	var out [][]byte
	for _, arg := range args {
		messages, err := readArgument(in, arg)
		if err != nil {
			return nil, err
		}
		out = append(out, messages...)
	}
	if len(out) == 0 {
		return nil, usagef("no message given: give hex, a file, or - for standard input")
	}
	return out, nil
}

func readArgument(in io.Reader, arg string) ([][]byte, error) {
	if arg == "-" {
		return readText(in, "standard input")
	}
	inputs, err := explain.ParseText(arg)
	if err == nil && len(inputs) > 0 {
		return bytesOf(inputs), nil
	}
	f, openErr := os.Open(arg)
	if openErr == nil {
		defer f.Close()
		return readText(f, arg)
	}
	var bad *explain.InputError
	if errors.As(err, &bad) && !strings.ContainsAny(arg, `/\.`) {
		return nil, fmt.Errorf("%q is neither hex (character %d: %s) nor a file", shorten(arg), bad.Column, bad.Reason)
	}
	return nil, fmt.Errorf("%q is neither hex nor a file that can be read: %w", shorten(arg), openErr)
}

// readText reads messages from a file's content.
func readText(in io.Reader, name string) ([][]byte, error) {
	b, err := io.ReadAll(io.LimitReader(in, maxCapture+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(b) > maxCapture {
		return nil, fmt.Errorf("%s: larger than %d bytes; give the messages alone", name, maxCapture)
	}
	if capture.Is(b) {
		packets, _, err := capture.Read(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		var out [][]byte
		for _, p := range choose(packets, nil).packets {
			out = append(out, p.Data)
		}
		return out, nil
	}
	if !utf8.Valid(b) || strings.ContainsFunc(string(b), func(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\r\n", r) }) {
		return [][]byte{b}, nil // one message in binary
	}
	inputs, err := explain.ParseText(string(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(inputs) == 0 {
		return nil, fmt.Errorf("%s holds no message", name)
	}
	return bytesOf(inputs), nil
}

// captured reads those arguments that are packet captures, "-" for standard
// input. found is false when the first is none; then nothing was read. The reader
// returned is to be used for standard input from then on.
func captured(in io.Reader, args []string) (packets []capture.Packet, left capture.Left, found bool, _ io.Reader, err error) {
	stdin := bufio.NewReader(in)
	for i, arg := range args {
		from, name := stdin, "standard input"
		if arg != "-" {
			f, err := os.Open(arg)
			if err != nil {
				if i == 0 {
					return nil, left, false, stdin, nil // hex, or a mistake that is named there
				}
				return nil, left, true, stdin, err
			}
			defer f.Close()
			from, name = bufio.NewReader(f), arg
		}
		begin, _ := from.Peek(4) // too short is no capture
		if !capture.Is(begin) {
			if i == 0 {
				return nil, left, false, stdin, nil
			}
			return nil, left, true, stdin, fmt.Errorf("%s is no packet capture as %s is: give them to two commands", name, args[0])
		}
		more, l, err := capture.Read(from)
		if err != nil && len(more) == 0 {
			return nil, left, true, stdin, fmt.Errorf("%s: %w", name, err)
		}
		packets = append(packets, more...)
		left = capture.Left{
			Other: left.Other + l.Other, CutShort: left.CutShort + l.CutShort, Fragments: left.Fragments + l.Fragments,
			Gaps: left.Gaps + l.Gaps, Damaged: left.Damaged + l.Damaged,
		}
	}
	return packets, left, len(args) > 0, stdin, nil
}

func bytesOf(inputs []explain.Input) [][]byte {
	out := make([][]byte, len(inputs))
	for i, in := range inputs {
		out[i] = in.Bytes
	}
	return out
}

// shorten bounds an argument in an error.
func shorten(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
