// Package udp is a UDP socket that takes in and sends many datagrams a system
// call, and knows to which of the machine's addresses each one came.
//
//	kernel ── recvmmsg ─▶ Read(dst []Packet)   Peer, Local, Data
//	kernel ◀─ sendmmsg ── Write(p []Packet)
//	kernel ── epoll ────▶ Poll.Wait: which of many sockets; Take(in, dst) from each
//
// Neither allocates once its batch has been as large as it gets. A source
// address other than the one that the kernel would choose is set for each
// datagram (RFC 3542 §6.2, ip(7) IP_PKTINFO), so that one wildcard socket can
// stand for a whole prefix: in 127.0.0.0/8 every address is there already, an
// IPv6 prefix takes `ip -6 route add local PREFIX dev lo` and
// [Options].Freebind.
//
//	udp.go       Packet, Options, what all systems share
//	linux.go     recvmmsg and sendmmsg, a call a batch
//	poll_linux.go     many sockets, one goroutine, without the runtime's poller
//	control.go   IP_PKTINFO and IPV6_PKTINFO to bytes and back
//	sockaddr.go  addresses to bytes and back
//	portable.go  every other system: a call a datagram
//	poll_portable.go  and a goroutine a socket
//
// Limits: other systems than Linux have neither ReusePort nor Local nor
// Freebind; [Listen] says so with an error that wraps errors.ErrUnsupported.
// An IPv4 source address must be one of the machine's. Segmentation offload
// (UDP_SEGMENT, UDP_GRO) is not used.
package udp
