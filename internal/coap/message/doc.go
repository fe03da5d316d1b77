// Package message is the message layer of CoAP over datagrams (RFC 7252 §4):
// what makes a request arrive, an answer come back to its own request, and a
// duplicate go unnoticed. Every leg that carries datagrams stands on it.
//
//	                     ┌─────────────────── Layer ───────────────────┐
//	bytes ── Receive ──▶ │ known? repeat what was answered             │ ──▶ Event: Request, Response,
//	                     │ new?   hand up, remember NOTHING            │            Acknowledged, Reset
//	verified ─ Accept ─▶ │ remember it (deduplication), acknowledge    │
//	answer ── Respond ─▶ │ piggybacked, or separate after AckDelay     │ ──▶ Output: bytes for a peer
//	request ─── Send ──▶ │ message ID, NSTART, retransmission          │
//	clock ─── Advance ─▶ │ back-off, give up, expiry                   │ ──▶ Event: GaveUp
//	                     └─────────────────────────────────────────────┘
//
// It is a state machine: bytes and the time in, bytes and events out. It has
// no socket, no clock and no goroutine. A Layer serves one local endpoint, that
// is one socket; peers are told apart by whatever the leg calls an address.
//
//	layer.go     the Layer, its limits, what goes out
//	receive.go   §4.2, §4.3, §4.5: what comes in; acceptance, duplicates
//	send.go      §4.2, §4.4, §4.7: message IDs, NSTART, retransmission
//	peer.go      what is kept for each peer, message IDs and their lifetime (§4.4)
//	params.go    §4.8: transmission parameters
//	seen.go      what was accepted, by message ID
//	reach.go     peers that may not be where they say (RFC 9175 §2.4)
//	timer.go     deadlines
//	list.go      lists that know their order
//
// A forged datagram leaves no trace. Deduplication does not look at the message
// ID alone, as RFC 7252 §4.5 has it, but at the whole message, and it remembers
// a message only once the caller has verified and accepted it: else one forged
// datagram with the genuine message ID would make the genuine one a duplicate.
// For the same reason a piggybacked response ends the retransmission of its
// request only when it is accepted. What remains is in the protocol itself:
// an empty acknowledgement and a Reset are protected by nothing, so that one
// forged with the right message ID and address is believed. An acknowledgement
// then stops the retransmission, but a genuine response is taken all the same.
//
// Memory is bounded (Config): what is remembered of the messages received is
// dropped from the oldest on, which makes a very late duplicate look new; what
// is to be sent is refused with [ErrFull]. A Layer is not safe for concurrent
// use.
package message
