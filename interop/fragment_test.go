//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/fragment"
	"github.com/oscorelay/oscorelay/fragment/fetch"
	"github.com/oscorelay/oscorelay/internal/mirror"
	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/peer"
)

// firmware is a signed image and its file in one layout.
func firmware(t *testing.T, l fragment.Layout) (image, file []byte, s *fragment.Signed) {
	t.Helper()
	image = bytes.Repeat(peer.Large(), 1+60_000/len(peer.Large()))
	author, err := fragment.NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32)), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := fragment.Describe(bytes.NewReader(image), uint32(len(image)), 6, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Sequence = 1
	sign1, err := fragment.Sign(nil, m, author)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = fragment.Open(sign1, author.Public()); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := fragment.Cut(&out, bytes.NewReader(image), s.Envelope(), fragment.CutConfig{Layout: l}); err != nil {
		t.Fatal(err)
	}
	return image, out.Bytes(), s
}

// Somebody else's CoAP file server is a mirror like any other.
func TestFirmwareFromAiocoapFileserver(t *testing.T) {
	for _, l := range []fragment.Layout{{Unit: 10, Page: 10}, {Unit: 6, Page: 8}} {
		image, file, s := firmware(t, l)
		dir, name := t.TempDir(), s.Name(l).String()
		if err := os.WriteFile(filepath.Join(dir, name), file, 0o644); err != nil {
			t.Fatal(err)
		}
		port := peer.FreePort(t)
		peer.AiocoapFileserver(t, port, dir)
		udp, err := fetch.ListenUDP(fetch.Timing{})
		if err != nil {
			t.Fatal(err)
		}
		defer udp.Close()
		source, err := udp.Source(t.Context(), "coap://"+peer.Loopback(port).String()+"/"+name)
		if err != nil {
			t.Fatal(err)
		}
		flash, err := os.Create(filepath.Join(t.TempDir(), "flash"))
		if err != nil {
			t.Fatal(err)
		}
		defer flash.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r, err := fetch.Run(ctx, fetch.Config{Sources: []fetch.Source{source}, Keys: []fragment.PublicKey{s.Key()}, Flash: flash})
		if err != nil {
			t.Fatalf("%v (%+v)", err, r)
		}
		got, err := os.ReadFile(flash.Name())
		if err != nil || !bytes.Equal(got, image) || r.Retries != 0 {
			t.Fatalf("%v, %+v", err, r)
		}
	}
	proof.Interop(t, peer.Version(t, "aiocoap"), "their file server → our download", "Firmware, verified block by block")
}

// Our mirror serves somebody else's client.
func TestFirmwareToAiocoapClient(t *testing.T) {
	l := fragment.Layout{Unit: 10, Page: 10}
	_, file, s := firmware(t, l)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	path := "/fw/" + s.Name(l).String()
	server := &mirror.Server{Lookup: func(p string) (mirror.File, bool) {
		return mirror.File{ReaderAt: bytes.NewReader(file), Size: int64(len(file)), ETag: []byte{1}}, p == path
	}}
	go func() { _ = server.Serve(ctx, conn) }()
	if got := peer.AiocoapGet(t, "coap://"+conn.LocalAddr().String()+path); !bytes.Equal(got, file) {
		t.Fatalf("%d bytes, want %d", len(got), len(file))
	}
	proof.Interop(t, peer.Version(t, "aiocoap"), "their client → our mirror", "Block2, plain")
}
