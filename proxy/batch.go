package proxy

import (
	"net"

	"golang.org/x/net/ipv4"
)

// batch is how many datagrams a system call takes in or sends.
const batch = 32

// batches are datagrams on their way out, by socket. They are collected under
// the shard's lock and sent without it.
type batches struct {
	legs  []*ipv4.PacketConn
	ends  []int // of each leg's messages
	out   []ipv4.Message
	addrs []net.UDPAddr
}

// collect takes what the legs have to send.
func (b *batches) collect(sh *shard) {
	b.legs, b.ends = b.legs[:0], b.ends[:0]
	n := 0
	for _, g := range sh.dirty {
		g.dirty = false
		for _, p := range g.layer.Output() {
			if n == len(b.out) {
				b.out = append(b.out, ipv4.Message{Buffers: make([][]byte, 1)})
				b.addrs = append(b.addrs, net.UDPAddr{})
			}
			ip := p.Peer.Addr().As16()
			b.addrs[n] = net.UDPAddr{IP: append(b.addrs[n].IP[:0], ip[:]...), Port: int(p.Peer.Port()), Zone: p.Peer.Addr().Zone()}
			b.out[n].Buffers[0] = p.Data
			n++
		}
		b.legs, b.ends = append(b.legs, g.batch), append(b.ends, n)
	}
	sh.dirty = sh.dirty[:0]
	for i := range n { // the list may have moved while it grew
		b.out[i].Addr = &b.addrs[i]
	}
}

// transmit sends them. What cannot be sent is lost, as in the network: the
// message layer sends it again.
func (b *batches) transmit() {
	at := 0
	for i, conn := range b.legs {
		for at < b.ends[i] {
			n, err := conn.WriteBatch(b.out[at:min(b.ends[i], at+batch)], 0)
			if err != nil || n < 1 {
				n = 1 // the first one cannot be sent
			}
			at += n
		}
	}
	for i := range b.out[:at] {
		b.out[i].Buffers[0] = nil
	}
}
