package freeport

import (
	"io"
	"net"
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) { floors.Imports(t, "std") }

// A port that is in use is not offered.
func TestFree(t *testing.T) {
	port := int(Get(t))
	if !free(port) {
		t.Fatalf("%d is not free any more", port)
	}
	for _, network := range []string{"udp4", "tcp4"} {
		hold(t, network, port)
		if free(port) {
			t.Errorf("%d is in use for %s, and offered", port, network)
		}
		port = int(Get(t))
	}
}

// hold takes a port until the test ends.
func hold(t *testing.T, network string, port int) {
	t.Helper()
	var c io.Closer
	var err error
	if network == "udp4" {
		c, err = net.ListenUDP(network, &net.UDPAddr{Port: port})
	} else {
		c, err = net.ListenTCP(network, &net.TCPAddr{Port: port})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
}
