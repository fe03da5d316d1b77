// Package load is a fleet of devices and a server, made to be quick, that load what
// stands between them: a gateway with and without OSCORE, a keyless proxy, a
// forwarder that looks at nothing. Only its tests use it.
//
//	fleet ── 127.1.0.0/16 … ──▶ middle, a process of its own ──▶ backend
//	 one socket, a source address   forwarder | proxy | gateway     answers at once,
//	 and a context for each device                                  asks devices
//
// A middle says what processor time it took, so that the cost of the load itself
// is left out. Middles take turns of a few thousand requests each: what else the
// machine does falls on all of them alike, and the ratios hold.
//
//	middle_linux_test.go   the middles
//	fleet_linux_test.go    devices, sealed and plain
//	backend_linux_test.go  the server
//	bench_linux_test.go    the figures of make bench
//	bounds_linux_test.go   what a flood may not leave behind
//	soak_linux_test.go     floods, overload, long runs (make soak)
package load
