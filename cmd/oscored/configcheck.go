package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/oscorelay/oscorelay/proxy"
)

// checkConfig looks at what the keys hold, without opening a socket or changing
// anything. It reports every mistake, not only the first.
func checkConfig(file string, c *config, l lines) error {
	m := &mistakes{file: file, lines: l}
	if c.Store.Dir == "" {
		m.add("store.dir", "is empty: name the directory of the store")
	}
	if c.Store.AnchorDir != "" && inside(c.Store.AnchorDir, c.Store.Dir) {
		m.add("store.anchor_dir", "is inside store.dir, so that a copy of the store copies its anchor too: name a directory beside it, such as %s-anchors", filepath.Clean(c.Store.Dir))
	}
	if c.Store.RootKey != "" {
		checkSecretFile(m, "store.root_key", c.Store.RootKey)
	}
	if c.Keys.Hot < 1 {
		m.add("keys.hot", "%d is too few: leave it out, or write how many contexts are in use at a time", c.Keys.Hot)
	}
	names := map[string]string{}
	listens := map[string]string{}
	ports := map[int]string{} // upstream
	for i := range c.Terminate {
		checkRoute(m, fmt.Sprintf("terminate.%d", i), &c.Terminate[i], names, listens, ports)
	}
	for i := range c.Proxy {
		checkProxy(m, fmt.Sprintf("proxy.%d", i), &c.Proxy[i], names, listens)
	}
	if len(c.Terminate)+len(c.Proxy) == 0 {
		m.list = append(m.list, mistake{0, "there is no [[terminate]] and no [[proxy]]: nothing would be done"})
	}
	if len(c.Terminate) == 0 && len(c.Keys.Files) > 0 {
		m.add("keys.files", "there are keys and no [[terminate]] that uses them: a [[proxy]] has none")
	}
	checkAdmin(m, c)
	if c.Metrics.Listen != "" {
		if _, err := tcpAddress(c.Metrics.Listen); err != nil {
			m.add("metrics.listen", "%v", err)
		}
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		m.add("log.level", "%q is none of \"debug\", \"info\", \"warn\", \"error\"", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		m.add("log.format", "%q is neither \"text\" nor \"json\"", c.Log.Format)
	}
	return m.err()
}

func checkAdmin(m *mistakes, c *config) {
	a := &c.Admin
	if (a.TLSCert == "") != (a.TLSKey == "") {
		m.add("admin.tls_cert", "tls_cert and tls_key belong together: give both or none")
	}
	if a.Listen != "" {
		addr, err := tcpAddress(a.Listen)
		switch {
		case err != nil:
			m.add("admin.listen", "%v", err)
		case !addr.Addr().IsLoopback() && a.TLSCert == "":
			m.add("admin.listen", "%s can be reached from elsewhere, and the token would travel in the clear: listen on 127.0.0.1, or give tls_cert and tls_key", a.Listen)
		}
	}
	if a.TokenFile != "" {
		checkSecretFile(m, "admin.token_file", a.TokenFile)
	}
}

// checkSecretFile refuses a file that others can read. It need not be there.
func checkSecretFile(m *mistakes, path, name string) {
	if err := secretFile(name); err != nil {
		m.add(path, "%v", err)
	}
}

// secretFile returns an error if a file that is there can be read by others.
func secretFile(name string) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file", name)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s can be read by others (mode %04o): chmod 600 %s", name, info.Mode().Perm(), name)
	}
	return nil
}

