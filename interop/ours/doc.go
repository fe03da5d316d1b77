// Package ours makes this library one more peer of the interop tests: a client
// and a server with the resources and the commands that every peer has, over
// real sockets in the test's own process.
//
//	peer.Client ──┐                       ┌── peer's server
//	              ├── relay (interop/peer)┤
//	ours.Client ──┘                       └── ours.Server
//
//	config.go      a peer.Context as the library wants it; what a test may vary
//	server.go      the server, its start, its crash and what it has done
//	resources.go   /oscore/… of the interop specification, and /oscore/large
//	client.go      the client: peer.Request to peer.Result
//	device.go      the LwM2M device of internal/sim
//	oscored.go     the daemon, its configuration and its crash
//	program.go     commands of this repository as processes
package ours
