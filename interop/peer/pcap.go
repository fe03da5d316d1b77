package peer

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
)

const (
	linkTypeRaw = 101
	serverPort  = 5683 // in the file, so that tshark knows the protocol
	ipv4, udp   = 0x45, 17
)

// WritePcap writes the capture as a pcap file: each datagram between its
// client's port and port 5683.
func (c Capture) WritePcap(t testing.TB, file string) {
	t.Helper()
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	put([]uint32{0xa1b2c3d4, 4<<16 | 2, 0, 0, 1 << 16, linkTypeRaw})
	for _, d := range c {
		n := uint32(28 + len(d.Bytes))
		put([]uint32{uint32(d.At.Unix()), uint32(d.At.Nanosecond() / 1000), n, n})
		from, to := d.Client.Port(), uint16(serverPort)
		if !d.ToServer {
			from, to = to, from
		}
		h := make([]byte, 28)
		h[0], h[8], h[9] = ipv4, 64, udp
		binary.BigEndian.PutUint16(h[2:], uint16(n))
		copy(h[12:], []byte{127, 0, 0, 1, 127, 0, 0, 1})
		binary.BigEndian.PutUint16(h[20:], from)
		binary.BigEndian.PutUint16(h[22:], to)
		binary.BigEndian.PutUint16(h[24:], uint16(8+len(d.Bytes)))
		b.Write(h)
		b.Write(d.Bytes)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
