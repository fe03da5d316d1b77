package capture

import (
	"errors"
	"io"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// Writer writes UDP datagrams as a pcap file over raw IP. It is not safe for
// concurrent use.
type Writer struct {
	w   *pcapgo.Writer
	buf gopacket.SerializeBuffer
}

// maxRecord is the largest record of a file, in bytes.
const maxRecord = 1 << 16

// NewWriter writes the header of the file.
func NewWriter(w io.Writer) (*Writer, error) {
	out := &Writer{pcapgo.NewWriterNanos(w), gopacket.NewSerializeBuffer()}
	return out, out.w.WriteFileHeader(maxRecord, layers.LinkTypeRaw)
}

var errMixed = errors.New("capture: a packet between an IPv4 and an IPv6 address, or without one")

// Write writes one datagram.
func (w *Writer) Write(p Packet) error {
	src, dst := p.From.Addr().Unmap(), p.To.Addr().Unmap()
	if p.Stream || !src.IsValid() || src.Is4() != dst.Is4() {
		return errMixed
	}
	udp := &layers.UDP{SrcPort: layers.UDPPort(p.From.Port()), DstPort: layers.UDPPort(p.To.Port())}
	network := ipLayer(src, dst)
	if err := udp.SetNetworkLayerForChecksum(network.(gopacket.NetworkLayer)); err != nil {
		return err
	}
	err := gopacket.SerializeLayers(w.buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, network, udp, gopacket.Payload(p.Data))
	if err != nil {
		return err
	}
	record := w.buf.Bytes()
	return w.w.WritePacket(gopacket.CaptureInfo{Timestamp: p.At, CaptureLength: len(record), Length: len(record)}, record)
}

func ipLayer(src, dst netip.Addr) gopacket.SerializableLayer {
	if src.Is4() {
		return &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	}
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}
