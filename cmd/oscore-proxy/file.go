package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/proxy"
	"github.com/pelletier/go-toml/v2"
)

// fileConfig is the configuration file. What is left out is the default of
// proxy.Config.
type fileConfig struct {
	Listen        string   `toml:"listen"`
	Forward       []string `toml:"forward"`
	Via           string   `toml:"via"`
	PerClient     bool     `toml:"per_client"`
	ByKID         bool     `toml:"by_kid"`
	Shards        int      `toml:"shards"`
	Amplification int      `toml:"amplification"`
	Identity      string   `toml:"identity"`
	HopLimit      int      `toml:"hop_limit"`
	Timeout       duration `toml:"timeout"`
	Drain         duration `toml:"drain"`
	Limits        struct {
		Exchanges     int `toml:"exchanges"`
		PeerExchanges int `toml:"peer_exchanges"`
		Relations     int `toml:"observations"`
		PeerRelations int `toml:"peer_observations"`
		Upstream      int `toml:"upstream_sockets"`
		Peers         int `toml:"peers"`
		Bytes         int `toml:"bytes"`
		Transfers     int `toml:"block_transfer_bytes"`
		Datagram      int `toml:"datagram"`
		ClientNStart  int `toml:"client_nstart"`
		ServerNStart  int `toml:"server_nstart"`
	} `toml:"limits"`
	Route []struct {
		Host       string  `toml:"host"`
		KID        *string `toml:"kid"`
		KIDContext *string `toml:"kid_context"`
		Path       string  `toml:"path"`
		Block      int     `toml:"block"`
		To         string  `toml:"to"`
	} `toml:"route"`
}

type duration time.Duration

// UnmarshalText reads a duration such as "90s".
func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err == nil && v <= 0 {
		err = errors.New("not above zero")
	}
	if err != nil {
		return fmt.Errorf("%q is no duration: write 90s or 2m", b)
	}
	*d = duration(v)
	return nil
}

// readFile reads a configuration file. Its errors name file and line.
func readFile(name string) (cfg proxy.Config, err error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return cfg, err
	}
	var c fileConfig
	dec := toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		var unknown *toml.StrictMissingError
		if errors.As(err, &unknown) {
			e := unknown.Errors[0]
			row, _ := e.Position()
			return cfg, fmt.Errorf("%s:%d: unknown key %q", name, row, strings.Join(e.Key(), "."))
		}
		var bad *toml.DecodeError
		if errors.As(err, &bad) {
			row, _ := bad.Position()
			return cfg, fmt.Errorf("%s:%d: %w", name, row, err)
		}
		return cfg, fmt.Errorf("%s: %w", name, err)
	}
	cfg = proxy.Config{
		Listen: c.Listen, PerClient: c.PerClient, ByKID: c.ByKID, Shards: c.Shards, Amplification: c.Amplification, Identity: c.Identity, HopLimit: c.HopLimit,
		Timeout: time.Duration(c.Timeout), Drain: time.Duration(c.Drain),
		MaxExchanges: c.Limits.Exchanges, PeerExchanges: c.Limits.PeerExchanges, MaxRelations: c.Limits.Relations, PeerRelations: c.Limits.PeerRelations,
		MaxUpstream: c.Limits.Upstream, MaxPeers: c.Limits.Peers, MaxBytes: c.Limits.Bytes, MaxDatagram: c.Limits.Datagram, MaxTransfers: c.Limits.Transfers,
		ClientNStart: c.Limits.ClientNStart, ServerNStart: c.Limits.ServerNStart,
	}
	if len(c.Forward) > 0 || c.Via != "" {
		allow, err := networks(c.Forward)
		if err != nil {
			return cfg, fmt.Errorf("%s: forward: %w", name, err)
		}
		cfg.Forward = &proxy.Forward{Allow: allow, Via: c.Via}
	}
	for i, r := range c.Route {
		out := proxy.Route{Host: r.Host, To: r.To, Prefix: r.Path, BlockSize: r.Block}
		if r.KID != nil {
			out.KID, err = hexBytes("kid", *r.KID)
		}
		if r.KIDContext != nil && err == nil {
			out.KIDContext, err = hexBytes("kid_context", *r.KIDContext)
		}
		if err != nil {
			return cfg, fmt.Errorf("%s: route %d: %w", name, i+1, err)
		}
		cfg.Routes = append(cfg.Routes, out)
	}
	return cfg, nil
}
