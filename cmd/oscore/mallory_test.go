package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// between is oscore mallory --control with a client before it and a server
// behind it, both bare sockets.
type between struct {
	t      *testing.T
	client *net.UDPConn
	server *net.UDPConn
	in     io.WriteCloser
	lines  *bufio.Scanner
	done   chan error
}

func startBetween(t *testing.T, more ...string) *between {
	t.Helper()
	b := &between{t: t, done: make(chan error, 1)}
	var err error
	if b.server, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	in, inWriter := io.Pipe()
	outReader, out := io.Pipe()
	b.in, b.lines = inWriter, bufio.NewScanner(outReader)
	go func() {
		err := runMallory(context.Background(), stdio{in, out, io.Discard}, append([]string{"--listen", "127.0.0.1:0", "--to", b.server.LocalAddr().String(), "--control"}, more...))
		out.Close()
		b.done <- err
	}()
	ready := b.line("ready")
	addr, err := net.ResolveUDPAddr("udp4", ready.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if b.client, err = net.DialUDP("udp4", nil, addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.in.Close()
		b.client.Close()
		b.server.Close()
	})
	return b
}

// line is the next line of an event.
func (b *between) line(event string) malloryLine {
	b.t.Helper()
	for b.lines.Scan() {
		var l malloryLine
		if err := json.Unmarshal(b.lines.Bytes(), &l); err != nil {
			b.t.Fatalf("%s: %v", b.lines.Bytes(), err)
		}
		if l.Event == event {
			return l
		}
	}
	b.t.Fatalf("no line %q", event)
	return malloryLine{}
}

// do gives a command and waits for its answer.
func (b *between) do(command, event string) malloryLine {
	b.t.Helper()
	if _, err := fmt.Fprintln(b.in, command); err != nil {
		b.t.Fatal(err)
	}
	return b.line(event)
}

// get reads a datagram that must come.
func (b *between) get(c *net.UDPConn) (data string, from *net.UDPAddr) {
	b.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		b.t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, from, err := c.ReadFromUDP(buf)
	if err != nil {
		b.t.Fatal(err)
	}
	return hex.EncodeToString(buf[:n]), from
}

func (b *between) send(s string) {
	b.t.Helper()
	data, err := hex.DecodeString(s)
	if err == nil {
		_, err = b.client.Write(data)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestMallory: a request is held and released, changed, and sent again anew; an
// answer is forged; the capture shows both sides.
func TestMallory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "seen.pcap")
	b := startBetween(t, "--write", file, "--rule", "on request do set Uri-Path \"x\"")
	const get, changed = "40010007b3747631", "40010007b178"
	b.send(get)
	l := b.line("packet")
	if l.N != 1 || l.Direction != "to-server" || l.Hex != get || len(l.Lines) != 1 || len(l.Sent) != 1 || l.Sent[0].Hex != changed {
		t.Errorf("%+v", l)
	}
	if data, _ := b.get(b.server); data != changed {
		t.Errorf("the server got %s", data)
	}

	b.do(`{"id":1,"do":"rules","rules":["on request do hold later"]}`, "done")
	b.send(get)
	if l := b.line("packet"); !l.Dropped {
		t.Errorf("%+v", l)
	}
	if l := b.do(`{"id":2,"do":"release","name":"later"}`, "done"); l.Count != 1 || l.ID != "2" {
		t.Errorf("%+v", l)
	}
	data, from := b.get(b.server)
	if data != get {
		t.Errorf("released: %s", data)
	}

	b.do(`{"do":"rules","rules":[]}`, "done")
	b.do(`{"do":"again","n":2,"fresh":true}`, "done")
	again, same := b.get(b.server)
	if !strings.HasPrefix(again, "4801") || !strings.HasSuffix(again, get[8:]) || same.Port != from.Port {
		t.Errorf("again: %s from %v, first from %v", again, same, from)
	}

	b.do(`{"do":"send","to":"client","hex":"60450007ff66"}`, "done")
	if data, _ := b.get(b.client); data != "60450007ff66" {
		t.Errorf("the client got %s", data)
	}
	b.do(`{"do":"send","to":"server","hex":"40010009"}`, "done")
	if data, other := b.get(b.server); data != "40010009" || other.Port == from.Port {
		t.Errorf("mallory's own: %s from %v", data, other)
	}
	for command, want := range map[string]string{
		`{"do":"fly"}`:                         `unknown command "fly"`,
		`{"do":"again","n":99}`:                "there is no packet 99",
		`{"do":"rules","rules":["on","x"]}`:    "rules:1: on needs",
		`{"do":"send","to":"client","hx":"0"}`: `unknown field "hx"`,
		`{"do":"send","to":"me","hex":"00"}`:   `to is "me": it must be server or client`,
	} {
		if l := b.do(command, "error"); !strings.Contains(l.Error, want) {
			t.Errorf("%s: %+v", command, l)
		}
	}
	b.in.Close()
	if l := b.line("end"); l.Count != 2 {
		t.Errorf("%+v", l)
	}
	if err := <-b.done; err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	port := fmt.Sprint(b.server.LocalAddr().(*net.UDPAddr).Port)
	if err := decode(context.Background(), stdio{bytes.NewReader(raw), &out, io.Discard}, []string{"--port", port, "--port", ready(b), "-"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"plain: /tv1", "plain: /x", "2.05 Content, id 0007", "7 messages"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the capture:\n%s", want, &out)
		}
	}
}

// ready is the port that mallory listens on.
func ready(b *between) string { return fmt.Sprint(b.client.RemoteAddr().(*net.UDPAddr).Port) }

// TestMalloryReplay: an old capture's requests go out again, each as a new one.
func TestMalloryReplay(t *testing.T) {
	name := filepath.Join(t.TempDir(), "old.pcap")
	if err := writeCapture(name); err != nil {
		t.Fatal(err)
	}
	b := startBetween(t, "--rule", fmt.Sprintf("replay %q every 1ms fresh", name))
	for range 3 { // the exchange's requests: two copies, and one of another client
		data, _ := b.get(b.server)
		if !strings.HasPrefix(data, "4802") || !strings.Contains(data, "ff") {
			t.Errorf("%s", data)
		}
	}
}
