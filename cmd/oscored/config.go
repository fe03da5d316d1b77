package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/keys"
)

// config is the configuration file. What is left out has the default that
// -print-config shows; the comments here are the ones that it prints.
type config struct {
	Drain duration `toml:"drain" comment:"how long a daemon that ends waits for requests under way"`

	Store     storeConfig   `toml:"store" comment:"Where keys, sequence numbers, observations and the journal of requests are kept."`
	Keys      keysConfig    `toml:"keys" comment:"Where keys come from, beside the administration API."`
	Terminate []routeConfig `toml:"terminate,omitempty" comment:"A route: devices speak OSCORE to listen, the backend gets plain CoAP."`
	Proxy     []proxyConfig `toml:"proxy,omitempty" comment:"A proxy that holds no key, as cmd/oscore-proxy."`
	Admin     adminConfig   `toml:"admin" comment:"The administration API, and a page for a browser. Everything in it but /healthz asks for the token."`
	Metrics   metricsConfig `toml:"metrics" comment:"/metrics for Prometheus and /healthz, without a token."`
	Log       logConfig     `toml:"log" comment:"What is logged, on standard error."`
}

type storeConfig struct {
	Dir       string `toml:"dir" comment:"directory of the store; back it up never, see OPERATIONS.md. Relative paths begin at the directory of this file"`
	AnchorDir string `toml:"anchor_dir" comment:"directory of the anchors, which tell a restored or copied store; it lasts as long as dir and is not copied with it"`
	RootKey   string `toml:"root_key" comment:"file with the key that the store is sealed under, mode 0600; made if it is missing. Empty: root.key in dir"`
}

type keysConfig struct {
	Files []string `toml:"files" comment:"key files as 'oscore keys' writes them (TOML, JSON, CSV), seen from this end. Keys that the store does not know are tainted unless -fresh, or 'oscored ctl contexts add -fresh', said that they were never used"`
	Hot   int      `toml:"hot" comment:"contexts that may stay ready in memory, about 1.6 kB each: those that spoke in the last minute or two. Others are looked up in the store when they speak, which costs about what a request does"`
}

type routeConfig struct {
	Name          string            `toml:"name" comment:"of the route, in logs, metrics and the journal; it must not change over a restart"`
	Listen        string            `toml:"listen" comment:"UDP address that devices send to"`
	Backend       string            `toml:"backend" comment:"UDP address of the server that speaks plain CoAP"`
	Upstream      string            `toml:"upstream" comment:"source addresses toward the backend, one a device: a network that is local to this machine. It must not change as long as devices are registered"`
	UpstreamPort  int               `toml:"upstream_port" comment:"source port toward the backend; the backend knows devices by it, so it must not change over a restart"`
	UpstreamPorts int               `toml:"upstream_ports" comment:"instead of upstream: a source port and a socket a device, from upstream_port on, so many at most; for a backend on another machine that no network can be routed for. 0 means none"`
	Contexts      []string          `toml:"contexts" comment:"names of the contexts that may come in here, with * and ? as in a shell"`
	Plain         string            `toml:"plain" comment:"requests without OSCORE: \"refuse\" (4.01); \"accept\" (of a device that was never heard sealed: there is no way back); \"observe\" (of all). A fleet goes from the last to the first"`
	Freshness     string            `toml:"freshness" comment:"when a device has to answer an Echo challenge: \"window\" (its replay window is lost), \"first\" (and at its first request), \"unsafe\" (and for requests that change something while nothing is known of their age), \"always\""`
	Timeout       duration          `toml:"timeout" comment:"how long a request waits for its answer, either way"`
	AckTimeout    duration          `toml:"ack_timeout" comment:"before the first retransmission toward a device (ACK_TIMEOUT); more for slow networks"`
	Silent        bool              `toml:"silent" comment:"answer what does not verify with nothing, instead of a plain error (RFC 8613 §8.2)"`
	Limits        routeLimits       `toml:"limits" comment:"Bounds of memory. Beyond them requests are answered 5.03, or left to be repeated."`
	Endpoints     map[string]string `toml:"endpoints,omitempty" comment:"LwM2M endpoint name of a context, where it is another than the context's name."`
}

