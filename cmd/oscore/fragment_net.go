package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/fragment"
	"github.com/oscorelay/oscorelay/fragment/fetch"
	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/mirror"
)

// pinnedMaxAge is how long a cache may keep what never changes: a day.
const pinnedMaxAge = 86400

// fragmentServe serves cut files over plain CoAP: an untrusted mirror.
func fragmentServe(ctx context.Context, sio stdio, args []string) error {
	f := newFragmentFlags(sio, "serve", "DIR|FILE...")
	listen := f.String("listen", ":5683", "UDP address to listen on")
	dir := f.String("path", "fw", "directory in the URIs")
	maxBlock := f.String("max-block", "1024", "largest block in bytes")
	forge := f.Float64("forge", 0, "for trying out: forge this share of the blocks, 0 to 1, as a hostile mirror would")
	uris := f.String("uris", "", "write the URIs to this file too, once the socket is open")
	quiet := f.Bool("quiet", false, "do not print a line a request")
	rest, err := f.parse(args, 1, 1<<10)
	if err != nil {
		return err
	}
	block, err := exponent("max-block", *maxBlock)
	if err != nil {
		return err
	}
	if *forge < 0 || *forge > 1 {
		return usagef("-forge %v: a share from 0 to 1", *forge)
	}
	files, order, err := cutFiles(rest)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	conn, err := net.ListenPacket("udp", *listen)
	if err != nil {
		return err
	}
	s := &mirror.Server{MaxSZX: coap.SZX(1 << min(block, 10))}
	s.Lookup = under("/"+*dir+"/", files)
	if *forge > 0 {
		s.Forge = func(_ string, _ int64, block []byte) {
			if rand.Float64() < *forge {
				block[rand.IntN(len(block))] ^= 1
			}
		}
	}
	type event struct {
		From  string `json:"from"`
		Path  string `json:"path"`
		Block uint32 `json:"block"`
		Size  int    `json:"size"`
		Code  string `json:"code"`
	}
	if !*quiet {
		s.Log = func(from net.Addr, path string, b coap.Block, code coap.Code) {
			if f.json {
				_ = json.NewEncoder(sio.out).Encode(event{from.String(), path, b.Num, b.Size(), code.String()})
				return
			}
			fmt.Fprintf(sio.out, "%s %s block %d of %d bytes: %v\n", from, path, b.Num, b.Size(), code)
		}
	}
	var list strings.Builder
	for _, name := range order {
		uri := fmt.Sprintf("coap://%s/%s/%s", reachable(conn.LocalAddr()), *dir, name)
		fmt.Fprintln(sio.err, "serving", uri)
		fmt.Fprintln(&list, uri)
	}
	if *uris != "" {
		if err := writeNew(*uris, []byte(list.String()), 0o644, true); err != nil {
			return err
		}
	}
	if err := s.Serve(ctx, conn); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// reachable writes a listening address as a URI's authority.
func reachable(a net.Addr) string {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return a.String()
	}
	host := u.IP.String()
	if u.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, fmt.Sprint(u.Port))
}

type servedFile struct {
	*os.File
	size int64
}

func under(prefix string, files map[string]servedFile) func(string) (mirror.File, bool) {
	return func(path string) (mirror.File, bool) {
		if len(path) <= len(prefix) || path[:len(prefix)] != prefix {
			return mirror.File{}, false
		}
		f, ok := files[path[len(prefix):]]
		if !ok {
			return mirror.File{}, false
		}
		return mirror.File{ReaderAt: f, Size: f.size, MaxAge: pinnedMaxAge}, true
	}
}

// cutFiles opens the cut files named, or in the directories named.
func cutFiles(paths []string) (files map[string]servedFile, order []string, err error) {
	files = map[string]servedFile{}
	fail := func(err error) (map[string]servedFile, []string, error) {
		for _, f := range files {
			_ = f.Close()
		}
		return nil, nil, err
	}
	add := func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		files[filepath.Base(path)] = servedFile{f, info.Size()}
		return nil
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return fail(err)
		}
		candidates := []string{path}
		if info.IsDir() {
			candidates = nil
			for _, pattern := range []string{"*.lwf", "*.lwo"} {
				found, err := filepath.Glob(filepath.Join(path, pattern))
				if err != nil {
					return fail(err)
				}
				candidates = append(candidates, found...)
			}
		}
		for _, c := range candidates {
			name, err := fragment.ParseName(filepath.Base(c))
			if err != nil {
				return fail(fmt.Errorf("%s: %w; a mirror serves files as oscore fragment cut names them", c, err))
			}
			v, env, err := inspect(c)
			if err != nil {
				return fail(err)
			}
			if env.Name(name.Layout) != name || v.Layout == nil || v.Layout.Name != name.String() || len(v.Layout.Mirrors) > 0 {
				return fail(fmt.Errorf("%s: %w: the name is another file's", c, fragment.ErrName))
			}
			if err := add(c); err != nil {
				return fail(err)
			}
			order = append(order, name.String())
			if name.Outboard {
				if err := add(filepath.Join(filepath.Dir(c), name.Image())); err != nil {
					return fail(err)
				}
			}
		}
	}
	if len(order) == 0 {
		return fail(fmt.Errorf("no .lwf or .lwo file in %v; make one with: oscore fragment cut", paths))
	}
	return files, order, nil
}

