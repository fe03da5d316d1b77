package capture

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// Packet is a UDP datagram, or the bytes that a TCP segment added to its stream.
type Packet struct {
	At     time.Time
	From   netip.AddrPort
	To     netip.AddrPort
	Stream bool // TCP
	Data   []byte
}

// Left counts what [Read] left out, by reason.
type Left struct {
	Other     int // neither UDP nor TCP with data
	CutShort  int // captured with too small a snapshot length
	Fragments int // of IP
	Gaps      int // TCP segments behind one that is missing
	Damaged   int // the rest of a file from a record on that does not read
}

// ErrFormat says that a file is neither pcap nor pcapng.
var ErrFormat = errors.New("capture: neither pcap nor pcapng")

// The magic numbers of pcap, in both orders of bytes and both resolutions, and
// of pcapng.
var magics = []string{"\xd4\xc3\xb2\xa1", "\xa1\xb2\xc3\xd4", "\x4d\x3c\xb2\xa1", "\xa1\xb2\x3c\x4d", ngMagic}

const ngMagic = "\x0a\x0d\x0d\x0a"

// Is reports whether a file that begins so is a capture.
func Is(begin []byte) bool {
	for _, m := range magics {
		if bytes.HasPrefix(begin, []byte(m)) {
			return true
		}
	}
	return false
}

// source is what both readers of pcapgo have.
type source interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
}

// Read reads a capture to its end. A file that is damaged or ends in the middle
// of a record gives what stands before that, with an error that says where.
func Read(r io.Reader) (packets []Packet, left Left, err error) {
	buffered := bufio.NewReader(r)
	begin, _ := buffered.Peek(4) // too short is no capture
	if !Is(begin) {
		return nil, left, ErrFormat
	}
	var from source
	var linkType func(gopacket.CaptureInfo) layers.LinkType
	if string(begin) == ngMagic {
		ng, err := pcapgo.NewNgReader(buffered, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
		if err != nil {
			return nil, left, fmt.Errorf("capture: %w", err)
		}
		from, linkType = ng, func(ci gopacket.CaptureInfo) layers.LinkType {
			if len(ci.AncillaryData) > 0 {
				if t, ok := ci.AncillaryData[0].(layers.LinkType); ok {
					return t
				}
			}
			return ng.LinkType()
		}
	} else {
		old, err := pcapgo.NewReader(buffered)
		if err != nil {
			return nil, left, fmt.Errorf("capture: %w", err)
		}
		from, linkType = old, func(gopacket.CaptureInfo) layers.LinkType { return old.LinkType() }
	}
	streams := newStreams()
	for record := 1; ; record++ {
		data, ci, err := from.ReadPacketData()
		if errors.Is(err, io.EOF) {
			left.Gaps += streams.gaps()
			return packets, left, nil
		}
		if err != nil {
			left.Gaps += streams.gaps()
			left.Damaged++
			return packets, left, fmt.Errorf("capture: record %d: %w", record, err)
		}
		packets = append(packets, dissect(data, ci, linkType(ci), streams, &left)...)
	}
}

// Links that gopacket has no name for: raw IPv4 and raw IPv6.
const (
	linkIPv4 layers.LinkType = 228
	linkIPv6 layers.LinkType = 229
)

// dissect takes a record apart down to what UDP or TCP carries.
func dissect(data []byte, ci gopacket.CaptureInfo, link layers.LinkType, s *streams, left *Left) []Packet {
	if link == linkIPv4 || link == linkIPv6 {
		link = layers.LinkTypeRaw
	}
	p := gopacket.NewPacket(data, link, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	network, transport := p.NetworkLayer(), p.TransportLayer()
	if network == nil || transport == nil {
		if p.Layer(gopacket.LayerTypeFragment) != nil || p.Layer(layers.LayerTypeIPv6Fragment) != nil {
			left.Fragments++
		} else {
			left.Other++
		}
		return nil
	}
	src, dst := addresses(network)
	out := Packet{At: ci.Timestamp}
	switch t := transport.(type) {
	case *layers.UDP:
		if int(t.Length) > 8+len(t.Payload) || ci.CaptureLength < ci.Length {
			left.CutShort++
			return nil
		}
		if p.Layer(layers.LayerTypeIPv6Fragment) != nil {
			left.Fragments++
			return nil
		}
		out.From, out.To = netip.AddrPortFrom(src, uint16(t.SrcPort)), netip.AddrPortFrom(dst, uint16(t.DstPort))
		out.Data = bytes.Clone(t.Payload)
		return []Packet{out}
	case *layers.TCP:
		out.From, out.To, out.Stream = netip.AddrPortFrom(src, uint16(t.SrcPort)), netip.AddrPortFrom(dst, uint16(t.DstPort)), true
		if ci.CaptureLength < ci.Length {
			left.CutShort++
			return nil
		}
		return s.add(out, t)
	}
	left.Other++
	return nil
}

func addresses(network gopacket.NetworkLayer) (src, dst netip.Addr) {
	f := network.NetworkFlow()
	src, _ = netip.AddrFromSlice(net.IP(f.Src().Raw())) // the layer has checked their lengths
	dst, _ = netip.AddrFromSlice(net.IP(f.Dst().Raw()))
	return src.Unmap(), dst.Unmap()
}
