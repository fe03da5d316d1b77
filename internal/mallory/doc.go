// Package mallory is a hostile intermediary: a UDP relay that sees every
// datagram and does with it what a script says. It holds no key.
//
//	client ⇄ mallory ⇄ server
//	            │ Script: Pass, drop, change, delay, add; or Rules, read from text
//	            │ Inject, Send: anything, either way, at any time
//	            └ Capture: every datagram that came in and went out
//
// Each client address gets an upstream socket of its own, so that the server
// sees as many addresses as there are clients.
//
//	mallory.go   the relay
//	edit.go      datagrams changed
//	parse.go     scripts: statements, words, values
//	rules.go     scripts: which datagrams
//	actions.go   scripts: what is done to them
//
// Limits: UDP alone; a thousand clients; what a script keeps back is lost when
// the relay ends.
package mallory
