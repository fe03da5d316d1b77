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
// Two parties that share no secret shake hands first (EDHOC, RFC 9528; package
// keys/handshake). A server:
//
//	service, err := handshake.New(handshake.Config{Ring: ring, EDHOC: identities, Store: store})
//	ep := gocoap.New(gocoap.Config{Keyring: ring, EDHOC: service})
//
// and a client, from whose conn on everything is sealed:
//
//	hs, err := service.To(handshake.Peer{Name: "server", Combined: true})
//	c, err := ep.Handshake(ctx, conn, hs)
//
// In a handler, [Peer] tells who sent the request, and w.Conn() is a protected
// connection back to that peer, so that a server can send requests of its own:
// both sides of LwM2M do. Where there is no context nothing is sent.
//
//	gocoap.go   the endpoint and its configuration
//	options.go  what go-coap's servers and connections are made with, and when idle ones close
//	link.go     what hangs on one connection; what comes in, before go-coap acts on it
//	serve.go    requests received: answers, notifications
//	memory.go   retransmissions of verified requests (RFC 7252 §4.2)
//	client.go   requests sent
//	waiter.go   a request under way; responses that a hop cut (RFC 8613 §4.1.3.4.2)
//	gate.go     NSTART, and why a request is sealed no earlier than it is sent
//	observe.go  observations, client's side
//	ticker.go   retransmissions in time
//	edhoc.go    handshakes, both sides (RFC 9528 Appendix A.2, RFC 9668)
//	guard.go    options 9 and 21 in go-coap's global table, and what that takes
//	convert.go  go-coap's messages to bytes and back
//
// What cannot be mended from above go-coap, and other limits:
//
//   - Importing this package makes options 9 and 21 known to every go-coap
//     server of the process; wrap servers without OSCORE in [Guard].
//   - go-coap's own block-wise transfer is switched off by the option bundles.
//     Inner block-wise, which every protected message uses, is this package's;
//     plain requests that Config.AllowPlain lets pass are limited to one
//     message each. go-coap remembers their answers for 247 s by message ID
//     alone, and a connection becomes slower with each of them.
//   - Anybody on the path can drop messages, and some that nothing protects have
//     an effect: an empty acknowledgement with a request's message ID stops its
//     retransmission, a reset with a notification's ends the observation, a
//     forged block of a response that a hop cut makes its assembly fail. No
//     forged response ends a request before Config.PlainErrorWait, or an
//     observation at all.
//   - One context has one replay window. Several connections that share it can
//     overtake each other by more than its size (oscore.Params.WindowSize): use one
//     connection to a peer. On one connection requests never do.
//   - A UDP client's connection closes when the peer's host says that the port
//     is unreachable, as a server's does that is restarted: requests then fail
//     with [ErrClosed]; dial again, under the same context.
//   - A handler's panic ends the process, as with go-coap itself.
//   - Tokens above 8 bytes close the connection.
//   - [Client] embeds the connection beneath as Client.Conn, whose own verbs send
//     in plain.
package gocoap
