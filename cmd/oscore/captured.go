package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/oscorelay/oscorelay/internal/explain"
)

// maxCapture bounds what is read from a file or from standard input, in bytes.
const maxCapture = 16 << 20

// readCaptured collects messages from arguments: hex, "-" for standard input,
// or a file's name. A file holds text as it is pasted, or one message in
// binary.
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
	if isPcap(b) {
		return nil, fmt.Errorf("%s is a packet capture; take the messages out first: tshark -r %s -Y coap -T fields -e udp.payload", name, name)
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

// isPcap recognises pcap and pcapng files by their first four bytes.
func isPcap(b []byte) bool {
	for _, magic := range []string{"\xd4\xc3\xb2\xa1", "\xa1\xb2\xc3\xd4", "\x4d\x3c\xb2\xa1", "\xa1\xb2\x3c\x4d", "\x0a\x0d\x0d\x0a"} {
		if strings.HasPrefix(string(b), magic) {
			return true
		}
	}
	return false
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
