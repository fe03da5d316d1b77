package peer

import (
	"net/netip"
	"os"
	"testing"

	pcap "github.com/oscorelay/oscorelay/internal/capture"
)

const serverPort = 5683 // in the file, so that tshark knows the protocol

// WritePcap writes the capture as a pcap file: each datagram between its
// client's port and port 5683.
func (c Capture) WritePcap(t testing.TB, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := pcap.NewWriter(f)
	if err != nil {
		t.Fatal(err)
	}
	server := netip.AddrPortFrom(Loopback(0).Addr(), serverPort)
	for _, d := range c {
		p := pcap.Packet{At: d.At, From: d.Client, To: server, Data: d.Bytes}
		if !d.ToServer {
			p.From, p.To = p.To, p.From
		}
		if err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
}
