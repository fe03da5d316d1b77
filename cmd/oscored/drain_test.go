package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// slowBackend is a server that answers when it is told to.
type slowBackend struct {
	net.PacketConn
	asked chan func(payload string)
}

func newSlowBackend(t *testing.T) *slowBackend {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	s := &slowBackend{c, make(chan func(string), 16)}
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil || n < 4 || buf[0]>>4&3 != 0 || buf[1] == 0 {
				continue
			}
			head := append([]byte{}, buf[:4+int(buf[0]&15)]...)
			head[0], head[1] = 0x60|head[0]&15, 0x45 // ACK, 2.05
			s.asked <- func(payload string) { _, _ = c.WriteTo(append(append(head, 0xff), payload...), from) }
		}
	}()
	return s
}

// ask sends a sealed GET and delivers what comes of it.
func ask(t *testing.T, p *process, ring *keys.Keyring) <-chan string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	c, err := gocoap.New(gocoap.Config{Keyring: ring}).DialUDP(p.addr(), "server", nil)
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan string, 1)
	go func() {
		defer cancel()
		defer c.Close()
		resp, err := c.Get(ctx, "/slow")
		if err != nil {
			out <- err.Error()
			return
		}
		b, err := resp.ReadBody()
		if err != nil || resp.Code() != codes.Content {
			out <- fmt.Sprint(resp.Code(), err)
			return
		}
		out <- string(b)
	}()
	return out
}

// TestDrain: on SIGTERM what is under way is answered, and health says so.
func TestDrain(t *testing.T) {
	backend := newSlowBackend(t)
	ring, entry := pair(t, "a", 1)
	p := newProcess(t, backend.LocalAddr().String(), []keys.Entry{entry}, "")
	p.start(nil, "-init", "-fresh")
	got := ask(t, p, ring)
	reply := <-backend.asked
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.eventually("draining", func() bool {
		resp, err := http.Get(p.metrics("/healthz"))
		if err != nil {
			t.Fatal(err, p.said())
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	reply("at last")
	if s := <-got; s != "at last" {
		t.Errorf("%s\n%s", s, p.said())
	}
	if err := <-p.done; err != nil {
		t.Errorf("%v\n%s", err, p.said())
	}
}

// TestSecondSignal: it ends at once, and the next start is none the worse.
func TestSecondSignal(t *testing.T) {
	backend := newSlowBackend(t)
	ring, entry := pair(t, "a", 1)
	p := newProcess(t, backend.LocalAddr().String(), []keys.Entry{entry}, "")
	p.start(nil, "-init", "-fresh")
	_ = ask(t, p, ring)
	<-backend.asked
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.eventually("ends", func() bool { return strings.Contains(p.said(), "msg=ends") })
	if status := p.end(syscall.SIGINT); status != exitFailed || !strings.Contains(p.said(), "ended at once by a second signal") {
		t.Errorf("status %d\n%s", status, p.said())
	}
	p.start(nil)
	if status := p.end(syscall.SIGTERM); status != exitOK {
		t.Errorf("status %d\n%s", status, p.said())
	}
}

// TestServiceManager: ready, alive, reloading, stopping.
func TestServiceManager(t *testing.T) {
	_, entry := pair(t, "a", 1)
	p := newProcess(t, "127.0.0.1:9", []keys.Entry{entry}, "")
	socket := filepath.Join(p.dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	hear := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		for {
			n, err := l.Read(buf)
			if err != nil {
				t.Fatalf("no %s: %v", want, err)
			}
			for line := range strings.SplitSeq(string(buf[:n]), "\n") {
				if strings.HasPrefix(line, want) {
					return
				}
			}
		}
	}
	p.start([]string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=200000"}, "-init", "-fresh")
	hear("READY=1")
	hear("WATCHDOG=1")
	hear("WATCHDOG=1")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	hear("MONOTONIC_USEC=")
	hear("READY=1")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hear("STOPPING=1")
	if err := <-p.done; err != nil {
		t.Errorf("%v\n%s", err, p.said())
	}
}
