// Package peer starts other people's OSCORE implementations, puts a relay
// between two parties and looks at what went over the wire.
//
//	client ──▶ Relay ──▶ server        every datagram of both directions is kept
//	   ▲         │          ▲
//	   └─ Process┼──────────┘          own process group each, killed at the end
//	             ▼
//	          Capture: sealed? nothing readable? how often was a number used?
//
// A peer's program comes from interop/, what it runs on from .interop/, which
// make interop-setup fills. A component that is missing there skips the test
// with the reason that the set-up noted, or fails it if INTEROP_STRICT=1.
//
//	component.go   where a component lies, and why it does not
//	process.go     start, readiness by condition, kill of the whole group
//	port.go        free ports of loopback, who listens, CoAP ping
//	relay.go       the capturing UDP relay, with loss and repetition on demand
//	tcprelay.go    the same for TCP; its capture looks like one of datagrams
//	capture.go     assertions on what the relay saw
//	nonce.go       nonces of both ends over restarts; plain errors
//	wire.go        the datagram's header and options, read independently of
//	               the library under test
//	pcap.go        a capture as a file for tshark
//	context.go     one security context, as each peer wants it written
//	client.go      the line protocol that drives a peer's client
//	aiocoap.go californium.go liboscore.go libcoap.go   the peers
//	leshan.go       LwM2M: what a server is asked, its events
//	leshan_demo.go  the demo server, by REST and its event stream
//	leshan_lines.go the servers on later versions, and the client, by lines
//	browser.go      a page in a real browser
//	java.go         how a Java program is run
//	gocoap.go      go-coap alone, in a process that knows no OSCORE
//
// Limits: Linux (process groups, /proc/net/udp), IPv4 loopback.
package peer
