package main

import (
	"context"
	"net/netip"
	"time"
)

// engine is what a [[terminate]] route runs on.
type engine interface {
	Addr() netip.AddrPort
	Serve(ctx context.Context) error
	Forget(name string)
	Devices(fn func(device) bool)
	Stats() engineStats
}

// device is a device that an engine knows.
type device struct {
	Name         string         // of its context
	Endpoint     string         // LwM2M endpoint name
	Address      netip.AddrPort // it was last seen at
	Upstream     netip.AddrPort // the backend knows it by
	Location     string         // of its registration
	LastSeen     time.Time
	Sealed       bool
	Observations int
	Exchanges    int
	Stuck        string // reason, empty if it is not
	Next         string // what to do about it
}

// engineStats are counters and gauges.
type engineStats struct {
	Requests, Responses, Notifications uint64
	Refused                            map[string]uint64 // by reason
	Exchanges, Observations, Devices   int
	Plain                              int // devices that were seen without OSCORE and not with it since
}

var plainPolicies = map[string]int{"refuse": 0, "accept": 1, "observe": 2}

var freshnessPolicies = map[string]int{"window": 0, "first": 1, "unsafe": 2, "always": 3}
