// Package endpoint is what stands between an OSCORE context and an
// application: Echo, Appendix B, observations, inner block-wise, error answers.
// It is a state machine in both roles. It has no sockets and no clock of its
// own; messages go in and come out with the time they came at.
//
//	         server                                   client
//	datagram ─► Receive ─► Result               Begin ─► Exchange, message ─► token, socket
//	              │ Reply, Drop                            │
//	              ▼ Deliver                                ▼
//	            Incoming ─► handler             socket ─► Exchange.Receive ─► Step
//	              │ Respond ─► message                     Wait │ Send │ Response │ Notification │ Failed
//	              ▼
//	            Observation.Notify ─► message
//
// An Exchange is one request as the application sees it: an Echo round trip,
// the blocks of both bodies and a context derived anew are its steps. A
// message that fails to verify is a Wait and changes nothing, so that the
// genuine one is still taken; a plain error is reported and never acted on.
//
//	endpoint.go        configuration
//	peer.go            what is remembered of a peer
//	server.go          RFC 8613 §8.2: look-up, verification, refusals
//	incoming.go        §8.3: responses, No-Response
//	observe.go         RFC 7641, RFC 8613 §4.1.3.5: observations, server's side
//	blockserver.go     RFC 7959 §2.4, §2.5, RFC 9175 §3.3: inner blocks, server's side
//	transfers.go       the bodies that it holds
//	freshness.go       RFC 9175 §2.3, RFC 8613 Appendix B.1.2: Echo
//	rederive.go        Appendix B.2, server's side
//	rederiveclient.go  Appendix B.2, client's side
//	client.go          §8.1, §8.4: exchanges
//	blockclient.go     inner blocks, client's side
//	outer.go           §4.1.3.4.2: outer blocks, up to MAX_UNFRAGMENTED_SIZE
//	errors.go          §8.2: the table of plain error answers
//	inner.go           what is read of an inner message
//	key.go             RFC 7252 §5.6: cache keys
//	limits.go          rates
//
// Limits: see [Config]; what an unauthenticated sender can make grow is the
// fixed table of rate limits and, where outer blocks are taken, the bounded
// [Reassembler]. Everything else belongs to a peer that has proven itself, and
// is bounded for each.
package endpoint
