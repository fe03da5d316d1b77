package main

import (
	"fmt"
	"io"
	"sort"
	"strings"
)

// section is one table of the document.
type section struct {
	title, text  string
	pkg, pattern string
	table        func(io.Writer, results)
	tags         string // of the build
	needs        string // a file without which the section cannot be run
	absent       string // what is said then
	count        int    // of runs, for one that takes long; 0: as asked for
	time         string // of a run, likewise
}

var sizes = []string{"0", "16", "64", "256", "1024"}

var sections = []section{
	{
		title: "OSCORE, ns a message",
		text: "Token of 4 bytes, Uri-Path sensors/temp, Content-Format, kid of 1 byte, AES-CCM-16-64-128; by payload in bytes.\n" +
			"Targets: at most 1.15 times the limit at 1024 B, twice at 16 B, no allocation.",
		pkg: "./oscore", pattern: "^Benchmark(SealRequest|OpenRequest|SealResponse|OpenResponse|SerialLimit)$",
		table: bySize([]string{"SealRequest", "OpenRequest", "SealResponse", "OpenResponse"}, "SerialLimit"),
	},
	{
		title: "AES-CCM, ns a message",
		text:  "AES-128, 13-byte nonce, 8-byte tag, 24 bytes of additional data; Portable is the twin without assembly, Pion the\nimplementation in pion/dtls. SealBatch is a message of a batch of 8.",
		pkg:   "./internal/ccm", pattern: "^Benchmark(Seal|Open|Portable|Pion|SealBatch|SerialLimit)$",
		table: bySize([]string{"Seal", "Open", "SealBatch", "Portable", "Pion"}, "SerialLimit"),
	},
	{title: "Key derivation and contexts", pkg: "./oscore", pattern: "^Benchmark(Derive|New)$", table: plainTable},
	{
		title: "Contexts and their durable numbers",
		text:  "File: a reservation is an fsync; Message is what a sealed message costs with durability, amortised.",
		pkg:   "./keys/file", pattern: "^Benchmark(Reserve|ReserveParallel|Message)$", table: plainTable,
	},
	{title: "Look-up and memory of contexts", pkg: "./keys", pattern: "^Benchmark(Find|PeerSealRequest|ContextSealRequest)$", table: plainTable},
	{title: "go-coap over loopback UDP", text: "One request and its answer, both ends in one process.", pkg: "./oscore/gocoap", pattern: ".", table: plainTable},
	{title: "The endpoint above the calculator", pkg: "./internal/endpoint", pattern: ".", table: plainTable},
	{
		title: "A fleet in one store",
		text: "BOLT_FLEET contexts, 100000 unless it is set: imported, and served by a process of its own. Ready is from the start to\n" +
			"the first look-up; heard is after each sent a request and was answered. Mapped memory is pages of the file, which the\n" +
			"kernel takes back when it needs them.",
		pkg: "./keys/bolt", pattern: "^Benchmark(Import|Fleet)$", table: plainTable,
	},
	{
		title: "oscored with a fleet in a key file",
		text: "OSCORED_FLEET contexts, 100000 unless it is set: taken in by -init -fresh -once, then a start until it serves. Anon is\n" +
			"the process's own memory, file is pages of files, which the kernel takes back when it needs them.",
		pkg: "./cmd/oscored", pattern: "^BenchmarkStart$", table: plainTable, count: 1, time: "1x",
	},
	{
		title: "Keyless proxy against a bare forwarder",
		text:  "ns/op is the proxy's processor time a request; of Overload it is wall time.",
		pkg:   "./proxy", pattern: "^Benchmark(Hop|Overload)$", table: plainTable,
	},
	{
		title: "The gateway, with OSCORE and without, the proxy and a forwarder",
		text: "In turns of one run, each in a process of its own. Up is an Update of a device, down a Read or Execute of the server,\n" +
			"which is in the journal before it goes out; time and allocs are those of the gateway with OSCORE, a request. Echo is the\n" +
			"freshness policy \"unsafe\"; cold is with fewer contexts ready than devices that speak. Targets: sealed at most 1.15 times\n" +
			"plain, nothing grows with the devices. `make soak SOAK_LOAD=10m` shows that nothing grows with time.",
		pkg: "./internal/load", pattern: "^Benchmark(Up|Down)$", table: plainTable, count: 1, time: "2s",
	},
	{
		title: "100000 devices register after a restart",
		text:  "The gateway was killed; each device takes an Echo round trip. Time is that of the whole.",
		pkg:   "./internal/load", pattern: "^BenchmarkStart$", table: plainTable, count: 1, time: "1x",
	},
	{
		title: "EDHOC, a side",
		text: "A handshake of both sides without message_4; pk-% is the share of the public-key operations, timed where they\n" +
			"happen. Target: at least 90 %.",
		pkg: "./keys/edhoc", pattern: "^BenchmarkHandshake$", table: plainTable,
	},
	{
		title: "EDHOC beside lakers",
		text:  "Method 3, suite 2, by kid, without message_4, first ours, then as many of the lakers crate's, in one run.",
		pkg:   "./keys/edhoc", pattern: "^BenchmarkBesideLakers$", table: plainTable,
		tags: "interop", needs: ".interop/lakers/bin/edhocrs",
		absent: "Not measured: there is no lakers here. `interop/setup.sh lakers` installs it, which takes cargo.",
	},
	{title: "Firmware verified on arrival", text: "The share is of plain SHA-256 over the same bytes.", pkg: "./fragment", pattern: "^Benchmark(PlainSHA256|Verify|Describe)$", table: plainTable},
}

