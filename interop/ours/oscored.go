package ours

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/keyfile"
	"github.com/oscorelay/oscorelay/oscore"
)

// Account is a device as the daemon knows it.
type Account struct {
	Context  peer.Context // in it the client is the device
	Settings oscore.Settings
}

// Oscored is the daemon in front of a server that has no OSCORE.
type Oscored struct {
	*peer.Process
	Addr netip.AddrPort // where devices send to

	t    testing.TB
	file string // its configuration
}

// StartOscored starts the daemon for the accounts, which are named by their
// endpoint names; more is further settings of the route, in TOML.
func StartOscored(t testing.TB, backend netip.AddrPort, accounts map[string]Account, more string) *Oscored {
	t.Helper()
	dir := t.TempDir()
	var entries []keys.Entry
	for ep, a := range accounts {
		e := Config{Settings: a.Settings}.entry(t, a.Context, false)
		e.Name = ep
		entries = append(entries, e)
	}
	b, err := keyfile.Append(nil, keyfile.TOML, entries, true)
	if err != nil {
		t.Fatal(err)
	}
	o := &Oscored{t: t, file: filepath.Join(dir, "oscored.toml"), Addr: peer.Loopback(peer.FreePort(t))}
	write := func(name string, content []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	write("oscored.toml", fmt.Appendf(nil, `keys.files = [%q]
admin.listen = ""
log.level = "debug"
[store]
dir = %q
anchor_dir = %q
[[terminate]]
name = "leshan"
listen = %q
backend = %q
upstream_port = %d
%s
`, write("keys.toml", b), filepath.Join(dir, "state"), filepath.Join(dir, "anchors"), o.Addr, backend, peer.FreePort(t), more))
	o.start("-init", "-fresh")
	return o
}

func (o *Oscored) start(more ...string) {
	o.t.Helper()
	o.Process = Program(o.t, "oscored", append([]string{"-config", o.file}, more...)...)
	o.AwaitPing(o.Addr.Port())
}

// Crash ends the daemon by kill -9 and starts it again.
func (o *Oscored) Crash() {
	o.t.Helper()
	o.Kill(syscall.SIGKILL)
	o.start()
}
