// Package oscoretest is for tests of programs that use OSCORE: two endpoints in
// memory with a hostile relay between them, and nothing that happens by itself.
//
//	          ┌────────────── Relay ──────────────┐
//	Client ⇄  │ Drop Duplicate Delay Flip Reverse │  ⇄ Server
//	 Handler  │ Swap Strip SetOption Deliver      │    Handler
//	          └──────── Capture: all of it ───────┘
//
// Both ends can send requests and serve them, sealed by the package that the
// go-coap binding stands on, with keys of package keys in memory. The relay sees
// code, token and body of every message and has no key. Time is the caller's:
// [Pair.Advance]. No goroutine, no socket, no sleep: a test does the same each
// time it runs.
//
//	pair := oscoretest.NewPair(t, oscoretest.Config{Server: handler})
//	pair.Relay.To(oscoretest.ToServer, oscoretest.Flip(100))
//	_, err := pair.Client.Do(oscoretest.Put("/3/0/15", []byte("UTC")))
//
// Programs on go-coap take the pair of keyrings alone, [Keyrings], and put
// their own connection between.
//
//	pair.go      the pair, its clock
//	side.go      an end: requests, handler, observations, restart
//	exchange.go  a request and what comes of it
//	relay.go     the relay
//	script.go    what it can do to a message
//	message.go   messages, codes
//	keyrings.go  keys for tests of the program's own making
//
// Limits: there is no message layer, so nothing is retransmitted or
// deduplicated unless the test does it ([Exchange.Retransmit], [Duplicate]): a
// request that comes twice meets the replay window. The relay passes messages
// whole. Randomness comes from a fixed seed, and the keys are printed here: for
// tests only.
package oscoretest
