// Package capture reads and writes packet captures: what tcpdump, Wireshark and
// `oscore mallory` record.
//
//	pcap, pcapng ─ Read ─► Packets: time, two addresses, the UDP payload or the
//	                       next bytes of a TCP stream, in their order
//	              Writer ─► pcap: a UDP datagram a record, over raw IP
//
// The file formats and the layers below UDP and TCP are gopacket's: Ethernet
// with VLAN tags, Linux cooked (SLL, SLL2), raw IP, loopback; IPv4 and IPv6. What
// is no UDP and no TCP, what was cut short and IP fragments are counted and left
// out; a gap in a TCP stream ends that stream.
//
//	read.go    files and layers
//	stream.go  TCP segments in their order
//	write.go   the writer
//
// A capture is foreign bytes: reading never panics, and takes no more memory than
// the file has bytes, a small factor more. Fuzzed.
package capture