func checkRoute(m *mistakes, at string, r *routeConfig, names, listens map[string]string, ports map[int]string) {
	checkName(m, at, r.Name, names)
	listen, err := udpAddress(r.Listen)
	if err != nil {
		m.add(at+".listen", "%v", err)
	} else {
		checkListen(m, at, listen, listens)
	}
	backend, err := udpAddress(r.Backend)
	if err == nil && (backend.Addr().IsUnspecified() || backend.Port() == 0) {
		err = fmt.Errorf("%q names no server: write an address and a port such as 127.0.0.1:5683", r.Backend)
	}
	if err != nil {
		m.add(at+".backend", "%v", err)
	} else if backend == listen {
		m.add(at+".backend", "%s is where devices are listened for: the server needs an address of its own", r.Backend)
	}
	if err == nil {
		if r.Upstream == "" && r.UpstreamPorts == 0 && backend.Addr().Is4() && backend.Addr().IsLoopback() {
			r.Upstream = defaultUpstream
		}
		if _, err := upstreamPrefix(r, backend); err != nil {
			m.add(at+".upstream", "%v", err)
		}
	}
	if n := r.UpstreamPorts; n < 0 || n > 0 && r.UpstreamPort+n > 65536 {
		m.add(at+".upstream_ports", "%d from port %d on: ports end at 65535", n, r.UpstreamPort)
	}
	checkPorts(m, at, r, listen, backend, ports)
	if r.UpstreamPort < 1 || r.UpstreamPort > 65535 {
		m.add(at+".upstream_port", "%d is no port: 1 to 65535", r.UpstreamPort)
	}
	if len(r.Contexts) == 0 {
		m.add(at+".contexts", "is empty, so that no device may come in: write [\"*\"] for all")
	}
	for i, p := range r.Contexts {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			m.add(fmt.Sprintf("%s.contexts.%d", at, i), "%q is no pattern: write a name, or one with * and ? such as \"meter-*\"", p)
		}
	}
	if _, ok := plainPolicies[r.Plain]; !ok {
		m.add(at+".plain", "%q is none of \"refuse\", \"accept\", \"observe\"", r.Plain)
	}
	if _, ok := freshnessPolicies[r.Freshness]; !ok {
		m.add(at+".freshness", "%q is none of \"window\", \"first\", \"unsafe\", \"always\"", r.Freshness)
	}
	for name, n := range map[string]int{
		"exchanges": r.Limits.Exchanges, "device_exchanges": r.Limits.DeviceExchanges, "observations": r.Limits.Observations, "devices": r.Limits.Devices,
		"nstart": r.Limits.NStart, "bytes": r.Limits.Bytes, "datagram": r.Limits.Datagram,
	} {
		if n < 0 {
			m.add(at+".limits."+name, "%d is below zero", n)
		}
	}
	if n := r.Limits.Datagram; n > 65507 {
		m.add(at+".limits.datagram", "%d is more than a datagram can hold: 65507 at most", n)
	}
	seen := map[string]string{}
	for _, context := range slices.Sorted(maps.Keys(r.Endpoints)) {
		ep := r.Endpoints[context]
		if ep == "" {
			m.add(at+".endpoints."+context, "is empty: write the endpoint name (ep=) of the device")
		}
		if other, ok := seen[ep]; ok {
			m.add(at+".endpoints."+context, "%q is the endpoint name of context %q already", ep, other)
		}
		seen[ep] = context
	}
}

// checkPorts finds sockets that would take each other's port: the one toward the
// backend is on every address of this machine.
func checkPorts(m *mistakes, at string, r *routeConfig, listen, backend netip.AddrPort, ports map[int]string) {
	if listen.IsValid() && listen.Addr().IsUnspecified() && backend.Addr().IsLoopback() && listen.Port() == backend.Port() {
		m.add(at+".listen", "%s takes port %d on every address, and the backend is at %s on this machine: give one of them another port", r.Listen, listen.Port(), backend)
	}
	first, last := r.UpstreamPort, min(r.UpstreamPort+max(r.UpstreamPorts, 1)-1, 65535)
	within := func(port uint16) bool { return first <= int(port) && int(port) <= last }
	if within(listen.Port()) {
		m.add(at+".upstream_port", "%d is the port that devices are listened for at: take another one", listen.Port())
		return
	}
	if backend.Addr().IsLoopback() && within(backend.Port()) {
		m.add(at+".upstream_port", "%d is the port of the backend on this machine: take another one", backend.Port())
		return
	}
	for port := first; port <= last; port++ {
		if other, taken := ports[port]; taken {
			m.add(at+".upstream_port", "%d is that of %s already: give each route a port of its own, which then stays", port, m.title(other))
			return
		}
	}
	for port := first; port <= last; port++ {
		ports[port] = at
	}
}

func checkName(m *mistakes, at, name string, names map[string]string) {
	switch other, taken := names[name]; {
	case name == "":
		m.add(at+".name", "is missing: a name that stays, such as \"leshan\"")
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) || len(name) > 64:
		m.add(at+".name", "%q cannot be a name: up to 64 letters, digits and signs, no space", name)
	case taken:
		m.add(at+".name", "%q is the name of %s already", name, m.title(other))
	default:
		names[name] = at
	}
}

func checkListen(m *mistakes, at string, a netip.AddrPort, listens map[string]string) {
	if a.Port() == 0 {
		return // a free one
	}
	if other, taken := listens[a.String()]; taken {
		m.add(at+".listen", "%s is the address of %s already", a, m.title(other))
	}
	listens[a.String()] = at
}

// udpAddress reads "0.0.0.0:5683", "[::]:5683" or ":5683".
func udpAddress(s string) (netip.AddrPort, error) { return address(s, "0.0.0.0:5683") }

// tcpAddress reads an address of HTTP.
func tcpAddress(s string) (netip.AddrPort, error) {
	if rest, ok := strings.CutPrefix(s, "localhost:"); ok {
		s = "127.0.0.1:" + rest
	}
	return address(s, "127.0.0.1:5680")
}

