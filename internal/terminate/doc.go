// Package terminate is OSCORE in front of a server that has none: devices speak
// OSCORE, the backend speaks plain CoAP and notices nothing.
//
//	device ══ OSCORE ══▶ front ┐                    ┌ upstream ── plain ──▶ backend
//	 kid, kid context          │  device, its index │   127.64.7.3:25683
//	       ◀══ OSCORE ═════════┘  ◀─ exchanges ───▶ └◀── requests, Observe ──
//
// A backend of LwM2M tells devices apart by address and port and calls them back
// there. So each device has an upstream address of its own, made from the durable
// index of its context and the same after a restart, all on one socket.
//
// Messages are passed one by one, blocks included: a body is never held, so that
// a block-wise transfer outlives the gateway. Echo (RFC 9175) and Appendix B of
// RFC 8613 are this side's affair, on behalf of the backend.
//
//	config.go        what a gateway is made of
//	gateway.go       the sockets, the lock, the clock
//	wait.go          requests that wait for their answer
//	device.go        what is known of a device, its return address
//	uplink.go        requests of devices
//	downlink.go      requests of the backend
//	observe.go       observations of the backend, taken up after a restart
//	journal.go       unsafe requests of the backend, over a crash
//	durable.go       what is written behind, and read at a start
//	registration.go  LwM2M: who may register as what
//	plain.go         devices that have no OSCORE yet
//	upstream.go      index to address and back
//	stats.go         counters, what an operator sees of a device
//
// # What survives a kill
//
// An unsafe request of the backend (RFC 7252 §5.1) is in the store, as it will go
// out, before it goes out. After a restart the very same bytes are sent again: the
// device knows them by message ID, or its replay window does, so that nothing runs
// twice, and the answer still verifies. Its answer is kept for the backend's own
// retransmissions. Safe requests are not acknowledged before they are answered, so
// that the backend repeats them. Observations are asked for anew, under the
// backend's own token. A device's request that was cut off comes again by its own
// retransmission and, since the replay window is lost, one Echo round trip.
//
// # Limits
//
// What a device sent just before a kill may reach the backend twice: once before
// it and once, as a new message, after it. A device's own observation of a
// resource of the backend ends with the process. All state but keys, addresses
// and the journal is in memory and bounded (Config). One lock guards the tables;
// requests are opened and sealed without it, a batch at a time: a request
// that waits for storage holds up those that came with it.
package terminate
