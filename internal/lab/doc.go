// Package lab runs OSCORE between real processes over real sockets through
// hostile hands, and says what each party could see. First the chain:
//
//	sim device ⇄ mallory ⇄ oscore-proxy ⇄ tap ⇄ oscored ⇄ tap ⇄ sim server
//	 (sealed)       │        (no key)          (the key)          (plain)
//	                └ captures, flips, replays, keeps back, strips, answers
//
// everyday LwM2M, kill -9 of oscored in the middle of it, the attacks, and what
// the captures of the three wires show. Then the library at both ends:
//
//	oscore agent ⇄ mallory ⇄ oscore serve
//
// Each step yields a [Row]; a row that is not OK is a failure of the software.
//
//	lab.go           the run; the library's parties
//	process.go       child processes that speak JSON lines, daemons that log
//	chain.go         the chain's parties
//	chaintraffic.go  what must work
//	chainkill.go     what must go on
//	chainattack.go   what the hostile proxy must not achieve
//	sight.go         what each hop could see, nonces
//	traffic.go       the library: what must work
//	attacks.go       what must not
//	handshake.go     EDHOC through the relay, in this process
//
// Limits: one device; the chain is on Linux alone, see [HasChain]. A hostile
// proxy can keep everything from everybody, and a keyless proxy carries the first
// of two answers: that nothing arrives is no failure, that something else does is.
package lab
