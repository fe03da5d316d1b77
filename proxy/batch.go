package proxy

import "github.com/oscorelay/oscorelay/internal/udp"

// batch is how many datagrams a system call takes in.
const batch = 32

// batches are datagrams on their way out, by socket. They are collected under
// the shard's lock and sent without it.
type batches struct {
	p     *Proxy
	socks []*udp.Socket
	ends  []int // of each socket's datagrams
	out   []udp.Packet
	bufs  [][]byte // that the datagrams of each socket stand in
}

// collect takes what the legs have to send.
func (b *batches) collect(sh *shard) {
	b.socks, b.ends, b.out = b.socks[:0], b.ends[:0], b.out[:0]
	for _, g := range sh.dirty {
		g.dirty = false
		if len(b.socks) == len(b.bufs) {
			b.bufs = append(b.bufs, nil)
		}
		out := g.layer.Swap(&b.bufs[len(b.socks)])
		if len(out) == 0 {
			continue
		}
		for i := range out {
			b.out = append(b.out, udp.Packet{Peer: b.p.remote(&out[i].Peer), Local: out[i].Peer.from(), Data: out[i].Data})
		}
		b.socks, b.ends = append(b.socks, g.sock), append(b.ends, len(b.out))
	}
	sh.dirty = sh.dirty[:0]
}

// transmit sends them. What cannot be sent is lost, as in the network: the
// message layer sends it again.
func (b *batches) transmit() {
	at := 0
	for i, sock := range b.socks {
		_, errs := sock.Write(b.out[at:b.ends[i]])
		if errs > 0 {
			b.p.unsent.Add(uint64(errs))
		}
		at = b.ends[i]
	}
	clear(b.out)
}
