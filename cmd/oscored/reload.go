package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/oscorelay/oscorelay/keys/bolt"
)

// reload reads the configuration and the key files anew. What is wrong with them
// changes nothing and is said; so is what only a restart can change.
func (d *daemon) reload(ctx context.Context) (err error) {
	d.notify.reloading()
	defer func() { d.notify.say("READY=1\nSTATUS=" + d.summary()) }()
	defer func() {
		switch {
		case errors.Is(err, errHalf):
			d.log.Error("reload broke off: contexts of the key files may have changed, the configuration has not", "err", err)
		case err != nil:
			d.log.Error("reload refused: nothing changed", "err", err)
		}
	}()
	if d.file == "" {
		return errors.New("there is no configuration file to read: this is the demonstration")
	}
	c, l, err := readConfig(d.file)
	if err != nil {
		return err
	}
	if err := checkConfig(d.file, c, l); err != nil {
		return err
	}
	if err := softOnly(d.file, d.config(), c, l); err != nil {
		return err
	}
	files, err := checkKeyFiles(c.Keys.Files)
	if err != nil {
		return err
	}
	var res bolt.Synced
	if d.reg != nil {
		if res, err = d.reg.sync(ctx, files, false); err != nil {
			return err
		}
	}
	_ = d.level.UnmarshalText([]byte(c.Log.Level)) // checked
	d.mu.Lock()
	d.cfg = c
	d.mu.Unlock()
	for _, r := range d.routes {
		r.change(d.routeConfig(r.name))
	}
	d.survey.expire()
	d.log.Info("reloaded", "file", d.file)
	d.tell(res)
	return nil
}

// softOnly returns what a reload cannot change. Soft are the key files, the log
// level, and of a route contexts, endpoints, plain and freshness.
func softOnly(file string, old, c *config, l lines) error {
	m := &mistakes{file: file, lines: l}
	hard := func(path string, old, c any) {
		if !reflect.DeepEqual(old, c) {
			m.add(path, "is changed by a restart alone: restart oscored, or put back %v", shown(old))
		}
	}
	hard("store", old.Store, c.Store)
	hard("keys.hot", old.Keys.Hot, c.Keys.Hot)
	hard("admin", old.Admin, c.Admin)
	hard("metrics", old.Metrics, c.Metrics)
	hard("log.format", old.Log.Format, c.Log.Format)
	hard("drain", old.Drain, c.Drain)
	hard("proxy", old.Proxy, c.Proxy)
	for i := range c.Terminate {
		r := c.Terminate[i]
		at := fmt.Sprintf("terminate.%d", i)
		j := slices.IndexFunc(old.Terminate, func(o routeConfig) bool { return o.Name == r.Name })
		if j < 0 {
			m.add(at, "%q is a new route: it begins by a restart alone", r.Name)
			continue
		}
		o := old.Terminate[j]
		hard(at+".listen", o.Listen, r.Listen)
		hard(at+".backend", o.Backend, r.Backend)
		hard(at+".upstream", o.Upstream, r.Upstream)
		hard(at+".upstream_port", o.UpstreamPort, r.UpstreamPort)
		hard(at+".upstream_ports", o.UpstreamPorts, r.UpstreamPorts)
		hard(at+".timeout", o.Timeout, r.Timeout)
		hard(at+".ack_timeout", o.AckTimeout, r.AckTimeout)
		hard(at+".silent", o.Silent, r.Silent)
		hard(at+".limits", o.Limits, r.Limits)
	}
	for _, o := range old.Terminate {
		if !slices.ContainsFunc(c.Terminate, func(r routeConfig) bool { return o.Name == r.Name }) {
			m.add("terminate", "the route %q is gone: it ends by a restart alone", o.Name)
		}
	}
	return m.err()
}

// shown is a value as a person wrote it.
func shown(v any) string {
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	if s, ok := v.(fmt.Stringer); ok {
		return s.String()
	}
	return "what was there"
}
