package main

import (
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/oscorelay/oscorelay/proxy"
)

// actions are what the command line asks for beside the proxy's own
// configuration.
type actions struct {
	check   bool
	metrics string
}

// configure reads the command line, and the file that it may name.
func configure(args []string, stderr io.Writer) (cfg proxy.Config, do actions, err error) {
	f := flag.NewFlagSet("oscore-proxy", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintln(stderr, "oscore-proxy: carries CoAP, sealed or not, and holds no key.\n\nUsage: oscore-proxy [-listen ADDR] -forward NETWORK | -via HOST:PORT | -reverse [WHEN,]HOST:PORT ...\n       oscore-proxy -config FILE")
		fmt.Fprintln(stderr, "\nA flag that the file has too adds to it (-forward, -reverse) or takes its place.\nSIGTERM lets what is under way come to its end; SIGHUP reads -config again and takes its routes and networks.\n\nFlags:")
		f.PrintDefaults()
	}
	file := f.String("config", "", "read the configuration from this TOML `file`")
	f.BoolVar(&do.check, "check", false, "check the configuration and end")
	listen := f.String("listen", "", "UDP `address` to listen on (\":5683\")")
	via := f.String("via", "", "hand requests for a forward-proxy to the next proxy, `host:port`")
	perClient := f.Bool("per-client", false, "give each client an upstream port of its own, so that a server can send it requests (LwM2M)")
	byKID := f.Bool("by-kid", false, "as -per-client, and know a device by its kid and kid context, wherever it sends from")
	shards := f.Int("shards", 0, "sockets that share the address, each with tables of its own (as many as processors)")
	amplification := f.Int("amplification", 0, "send a client that has not shown that it receives at most this many times the bytes that came from it (3); -1 for no bound")
	f.StringVar(&do.metrics, "metrics", "", "serve counters for Prometheus over HTTP on this `address`, such as 127.0.0.1:9464, at /metrics")
	var forward, reverse []string
	f.Func("forward", "let clients name servers in this `network`, such as 192.0.2.0/24; \"any\" for all but loopback and link-local. May be repeated", func(s string) error {
		forward = append(forward, s)
		return nil
	})
	f.Func("reverse", "lead requests to `[WHEN,]host:port`; WHEN is host=NAME, kid=HEX, kid-context=HEX, path=SEGMENTS, block=BYTES, joined by commas. May be repeated, the first that matches is taken", func(s string) error {
		reverse = append(reverse, s)
		return nil
	})
	if err := f.Parse(args); err != nil {
		return cfg, do, err
	}
	if f.NArg() > 0 {
		return cfg, do, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if *file != "" {
		if cfg, err = readFile(*file); err != nil {
			return cfg, do, err
		}
	}
	if *listen != "" {
		cfg.Listen = *listen
	}
	if cfg.Listen == "" {
		cfg.Listen = ":5683"
	}
	if *byKID {
		cfg.ByKID = true
	}
	if *shards != 0 {
		cfg.Shards = *shards
	}
	if *shards < 0 {
		return cfg, do, fmt.Errorf("-shards %d: give 1 or more, or leave it out for one a processor", *shards)
	}
	if *amplification != 0 {
		cfg.Amplification = *amplification
	}
	if *perClient {
		cfg.PerClient = true
	}
	if len(forward) > 0 || *via != "" {
		if cfg.Forward == nil {
			cfg.Forward = &proxy.Forward{}
		}
		if *via != "" {
			cfg.Forward.Via = *via
		}
		allow, err := networks(forward)
		if err != nil {
			return cfg, do, fmt.Errorf("-forward: %w", err)
		}
		cfg.Forward.Allow = append(cfg.Forward.Allow, allow...)
	}
	for _, s := range reverse {
		r, err := route(s)
		if err != nil {
			return cfg, do, fmt.Errorf("-reverse %q: %w", s, err)
		}
		cfg.Routes = append(cfg.Routes, r)
	}
	if cfg.Forward == nil && len(cfg.Routes) == 0 {
		return cfg, do, fmt.Errorf("nowhere to send a request: give -forward, -via or -reverse")
	}
	return cfg, do, nil
}

// networks reads a list of networks; an address stands for itself.
func networks(list []string) (out []netip.Prefix, err error) {
	for _, s := range list {
		if s == "any" {
			out = append(out, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
			continue
		}
		if addr, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is no network: write 192.0.2.0/24, 2001:db8::/32, an address, or any", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// route reads "[host=NAME,][kid=HEX,][kid-context=HEX,]host:port".
func route(s string) (r proxy.Route, err error) {
	parts := strings.Split(s, ",")
	r.To = parts[len(parts)-1]
	for _, p := range parts[:len(parts)-1] {
		name, value, ok := strings.Cut(p, "=")
		if !ok {
			return r, fmt.Errorf("%q is no condition: write host=NAME, kid=HEX, kid-context=HEX, path=SEGMENTS or block=BYTES", p)
		}
		switch name {
		case "host":
			r.Host = value
		case "kid":
			r.KID, err = hexBytes(name, value)
		case "kid-context":
			r.KIDContext, err = hexBytes(name, value)
		case "path":
			r.Prefix = value
		case "block":
			if r.BlockSize, err = strconv.Atoi(value); err != nil {
				err = fmt.Errorf("block %q is no number: write 16, 32, 64, 128, 256, 512 or 1024", value)
			}
		default:
			return r, fmt.Errorf("unknown condition %q: there are host, kid, kid-context, path and block", name)
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// hexBytes reads an identifier, with or without the prefix hex: of key files.
// The empty identifier is a valid one, so the result is never nil.
func hexBytes(name, s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "hex:"))
	if err != nil {
		return nil, fmt.Errorf("%s %q is not hexadecimal: write pairs of digits such as 01 or 0a1b", name, s)
	}
	return append([]byte{}, b...), nil
}
