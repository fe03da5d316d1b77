// Package gocoap puts OSCORE (RFC 8613) into programs that use go-coap, as
// client, as server, and as both on one connection, over UDP, DTLS and TCP.
//
//	program         Client.Get, Do, Observe              mux.Handler, w.Conn().WriteMessage
//	                   │            ▲                           ▲            │
//	this package    seal │            │ open             verify │            │ seal
//	                   ▼            │                           │            ▼
//	go-coap         retransmission, message IDs, connections, TLS
//
// A server:
//
//	ep := gocoap.New(gocoap.Config{Keyring: ring})
//	server := udp.NewServer(ep.UDPServer(router)...)
//
// A client:
//
//	c, err := ep.DialUDP("192.0.2.1:5683", "server", nil)
//	resp, err := c.Get(ctx, "/3/0/0")
//
// In a handler, [Peer] tells who sent the request, and w.Conn() is a protected
// connection back to that peer, so that a server can send requests of its own:
// both sides of LwM2M do. Where there is no context nothing is sent.
//
//	gocoap.go   the endpoint and its configuration
//	options.go  what go-coap's servers and connections are made with
//	link.go     what hangs on one connection; verification of what comes in
//	serve.go    requests received: answers, notifications
//	memory.go   retransmissions of verified requests (RFC 7252 §4.2)
//	client.go   requests sent
//	observe.go  observations, client's side
//	guard.go    options 9 and 21 in go-coap's global table, and what that takes
//	convert.go  go-coap's messages to bytes and back
//
// What cannot be mended from above go-coap:
//
//   - Importing this package makes options 9 and 21 known to every go-coap
//     server of the process; wrap servers without OSCORE in [Guard].
//   - go-coap's own block-wise transfer is switched off by the option bundles.
//     Inner block-wise, which every protected message uses, is this package's;
//     plain requests that Config.AllowPlain lets pass are limited to one
//     message each.
//   - An empty acknowledgement or a reset is protected by nothing: one that is
//     forged with the message ID of a request stops its retransmission. A forged
//     piggybacked response does not, and no forged response ends a request.
//   - Tokens above 8 bytes close the connection.
//   - go-coap lets one confirmable request to a peer be unacknowledged at a time
//     (NSTART); options.WithTransmission changes that.
package gocoap