type routeLimits struct {
	Exchanges       int `toml:"exchanges" comment:"requests under way, both ways together; three quarters of them one way at most"`
	DeviceExchanges int `toml:"device_exchanges" comment:"and of one device, each way"`
	Observations    int `toml:"observations" comment:"of one device"`
	Devices         int `toml:"devices" comment:"devices in memory; those of whom nothing is under way make room"`
	NStart          int `toml:"nstart" comment:"confirmable messages under way to one device (RFC 7252 §4.7)"`
	Bytes           int `toml:"bytes" comment:"kept for retransmission, each way"`
	Datagram        int `toml:"datagram" comment:"bytes; larger datagrams are dropped"`
}

type proxyConfig struct {
	Name      string       `toml:"name" comment:"of the proxy, in logs and metrics"`
	Listen    string       `toml:"listen" comment:"UDP address to listen on"`
	Forward   []string     `toml:"forward" comment:"networks that clients may name servers in; \"any\" for all but loopback and link-local"`
	Via       string       `toml:"via" comment:"hand requests for a forward-proxy to the next proxy, host:port"`
	PerClient bool         `toml:"per_client" comment:"a port for each client, so that a server can send it requests, as LwM2M servers do"`
	Identity  string       `toml:"identity" comment:"names this proxy in 5.08 answers (RFC 8768)"`
	HopLimit  int          `toml:"hop_limit" comment:"put into requests that have none, 1 to 255; negative puts none in"`
	Timeout   duration     `toml:"timeout" comment:"a request that is not answered by then is answered 5.04"`
	Route     []proxyRoute `toml:"route,omitempty" comment:"Where requests are led to; the first that matches is taken."`
}

type proxyRoute struct {
	Host       string  `toml:"host,omitempty"`
	KID        *string `toml:"kid,omitempty"`
	KIDContext *string `toml:"kid_context,omitempty"`
	To         string  `toml:"to"`
}

type adminConfig struct {
	Listen    string `toml:"listen" comment:"loopback address; another one needs tls_cert. Empty: no administration API"`
	TokenFile string `toml:"token_file" comment:"file with the token, mode 0600; made if it is missing. Empty: admin.token in the store's directory"`
	TLSCert   string `toml:"tls_cert" comment:"certificate file (PEM)"`
	TLSKey    string `toml:"tls_key" comment:"its key file (PEM)"`
}

type metricsConfig struct {
	Listen string `toml:"listen" comment:"TCP address. Empty: no metrics; the administration API has them at /metrics, with its token"`
}

type logConfig struct {
	Level  string `toml:"level" comment:"\"debug\", \"info\", \"warn\" or \"error\""`
	Format string `toml:"format" comment:"\"text\" or \"json\""`
}

// duration is written "90s".
type duration struct{ time.Duration }

// UnmarshalText reads a duration such as "90s".
func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err == nil && v <= 0 {
		err = errors.New("not above zero")
	}
	if err != nil {
		return fmt.Errorf("%q is no duration: write 90s or 2m", b)
	}
	d.Duration = v
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (d duration) MarshalText() ([]byte, error) {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return []byte(s), nil
}

// Defaults of routes and proxies.
const (
	defaultUpstream     = "127.64.0.0/10"
	defaultUpstreamPort = 25683
)

// newConfig returns the defaults, which a file then overwrites.
func newConfig() *config {
	return &config{
		Drain: duration{10 * time.Second},
		Store: storeConfig{Dir: "/var/lib/oscored", AnchorDir: "/var/lib/oscored-anchors"},
		Keys:  keysConfig{Files: []string{}, Hot: keys.DefaultHot},
		Admin: adminConfig{Listen: "127.0.0.1:5680"},
		Log:   logConfig{Level: "info", Format: "text"},
	}
}

// fill gives routes and proxies their defaults.
func (c *config) fill() {
	for i := range c.Terminate {
		r := &c.Terminate[i]
		def(&r.UpstreamPort, defaultUpstreamPort)
		if r.Contexts == nil {
			r.Contexts = []string{"*"}
		}
		def(&r.Plain, "refuse")
		def(&r.Freshness, "unsafe")
		def(&r.Timeout, duration{93 * time.Second})
		def(&r.AckTimeout, duration{2 * time.Second})
		def(&r.Limits.Exchanges, 65536)
		def(&r.Limits.DeviceExchanges, 64)
		def(&r.Limits.Observations, 256)
		def(&r.Limits.Devices, 1_000_000)
		def(&r.Limits.NStart, 4)
		def(&r.Limits.Bytes, 256<<20)
		def(&r.Limits.Datagram, 4096)
	}
	for i := range c.Proxy {
		p := &c.Proxy[i]
		def(&p.Identity, "oscored")
		def(&p.HopLimit, 16)
		def(&p.Timeout, duration{247 * time.Second})
	}
}

func def[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}
