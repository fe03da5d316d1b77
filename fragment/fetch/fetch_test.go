package fetch

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/oscorelay/oscorelay/fragment"
	fileserver "github.com/oscorelay/oscorelay/internal/mirror"
)

func TestDownload(t *testing.T) {
	for name, l := range map[string]fragment.Layout{
		"1024":     {Unit: 10, Page: 10},
		"LPWAN":    {Unit: 8, Page: 8},
		"mixed":    {Unit: 8, Page: 10},
		"4096":     {Unit: 12, Page: 12},
		"smallest": {Unit: 6, Page: 6},
		"outboard": {Unit: 10, Page: 10, Outboard: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelease(t, 50_001, 6, l)
			c, flash := r.job(t, r.uri(r.serve(t), l))
			res := complete(t, c, flash, r.image)
			if res.Forged != 0 || res.Resumed != 0 {
				t.Fatalf("%+v", res)
			}
			t.Logf("%+v", res)
		})
	}
}

// A mirror that sends smaller blocks than it is asked for is taken as it is,
// and asked for smaller ones from then on.
func TestMirrorWithSmallBlocks(t *testing.T) {
	r := newRelease(t, 50_000, 8, kilo)
	addr := r.serve(t, func(s *fileserver.Server) { s.MaxSZX = 4 })
	c, flash := r.job(t, r.uri(addr, kilo))
	res := complete(t, c, flash, r.image)
	if res.Retries != 0 || res.Received > int64(len(r.image)*11/10) {
		t.Fatalf("%+v", res)
	}
}

// A manifest from a sealed path is not asked of the mirrors.
func TestManifestFromASealedPath(t *testing.T) {
	r := newRelease(t, 50_000, 8, kilo)
	var header atomic.Int64
	addr := r.serve(t, func(s *fileserver.Server) {
		s.Forge = func(_ string, offset int64, _ []byte) {
			if offset == 0 {
				header.Add(1)
			}
		}
	})
	c, flash := r.job(t, r.uri(addr, kilo))
	c.Manifest = func(_ context.Context, n fragment.Name) ([]byte, error) {
		if n != r.signed.Name(kilo) {
			t.Errorf("asked for %v", n)
		}
		return r.signed.Bytes(), nil
	}
	complete(t, c, flash, r.image)
	if header.Load() != 0 {
		t.Fatal("the header was asked for")
	}
}
