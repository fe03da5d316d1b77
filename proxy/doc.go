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
// Proxy-Scheme with Uri-Host and Uri-Port, Hop-Limit, and the block options of
// a request that it cuts. Nothing is cached (RFC 8613 §10 forbids it for what is
// protected). Observations are mapped one to one, and end at both sides when
// either ends them.
//
// All of it stands in shards, as many as there are processors: sockets that
// share the address, each with a lock, a goroutine and tables of its own. The
// kernel leads a client to the same shard each time. A datagram allocates nothing once the
// tables have grown to what the traffic needs.
//
//	config.go    what it does and its limits
//	plan.go      RFC 7252 §5.7: which options pass, where a request goes
//	uri.go       §6.4: Proxy-Uri taken apart
//	option9.go   RFC 8613 §6.1: kid and kid context, to route by
//	exchange.go  a request under way, an observation
//	shed.go      who goes when the table is full
//	token.go     tokens toward servers
//	address.go   a peer, and the address of ours that it talks to
//	shard.go     requests forward, responses back, what fails
//	upstream.go  sockets toward servers; whose they are, and where their holder is
//	blockwise.go RFC 7959 §2.5, RFC 8613 §4.1.3.4.2: requests cut for a smaller next hop
//	leg.go       a socket and what belongs to its address
//	loop.go      a shard's only goroutine: datagrams in, times that are due
//	batch.go     datagrams out
//	resolve.go   names to addresses
//	proxy.go     start, loops, drain
//	stats.go     counters by reason, gauges
//
// The proxy refuses with 4.00 what is malformed, 4.02 an option that it does
// not know and that is not safe to forward, 4.03 a target that is not allowed,
// 4.04 what no route matches, 5.02 an answer that it cannot pass or a server
// that resets, 5.03 when a limit is reached, 5.04 silence, 5.05 a scheme that it
// does not speak or a role that it does not have, 5.08 a loop. These answers
// are not protected and cannot be: whoever is on the path can say the same.
//
// A client that has not shown that it receives at its address is sent no more
// than three times what came from there (RFC 9175 §2.4), link headers counted on
// both sides; what it is owed beyond waits until it has answered a ping.
//
// Of the observations, answers and long tokens of one client no more is kept
// than its limits say, whether it takes them or not: of notifications that wait
// for it the latest alone. A client that begins to observe is asked by a ping
// whether it receives, unless that is known: where there is no room for more
// observations, those of the silent go first.
//
// Limits: UDP only. On other systems than Linux there is one shard, and a
// wildcard listener answers from the address that the system chooses. Answers
// are not cut into blocks: a client on a narrow network asks for small ones
// (Block2) end to end. One upstream socket carries 65280 requests in 247
// seconds to a server, since no message ID may come twice in that time (RFC 7252
// §4.4): more sockets are opened as traffic asks for them.
package proxy
