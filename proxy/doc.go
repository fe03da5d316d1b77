// Package proxy carries CoAP between networks without holding a key: as
// forward-proxy, where the client names the server, and as reverse-proxy, where
// the configuration does. What travels in OSCORE (RFC 8613) it can neither read
// nor change unnoticed, and that is a fact of the build: the package imports no
// code that knows keys, and a test holds it to that.
//
//	clients          front                    upstream          servers
//	         ┌────────┐   plan: options, route  ┌────────┐
//	CON 17 ─▶│ message│──▶ exchange table ─────▶│ message│─▶ CON 4711
//	token a  │ layer  │   client, token a       │ layer  │   token 91c3…
//	         │        │◀── server, token 91c3… ◀│        │
//	ACK 17 ◀─│        │                         │        │◀─ ACK 4711
//	         └────────┘                         └────────┘
//
// Each side has message IDs and tokens of its own, retransmits by itself and
// knows duplicates by itself; confirmable stays confirmable. Bodies pass byte
// by byte except for the options that a proxy must change: Proxy-Uri,
// Proxy-Scheme with Uri-Host and Uri-Port, Hop-Limit. Nothing is cached
// (RFC 8613 §10 forbids it for what is protected). Observations are mapped one
// to one, and end at both sides when either ends them.
//
//	config.go    what it does and its limits
//	plan.go      RFC 7252 §5.7: which options pass, where a request goes
//	uri.go       §6.4: Proxy-Uri taken apart
//	option9.go   RFC 8613 §6.1: kid and kid context, to route by
//	exchange.go  a request under way, an observation
//	token.go     tokens toward servers
//	address.go   a peer, and the address of ours that it talks to
//	shard.go     requests forward, responses back, what fails
//	upstream.go  sockets toward servers
//	leg.go       a socket: datagrams in
//	batch.go     datagrams out, many a system call
//	resolve.go   names to addresses
//	proxy.go     start, loops, drain
//	stats.go     counters
//
// The proxy refuses with 4.00 what is malformed, 4.02 an option that it does
// not know and that is not safe to forward, 4.03 a target that is not allowed,
// 4.04 what no route matches, 5.02 an answer that it cannot pass or a server
// that resets, 5.03 when a limit is reached, 5.04 silence, 5.05 a scheme that it
// does not speak or a role that it does not have, 5.08 a loop. These answers
// are not protected and cannot be: whoever is on the path can say the same.
//
// Limits: UDP only, and tried on Linux only. One socket listens. A wildcard listener answers from the
// address that the system chooses, which on a machine with several may be
// another than the one that was asked. Outer block-wise passes as it is and is
// not cut for a smaller next hop. There is no limit to what an unverified
// source can have sent to it beyond the size of the server's answer.
package proxy
