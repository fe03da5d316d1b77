// Package freeport finds ports for tests whose processes need one that stays the
// same over restarts.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Get returns a port of Find, or ends the test.
func Get(t testing.TB) uint16 {
	t.Helper()
	port, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Find returns a port that was free a moment ago, for UDP and for TCP. It is below
// those that the system gives away by itself: nobody comes by it while the process
// that it is for is down. A program gets none twice.
func Find() (uint16, error) {
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		if _, was := given.LoadOrStore(port, nil); !was && free(port) {
			return uint16(port), nil
		}
	}
	return 0, errors.New("freeport: no port is free")
}

var given sync.Map

func free(port int) bool {
	u, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if err != nil {
		return false
	}
	defer u.Close()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: port})
	if err != nil {
		return false
	}
	defer l.Close()
	return true
}
