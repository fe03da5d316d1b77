package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

var (
	at      = time.Unix(1700000000, 123456000).UTC()
	client4 = netip.MustParseAddrPort("192.0.2.1:40112")
	server4 = netip.MustParseAddrPort("192.0.2.2:5683")
	client6 = netip.MustParseAddrPort("[2001:db8::1]:40112")
	server6 = netip.MustParseAddrPort("[2001:db8::2]:5683")
	payload = []byte("\x44\x02\x5d\x1f\x00\x00\x39\x74\x39localhost\x62\x09\x14\xff\x61\x2f\x10\x92\xf1\x77\x6f\x1c\x16\x68\xb3\x82\x5e")
)

// ip serialises a datagram from the network layer up.
func ip(t testing.TB, from, to netip.AddrPort, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err == nil {
		err = w.Write(Packet{At: at, From: from, To: to, Data: data})
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()[24+16:]
}

// file writes records as pcap.
func file(t testing.TB, link layers.LinkType, records ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(1<<16, link); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(r), Length: len(r)}, r); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func ethernet(typ layers.EthernetType, rest []byte) []byte {
	return slices.Concat(make([]byte, 12), []byte{byte(typ >> 8), byte(typ)}, rest)
}

// TestLinks: the same datagram below every link layer, in IPv4 and IPv6.
func TestLinks(t *testing.T) {
	v4, v6 := ip(t, client4, server4, payload), ip(t, client6, server6, payload)
	sll := func(proto uint16, rest []byte) []byte {
		h := make([]byte, 16)
		binary.BigEndian.PutUint16(h[2:], 1)
		binary.BigEndian.PutUint16(h[4:], 6)
		binary.BigEndian.PutUint16(h[14:], proto)
		return append(h, rest...)
	}
	sll2 := func(proto uint16, rest []byte) []byte {
		h := make([]byte, 20)
		binary.BigEndian.PutUint16(h, proto)
		binary.BigEndian.PutUint16(h[8:], 1)
		h[11] = 6
		return append(h, rest...)
	}
	null := func(family byte, rest []byte) []byte { return append([]byte{family, 0, 0, 0}, rest...) }
	for _, c := range []struct {
		name   string
		link   layers.LinkType
		v4, v6 []byte
	}{
		{"Ethernet", layers.LinkTypeEthernet, ethernet(layers.EthernetTypeIPv4, v4), ethernet(layers.EthernetTypeIPv6, v6)},
		{
			"VLAN", layers.LinkTypeEthernet,
			ethernet(layers.EthernetTypeDot1Q, append([]byte{0, 7, 0x08, 0}, v4...)), ethernet(layers.EthernetTypeDot1Q, append([]byte{0, 7, 0x86, 0xdd}, v6...)),
		},
		{"padded Ethernet", layers.LinkTypeEthernet, append(ethernet(layers.EthernetTypeIPv4, v4), 0, 0, 0), append(ethernet(layers.EthernetTypeIPv6, v6), 0, 0, 0)},
		{"SLL", layers.LinkTypeLinuxSLL, sll(0x800, v4), sll(0x86dd, v6)},
		{"SLL2", layers.LinkTypeLinuxSLL2, sll2(0x800, v4), sll2(0x86dd, v6)},
		{"null", layers.LinkTypeNull, null(2, v4), null(30, v6)},
		{"loop", layers.LinkTypeLoop, append([]byte{0, 0, 0, 2}, v4...), append([]byte{0, 0, 0, 30}, v6...)},
		{"raw", layers.LinkTypeRaw, v4, v6},
		{"raw IPv4", linkIPv4, v4, v4},
		{"raw IPv6", linkIPv6, v6, v6},
	} {
		t.Run(c.name, func(t *testing.T) {
			packets, left, err := Read(bytes.NewReader(file(t, c.link, c.v4, c.v6)))
			if err != nil || left != (Left{}) || len(packets) != 2 {
				t.Fatalf("%d packets, left out %+v: %v", len(packets), left, err)
			}
			for i, p := range packets {
				from, to := client4, server4
				if v6 := i == 1; v6 && c.link != linkIPv4 || c.link == linkIPv6 {
					from, to = client6, server6
				}
				if p.From != from || p.To != to || !p.At.Equal(at) || p.Stream || !bytes.Equal(p.Data, payload) {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}

// TestNg reads pcapng with two interfaces of different links.
func TestNg(t *testing.T) {
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriterInterface(&b, pcapgo.NgInterface{LinkType: layers.LinkTypeEthernet, TimestampResolution: 9}, pcapgo.DefaultNgWriterOptions)
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.AddInterface(pcapgo.NgInterface{LinkType: layers.LinkTypeRaw, TimestampResolution: 9})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range [][]byte{ethernet(layers.EthernetTypeIPv4, ip(t, client4, server4, payload)), ip(t, server6, client6, payload)} {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(r), Length: len(r), InterfaceIndex: i * second}, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	packets, left, err := Read(&b)
	if err != nil || left != (Left{}) || len(packets) != 2 || packets[0].From != client4 || packets[1].From != server6 || !packets[1].At.Equal(at) {
		t.Fatalf("%+v, %+v, %v", packets, left, err)
	}
}

// segment serialises a TCP segment over raw IPv4.
func segment(t testing.TB, seq uint32, syn bool, data string) []byte {
	t.Helper()
	network := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2}}
	tcp := &layers.TCP{SrcPort: 40112, DstPort: 5683, Seq: seq, SYN: syn, ACK: !syn, Window: 1000}
	if err := tcp.SetNetworkLayerForChecksum(network); err != nil {
		t.Fatal(err)
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, network, tcp, gopacket.Payload(data)); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b.Bytes())
}

// TestStream: segments out of order, overlapping and repeated become one
// stream; what stands behind a gap is counted.
func TestStream(t *testing.T) {
	first := uint32(1<<32 - 3) // the numbers wrap
	packets, left, err := Read(bytes.NewReader(file(t, layers.LinkTypeRaw,
		segment(t, first, true, ""), segment(t, first+1, false, "ab"), segment(t, first+5, false, "ef"), segment(t, first+1, false, "ab"),
		segment(t, first+2, false, "bcd"), segment(t, first+9, false, "lost"),
	)))
	var stream []byte
	for _, p := range packets {
		if !p.Stream || p.From != client4 || p.To != server4 {
			t.Errorf("%+v", p)
		}
		stream = append(stream, p.Data...)
	}
	if err != nil || string(stream) != "abcdef" || left != (Left{Gaps: 1}) {
		t.Errorf("%q, %+v, %v", stream, left, err)
	}
}

// TestLeftOut: what cannot be read is counted by its reason.
func TestLeftOut(t *testing.T) {
	whole := ip(t, client4, server4, payload)
	fragment := bytes.Clone(whole)
	fragment[6] |= 0x20 // more fragments
	fragment[10], fragment[11] = 0, 0
	arp := ethernet(layers.EthernetTypeARP, make([]byte, 28))
	packets, left, err := Read(bytes.NewReader(file(t, layers.LinkTypeRaw, fragment, whole[:30], []byte{0x45}, whole)))
	if err != nil || len(packets) != 1 || left.Fragments != 1 || left.CutShort+left.Other != 2 {
		t.Errorf("%d packets, %+v, %v", len(packets), left, err)
	}
	if _, left, err = Read(bytes.NewReader(file(t, layers.LinkTypeEthernet, arp))); err != nil || left.Other != 1 {
		t.Errorf("%+v, %v", left, err)
	}
}

// TestDamaged: what stands before the damage is given, with its place.
func TestDamaged(t *testing.T) {
	b := file(t, layers.LinkTypeRaw, ip(t, client4, server4, payload), ip(t, client4, server4, payload))
	packets, _, err := Read(bytes.NewReader(b[:len(b)-3]))
	if len(packets) != 1 || err == nil || err.Error() != "capture: record 2: unexpected EOF" {
		t.Errorf("%d packets, %v", len(packets), err)
	}
	if _, _, err := Read(bytes.NewReader([]byte("#!/bin/sh"))); !errors.Is(err, ErrFormat) {
		t.Errorf("%v", err)
	}
}

// TestWriter: what it writes reads back.
func TestWriter(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	want := []Packet{{At: at, From: client4, To: server4, Data: payload}, {At: at.Add(time.Microsecond), From: server6, To: client6, Data: []byte{1}}}
	for _, p := range want {
		if err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Write(Packet{From: client4, To: server6}); !errors.Is(err, errMixed) {
		t.Errorf("mixed addresses: %v", err)
	}
	got, left, err := Read(&b)
	if err != nil || left != (Left{}) || len(got) != len(want) {
		t.Fatalf("%+v, %+v, %v", got, left, err)
	}
	for i := range want {
		if got[i].From != want[i].From || got[i].To != want[i].To || !got[i].At.Equal(want[i].At) || !bytes.Equal(got[i].Data, want[i].Data) {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

// FuzzRead: no file makes it panic, and it gives no more bytes than it was given.
func FuzzRead(f *testing.F) {
	v4 := ip(f, client4, server4, payload)
	f.Add(file(f, layers.LinkTypeRaw, v4, ip(f, client6, server6, payload)))
	f.Add(file(f, layers.LinkTypeEthernet, ethernet(layers.EthernetTypeIPv4, v4)))
	f.Add(file(f, layers.LinkTypeRaw, segment(f, 7, true, ""), segment(f, 8, false, "abc"), segment(f, 20, false, "de")))
	f.Add(file(f, layers.LinkTypeLinuxSLL2, append(make([]byte, 20), v4...)))
	var ng bytes.Buffer
	w, err := pcapgo.NewNgWriter(&ng, layers.LinkTypeRaw)
	if err != nil {
		f.Fatal(err)
	}
	if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(v4), Length: len(v4)}, v4); err != nil {
		f.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		f.Fatal(err)
	}
	f.Add(ng.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		packets, _, err := Read(bytes.NewReader(b))
		if !Is(b) && !errors.Is(err, ErrFormat) {
			t.Errorf("%v", err)
		}
		n := 0
		for _, p := range packets {
			n += len(p.Data)
		}
		if n > len(b) {
			t.Errorf("%d bytes of packets from %d", n, len(b))
		}
	})
}

// TestStreamOverlap: a segment that came early and whose beginning another one
// brings as well is read from where that one ends.
func TestStreamOverlap(t *testing.T) {
	packets, left, err := Read(bytes.NewReader(file(t, layers.LinkTypeRaw,
		segment(t, 0, true, ""), segment(t, 3, false, "cdef"), segment(t, 4, false, "d"), segment(t, 1, false, "abc"), segment(t, 7, false, "gh"),
	)))
	var stream []byte
	for _, p := range packets {
		stream = append(stream, p.Data...)
	}
	if err != nil || string(stream) != "abcdefgh" || left != (Left{}) {
		t.Errorf("%q, %+v, %v", stream, left, err)
	}
}

// TestHugeRecord: a record that says it is larger than any packet is damage, and
// costs no memory.
func TestHugeRecord(t *testing.T) {
	for _, length := range []uint32{1 << 20, 1<<32 - 16} {
		pcap := file(t, layers.LinkTypeRaw, ip(t, client4, server4, payload))
		binary.LittleEndian.PutUint32(pcap[16:], 1<<32-1) // its snapshot length
		huge := append(pcap, make([]byte, 17)...)
		binary.LittleEndian.PutUint32(huge[len(pcap)+8:], length)
		binary.LittleEndian.PutUint32(huge[len(pcap)+12:], length)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		packets, left, err := Read(bytes.NewReader(huge))
		runtime.ReadMemStats(&after)
		if err == nil || len(packets) != 1 || left.Damaged != 1 {
			t.Errorf("%d packets, %+v, %v", len(packets), left, err)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
			t.Errorf("%d bytes for a file of %d", grown, len(huge))
		}
	}
}