func address(s, example string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, fmt.Errorf("is missing: an address and a port such as %s", example)
	}
	full := s
	if strings.HasPrefix(s, ":") {
		full = "[::]" + s
	}
	a, err := netip.ParseAddrPort(full)
	if err != nil {
		if host, _, e := net.SplitHostPort(s); e == nil && host != "" {
			return a, fmt.Errorf("%q is no address with a port: write numbers such as %s, no host name", s, example)
		}
		return a, fmt.Errorf("%q is no address with a port: write %s", s, example)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// upstreamPrefix reads the network that devices' source addresses come from; a
// zero one means a port a device.
func upstreamPrefix(r *routeConfig, backend netip.AddrPort) (netip.Prefix, error) {
	s, b := r.Upstream, backend.Addr()
	switch {
	case s != "" && r.UpstreamPorts != 0:
		return netip.Prefix{}, errors.New("and upstream_ports are both there: give one of them")
	case r.UpstreamPorts != 0:
		return netip.Prefix{}, nil
	case s == "":
		return netip.Prefix{}, fmt.Errorf("is missing: the backend %s is not 127.x.x.x, so say which addresses stand for devices: "+
			"a network that is routed to this machine (ip -6 route add local 2001:db8:1::/64 dev lo), or give each a port by upstream_ports", backend)
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is no network: write 127.64.0.0/10 or 2001:db8:1::/64", s)
	}
	p = p.Masked()
	switch {
	case p.Addr().Is4() != b.Is4():
		return p, fmt.Errorf("%s and the backend %s are of different IP versions", s, backend)
	case p.Addr().IsLoopback() != b.IsLoopback():
		return p, fmt.Errorf("%s cannot reach the backend %s: both are addresses of this machine (127.x.x.x) or neither is", s, backend)
	case p.Contains(b):
		return p, fmt.Errorf("%s holds the backend's own address %s: take another network", s, b)
	case p.Addr().BitLen()-p.Bits() < 9:
		return p, fmt.Errorf("%s has no room for devices: at least 512 addresses are needed", s)
	}
	return p, nil
}

func checkProxy(m *mistakes, at string, p *proxyConfig, names, listens map[string]string) {
	checkName(m, at, p.Name, names)
	if a, err := udpAddress(p.Listen); err != nil {
		m.add(at+".listen", "%v", err)
		return
	} else {
		checkListen(m, at, a, listens)
	}
	cfg, field, err := proxySettings(p)
	if err != nil {
		m.add(at+"."+field, "%v", err)
		return
	}
	if err := proxy.Check(cfg); err != nil {
		m.add(at, "%v", err)
	}
}

// proxySettings makes a proxy's configuration. With an error comes the field
// that it is about.
func proxySettings(p *proxyConfig) (cfg proxy.Config, field string, err error) {
	if p.HopLimit > 255 {
		return cfg, "hop_limit", fmt.Errorf("%d is above 255", p.HopLimit)
	}
	cfg = proxy.Config{Listen: p.Listen, PerClient: p.PerClient, Identity: p.Identity, HopLimit: p.HopLimit, Timeout: p.Timeout.Duration}
	if len(p.Forward) > 0 || p.Via != "" {
		cfg.Forward = &proxy.Forward{Via: p.Via}
		for i, s := range p.Forward {
			nets, err := network(s)
			if err != nil {
				return cfg, "forward." + strconv.Itoa(i), err
			}
			cfg.Forward.Allow = append(cfg.Forward.Allow, nets...)
		}
	}
	for i, r := range p.Route {
		at := fmt.Sprintf("route.%d.", i)
		out := proxy.Route{Host: r.Host, To: r.To}
		if r.To == "" {
			return cfg, at + "to", errors.New("is missing: the server, host:port")
		}
		if out.KID, err = identifier(r.KID); err != nil {
			return cfg, at + "kid", err
		}
		if out.KIDContext, err = identifier(r.KIDContext); err != nil {
			return cfg, at + "kid_context", err
		}
		cfg.Routes = append(cfg.Routes, out)
	}
	if cfg.Forward == nil && len(cfg.Routes) == 0 {
		return cfg, "route", errors.New("there is nowhere to send a request: give forward, via or a [[proxy.route]]")
	}
	return cfg, "", nil
}

// network reads a network; an address stands for itself, "any" for all.
func network(s string) ([]netip.Prefix, error) {
	if s == "any" {
		return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return []netip.Prefix{netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return nil, fmt.Errorf("%q is no network: write 192.0.2.0/24, 2001:db8::/32, an address, or any", s)
	}
	return []netip.Prefix{p.Masked()}, nil
}

// identifier reads an identifier in hexadecimal; the empty one is one too.
func identifier(s *string) ([]byte, error) {
	if s == nil {
		return nil, nil
	}
	b, err := hex.DecodeString(strings.TrimPrefix(*s, "hex:"))
	if err != nil {
		return nil, fmt.Errorf("%q is not hexadecimal: write pairs of digits such as 01 or 0a1b", *s)
	}
	return append([]byte{}, b...), nil
}

// inside reports whether a path is a directory or below it.
func inside(name, dir string) bool {
	a, err1 := filepath.Abs(name)
	d, err2 := filepath.Abs(dir)
	if err1 != nil || err2 != nil {
		return false
	}
	rel, err := filepath.Rel(d, a)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
