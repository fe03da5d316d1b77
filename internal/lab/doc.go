// Package lab runs OSCORE between real processes over real sockets through a
// hostile relay, and says what each party could see:
//
//	oscore agent ⇄ mallory ⇄ oscore serve
//	 (a device)      │        (a server)
//	                 └ captures everything, flips, replays, delays, swaps, strips, forges
//
// First everyday traffic, with kill -9 of either side, then the attacks. Each
// step yields a [Row]; a row that is not OK is a failure of the software.
//
//	lab.go        the parties and the run
//	process.go    child processes that speak JSON lines
//	traffic.go    what must work
//	attacks.go    what must not
//	handshake.go  EDHOC through the relay, in this process
package lab