// fragmentFetch downloads as a device does: into IMAGE.part with IMAGE.journal
// beside it, which becomes IMAGE when every block has verified and the whole
// has been read back.
func fragmentFetch(ctx context.Context, sio stdio, args []string) error {
	f := newFragmentFlags(sio, "fetch", "URI...")
	var keys keyFiles
	f.Var(&keys, "key", "trusted author's public key: COSE_Key or PEM; repeatable")
	vendor := f.String("vendor", "", "this device's vendor, as in sign")
	class := f.String("class", "", "this device's class, as in sign")
	device := f.String("device", "", "this device's id: text, or 0x and hex")
	installed := f.Uint64("installed", 0, "sequence number of what is installed; only a higher one is taken")
	manifest := f.String("manifest", "", "manifest that came over a trusted path (default: from the mirrors, held against the name)")
	out := f.String("o", "", "image to write")
	window := f.Int("window", 4, "requests in flight, 1 to 4")
	ack := f.Duration("ack-timeout", 2*time.Second, "first retransmission (RFC 7252's ACK_TIMEOUT)")
	patience := f.Duration("patience", 0, "suspend when nothing has verified for so long (default 247s)")
	rest, err := f.parse(args, 1, 16)
	if err != nil {
		return err
	}
	switch {
	case len(keys) == 0:
		return usagef("fetch: -key is missing: the author's public key")
	case *out == "":
		return usagef("fetch: -o is missing: where the image goes")
	case *window < 1 || *window > 4:
		return usagef("-window %d: 1 to 4", *window)
	case *ack < 10*time.Millisecond:
		return usagef("-ack-timeout %v: at least 10ms", *ack)
	}
	c := fetch.Config{Keys: keys, Window: *window, Timing: fetch.Timing{AckTimeout: *ack}, Pages: 32, Patience: *patience}
	c.Policy = fragment.Policy{Installed: *installed, Now: uint64(time.Now().Unix())}
	if c.Policy.Vendor, c.Policy.Class, err = vendorClass(*vendor, *class); err != nil {
		return err
	}
	if c.Policy.Device, err = deviceID(*device); err != nil {
		return err
	}
	if _, err := os.Stat(*out); err == nil {
		return fmt.Errorf("%s: exists already; choose another -o, or remove it", *out)
	}
	if *manifest != "" {
		b, err := readStart(*manifest)
		if err != nil {
			return err
		}
		c.Manifest = func(context.Context, fragment.Name) ([]byte, error) { return b, nil }
	}
	udp, err := fetch.ListenUDP(c.Timing)
	if err != nil {
		return err
	}
	defer udp.Close()
	for _, uri := range rest {
		s, err := udp.Source(ctx, uri)
		if err != nil {
			return err
		}
		c.Sources = append(c.Sources, s)
	}
	// The files come into being once the manifest is known to be taken.
	var stores []*os.File
	defer func() {
		for _, s := range stores {
			_ = s.Close()
		}
	}()
	part, journal := *out+".part", *out+".journal"
	c.Open = func(*fragment.Signed) (fragment.Store, fragment.Store, error) {
		for _, path := range []string{part, journal} {
			file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				return nil, nil, err
			}
			stores = append(stores, file)
		}
		return stores[0], stores[1], nil
	}
	var once sync.Once
	b := newBar(sio.err, "fetching", 0)
	c.Progress = func(verified, size int64) {
		once.Do(func() { b.total = size })
		b.set(verified)
	}
	start := time.Now()
	r, err := fetch.Run(ctx, c)
	b.end()
	if err != nil {
		if len(stores) > 0 && (errors.Is(err, fetch.ErrSuspended) || errors.Is(err, context.Canceled)) {
			return fmt.Errorf("%w; %s keeps what is verified: run the same command again to go on", err, part)
		}
		return err
	}
	if err := stores[0].Truncate(int64(r.Signed.Manifest().Size)); err != nil {
		return err
	}
	if err := os.Rename(part, *out); err != nil {
		return err
	}
	if err := os.Remove(journal); err != nil {
		return err
	}
	m := r.Signed.Manifest()
	v := struct {
		File     string               `json:"file"`
		Bytes    uint32               `json:"bytes"`
		Sequence uint64               `json:"sequence"`
		Resumed  int64                `json:"resumed_bytes"`
		Requests int64                `json:"requests"`
		Retries  int64                `json:"retries"`
		Forged   int64                `json:"forged_blocks_refused"`
		Received int64                `json:"received_bytes"`
		Peak     int                  `json:"peak_unverified_bytes"`
		Seconds  float64              `json:"seconds"`
		Mirrors  []fetch.MirrorResult `json:"mirrors"`
	}{*out, m.Size, m.Sequence, r.Resumed, r.Requests, r.Retries, r.Forged, r.Received, r.Peak, time.Since(start).Seconds(), r.Mirrors}
	return f.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d bytes, sequence %d, every block verified\n", v.File, v.Bytes, v.Sequence)
		fmt.Fprintf(w, "%d requests, %d retries, %d forged blocks refused, %d bytes received, at most %d unverified in memory\n", v.Requests, v.Retries, v.Forged, v.Received, v.Peak)
	})
}
