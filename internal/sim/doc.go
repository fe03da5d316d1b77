// Package sim is a small LwM2M device and a small LwM2M server (Core and
// Transport 1.1, 1.2), in plain or with OSCORE inside, for tests, for the lab
// and as processes of their own (oscore sim).
//
//	           Device                                        Server
//	lwm2m.Objects ◀─ operations, notifications      registrations, operations, log
//	           └──────── node ◀── one UDP socket ──▶ node ────────┘
//	                      ├ sealed: oscore/gocoap
//	                      └ plain:  go-coap, with block-wise transfer and observations of its own
//
// Both serve and ask from one unconnected socket. So neither dies of what the
// other's host says of a closed port, and a peer that was killed and started
// again finds the other where it was.
//
// The server knows devices as Leshan does: a registration by its endpoint
// name, its requests by the address of the last registration or update, and
// notifications only from the address that the observation went to; all
// others are reset.
//
// Everything that happens is an [Event] in a [Log], to wait for and to assert
// on. Timers come from a [Clock]: lifetimes, pmin and pmax, the sleep of Queue
// Mode. Only CoAP's own timers are those of go-coap.
//
//	message.go      requests and responses, and go-coap's form of them
//	node.go         the socket; requests and handlers under OSCORE
//	plain.go        the message layer in plain: duplicates, RST, observations
//	block.go        block-wise transfer in plain (RFC 7959)
//	device.go       registration, Send, Queue Mode (LwM2M Core §6.2, §6.4, §6.5)
//	deviceserve.go  what the device answers (LwM2M Core §6.3)
//	notify.go       its observations and their attributes
//	server.go       /rd and /dp
//	operations.go   what the server asks of a device
//	event.go        events, the log, the clock
//	process.go      both as processes: JSON lines
//	lwm2m/          objects, values and formats
//
// Limits: no bootstrap, no DTLS, no access control; the account of Objects 0
// and 21 is there to be refused, and holds no secret. A registration is not
// kept across a restart of the server.
package sim
