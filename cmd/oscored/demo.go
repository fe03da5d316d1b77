package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
	udpserver "github.com/plgd-dev/go-coap/v3/udp/server"

	"github.com/oscorelay/oscorelay/internal/demo"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/bolt"
	"github.com/oscorelay/oscorelay/keys/keyfile"
	"github.com/oscorelay/oscorelay/oscore"
)

// demonstration is a start without a configuration: keys that were made for it
// at its first start, a store of its own, and a plain server inside to ask.
type demonstration struct {
	config *config
	init   bool // the store is to be made
	dir    string

	packets *coapnet.UDPConn
	server  *udpserver.Server
	done    chan error
}

// demoDevice is the name of the demonstration's context.
const demoDevice = "demo-device"

// stateDir is where a start without a configuration keeps its things.
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "oscored"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("%w: no directory for the demonstration (%w): set XDG_STATE_HOME or HOME, or write a configuration (oscored -print-config)", errConfig, err)
	}
	return filepath.Join(home, ".local", "state", "oscored"), nil
}

func newDemo(listen string) (*demonstration, error) {
	dir, err := stateDir()
	if err != nil {
		return nil, err
	}
	d := &demonstration{dir: dir, config: newConfig(), done: make(chan error, 1)}
	d.config.Store = storeConfig{Dir: filepath.Join(dir, "store")}
	_, err = os.Stat(filepath.Join(d.config.Store.Dir, "store.db"))
	d.init = errors.Is(err, fs.ErrNotExist)
	if listen == "" {
		listen = firstFree("udp", "127.0.0.1:5683")
	}
	if d.packets, err = coapnet.NewListenUDP("udp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	d.server = udp.NewServer(options.WithMux(demo.New(demo.Options{})), options.WithErrors(func(error) {}))
	go func() { d.done <- d.server.Serve(d.packets) }()
	d.config.Terminate = []routeConfig{{Name: "demo", Listen: listen, Backend: d.packets.LocalAddr().String()}}
	d.config.Admin.Listen = firstFree("tcp", d.config.Admin.Listen)
	d.config.fill()
	d.config.Terminate[0].UpstreamPort = portOf(firstFree("udp", fmt.Sprintf("0.0.0.0:%d", defaultUpstreamPort)))
	if err := checkConfig("oscored -listen", d.config, nil); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// firstFree returns the address if it is free, else one with another port.
func firstFree(network, address string) string {
	host, _, _ := net.SplitHostPort(address)
	for _, a := range []string{address, net.JoinHostPort(host, "0")} {
		if network == "udp" {
			if c, err := net.ListenPacket(network, a); err == nil {
				_ = c.Close()
				return c.LocalAddr().String()
			}
		} else if l, err := net.Listen(network, a); err == nil {
			_ = l.Close()
			return l.Addr().String()
		}
	}
	return address // opening it tells why
}

// portOf is the port of an address.
func portOf(address string) int {
	a, err := udpAddress(address)
	if err != nil {
		return 0
	}
	return int(a.Port())
}

func (d *demonstration) close() {
	d.server.Stop()
	_ = d.packets.Close()
	<-d.done
}

// deviceFile is the device's half of the demonstration's keys.
func (d *demonstration) deviceFile() string { return filepath.Join(d.dir, "device.toml") }

// provide makes the keys, if this is the first start: fresh ones, which are
// nowhere else. A start that was cut short in between begins anew.
func (d *demonstration) provide(ctx context.Context, store *bolt.Store) error {
	if _, there, err := store.Entry(ctx, demoDevice); err != nil || there {
		return err
	}
	e := keys.Entry{Name: demoDevice, Notes: "made by oscored for its demonstration", Params: oscore.Params{
		MasterSecret: random(16), MasterSalt: random(8), SenderID: []byte{0x00}, RecipientID: []byte{0x01},
	}}
	peer := e.Peer()
	peer.Name = "oscored"
	b, err := keyfile.Append([]byte("# The device's half of keys that oscored made for its demonstration.\n# Never used anywhere: import it with --fresh, once.\n"),
		keyfile.TOML, []keys.Entry{peer}, true)
	if err == nil {
		err = os.WriteFile(d.deviceFile(), b, 0o600)
	}
	if err != nil {
		return err
	}
	return store.Put(ctx, true, e)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

// show tells how to send the first request.
func (d *demonstration) show(w io.Writer, running *daemon) {
	addr := addressText(running.routes[0].Addr())
	deviceKeys := filepath.Join(d.dir, "device-keys")
	fmt.Fprintf(w, `oscored is up with a demonstration: OSCORE at %s, a plain CoAP server behind it, keys made for you alone.

In another terminal, the device's half of the keys, once:
  oscore keys import --fresh %s --keys %s
and then, as often as you like:
  oscore get --keys %s coap://%s/oscore/hello/1
  oscore observe --keys %s --count 3 coap://%s/oscore/observe1
  oscored ctl devices
`, addr, quote(d.deviceFile()), quote(deviceKeys), quote(deviceKeys), addr, quote(deviceKeys), addr)
	for _, s := range running.servers {
		fmt.Fprintf(w, "A page for your browser: %s (any name; the password is in %s)\n", s.url, quote(tokenName(running.config())))
	}
	fmt.Fprintln(w, "For a server of your own: oscored -print-config > oscored.toml\nCtrl-C ends it.")
}

// quote writes a path for a shell.
func quote(s string) string {
	for _, r := range s {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '/' || r == '.' || r == '-' || r == '_') {
			return "'" + s + "'"
		}
	}
	return s
}