const footer = `## How to read it

Ratios of one run hold when the machine's speed drifts; single figures of a shared machine do not. For comparison, from
this project's notes, on another machine (AMD Milan at 3.15 GHz), ns to seal a request of 16 and of 1024 bytes: libcoap
4.3.5 with OSCORE 2084 and 3126, uoscore-uedhoc 1152 and 3336.
`

// bySize makes a table with a row for each size and the ratio to the limit
// beside each figure.
func bySize(names []string, limit string) func(io.Writer, results) {
	return func(w io.Writer, all results) {
		fmt.Fprintf(w, "| bytes | limit | %s | allocs |\n|---|---|%s---|\n", strings.Join(names, " | "), strings.Repeat("---|", len(names)))
		for _, size := range sizes {
			bound := all[limit+"/"+size].median("ns/op")
			fmt.Fprintf(w, "| %s | %.0f |", size, bound)
			allocs := 0.0
			for _, name := range names {
				r := all[name+"/"+size]
				ns := r.median("ns/op")
				if ns == 0 {
					fmt.Fprint(w, " – |")
					continue
				}
				fmt.Fprintf(w, " %.0f (%.2f×) |", ns, ns/bound)
				if name != "Portable" && name != "Pion" {
					allocs = max(allocs, r.median("allocs/op"))
				}
			}
			fmt.Fprintf(w, " %.0f |\n", allocs)
		}
	}
}

// plainTable lists every benchmark with its figures.
func plainTable(w io.Writer, all results) {
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprint(w, "| benchmark | time | allocs | other |\n|---|---|---|---|\n")
	for _, name := range names {
		r := all[name]
		var other []string
		for unit := range r {
			switch unit {
			case "ns/op", "B/op", "allocs/op":
			default:
				other = append(other, fmt.Sprintf("%.4g %s", r.median(unit), unit))
			}
		}
		sort.Strings(other)
		fmt.Fprintf(w, "| %s | %s | %.0f | %s |\n", name, duration(r.median("ns/op")), r.median("allocs/op"), strings.Join(other, ", "))
	}
}

func duration(ns float64) string {
	switch {
	case ns < 1e4:
		return fmt.Sprintf("%.0f ns", ns)
	case ns < 1e7:
		return fmt.Sprintf("%.1f µs", ns/1e3)
	}
	return fmt.Sprintf("%.1f ms", ns/1e6)
}
