// Package handshake carries EDHOC (RFC 9528) over CoAP and puts the OSCORE
// contexts that come of it into a keyring. It has no socket and no clock of its
// own: CoAP messages go in and come out; package oscore/gocoap moves them.
//
//	client                                    server
//	To(Peer) ─► Outgoing                      Serve, ServeCombined
//	  Next ─► POST /.well-known/edhoc ──────►  rate limit, Echo ─► queue ─► worker
//	  Next ◄─ 2.04 message_2 ◄───────────────  session, by C_R
//	  Next ─► C_R, message_3 ───────────────►  who is it? ─► keyring
//	  Combine ─► message_3 + sealed request ►  keyring, then the request
//
// Both flows are here: in the reverse one (RFC 9528 Appendix A.2.2) an empty
// POST makes the server the Initiator, which hides the server's identity from
// active attackers rather than the client's.
//
// # What a stranger can cost
//
// Public-key operations run in a few workers with a queue of fixed length;
// what comes above it is told 5.03 with Max-Age. The first message of a
// handshake is counted by source, and in all: when strangers come too fast each
// is asked to prove its address by Echo (RFC 9175), and those that have are
// counted apart from those that have not. Half-open sessions are bounded; the
// oldest makes room, so that a session lives at least MaxSessions divided by
// the rate, whoever floods. Contexts are bounded, too, and belong to peers that
// proved who they are.
//
//	config.go      Config, New
//	serve.go       RFC 9528 Appendix A.2, server's side
//	forward.go     Appendix A.2.1: the server as Responder
//	reverse.go     Appendix A.2.2: the server as Initiator
//	combined.go    RFC 9668 §3.3: message_3 with the first request
//	sessions.go    half-open sessions
//	limits.go      rates, Echo (RFC 9175 §2.3)
//	pool.go        workers
//	context.go     Appendix A.1: contexts into the keyring
//	outgoing.go    client's side, both flows; RFC 9668 §3.2
//	block.go       RFC 7959: messages above one block
//
// # Limits
//
//   - One EDHOC resource and one application profile for each Service.
//   - Contexts begin at sequence number 0, with the identifiers of the
//     handshake, without ID Context; keys are not updated (RFC 9528 Appendix H),
//     a new handshake takes the old one's place.
//   - A crash between a new context and the forgetting of the one before leaves
//     the latter's numbers in the keyring's store, 100 bytes.
//   - Contexts are made durable one by one for each peer, at most 64 at a time;
//     while more wait for the disk, handshakes wait, too.
//   - EAD items are read by nobody: critical ones end the handshake.
//   - A message has at most MaxMessage bytes, over datagrams in blocks.
package handshake
