package main

import (
	"bytes"
	"context"
	"testing"
)

func TestOpenKeys(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("OSCORE_HOME", dir+"/keys")
	t.Setenv("OSCORE_ANCHORS", dir+"/anchors")
	var out, text bytes.Buffer
	if status := run(context.Background(), []string{"oscore", "keys", "new", "demo"}, nil, &out, &text); status != 0 {
		t.Fatalf("status %d: %s", status, &text)
	}
	var flags storeFlags
	store, err := flags.open(t.Context(), stdio{nil, &out, &text})
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := store.ring.Get("demo"); !ok || p.Tainted() || !p.Status().WindowOpen {
		t.Error("demo is missing, tainted, or not fresh")
	}
	if _, err := flags.open(t.Context(), stdio{nil, &out, &text}); err == nil {
		t.Error("opened twice")
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}
