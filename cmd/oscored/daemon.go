package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/bolt"
	"github.com/oscorelay/oscorelay/proxy"
)

// daemon is what runs.
type daemon struct {
	file  string // the configuration's, empty for the demonstration
	log   *slog.Logger
	level *slog.LevelVar
	quiet *limiter // for what foreign datagrams cause
	began time.Time

	mu  sync.Mutex
	cfg *config // as it takes effect now

	provide func(context.Context, *bolt.Store) error // the demonstration's keys, nil

	reg     *registry // nil without a [[terminate]]
	routes  []*route
	proxies []*runningProxy
	servers []*webServer
	notify  *notifier
	survey  survey

	ready    bool
	draining bool
	requests chan request // of the administration
}

// runningProxy is a running [[proxy]].
type runningProxy struct {
	*proxy.Proxy
	name string
}

// request is what the administration API asks of the daemon's own loop.
type request struct {
	verb string // "reload" or "drain"
	done chan error
}

// serve runs until it is told to end.
func serve(ctx context.Context, f *flags, stdout, stderr io.Writer, signals <-chan os.Signal) error {
	d := &daemon{file: f.config, level: &slog.LevelVar{}, survey: survey{again: make(chan struct{}, 1)}, began: time.Now(), requests: make(chan request)}
	var files *keyFiles
	var show func()
	if f.config == "" {
		demo, err := newDemo(f.listen)
		if err != nil {
			return err
		}
		defer demo.close()
		d.cfg, files, show = demo.config, &keyFiles{}, func() { demo.show(stdout, d) }
		f.init, d.provide = demo.init, demo.provide
	} else {
		c, l, err := readConfig(f.config)
		if err != nil {
			return err
		}
		if err := checkConfig(f.config, c, l); err != nil {
			return err
		}
		if files, err = checkKeyFiles(c.Keys.Files); err != nil {
			return err
		}
		d.cfg = c
	}
	_ = d.level.UnmarshalText([]byte(d.cfg.Log.Level)) // checked
	d.log = newLogger(stderr, d.cfg.Log.Format, d.level, os.Getenv("JOURNAL_STREAM") != "" || os.Getenv("INVOCATION_ID") != "" && os.Getenv("NOTIFY_SOCKET") != "")
	d.quiet = newLimiter(d.log.Handler())
	var err error
	if d.notify, err = newNotifier(os.Getenv("NOTIFY_SOCKET")); err != nil {
		d.log.Warn("the service manager hears nothing", "err", err)
	}
	defer d.notify.close()
	opening, told := untilTold(ctx, signals)
	if err = d.open(opening, f, files); err == nil && !f.once {
		err = d.listen()
	}
	if told() {
		d.log.Info("ended before it served; what was taken in stays, and the next start goes on with it")
		if f.once {
			err = errors.New("ended by a signal before everything was taken in: run it again, without -init")
		} else {
			err = nil
		}
		return errors.Join(err, d.close())
	}
	if err != nil || f.once {
		return errors.Join(err, d.close())
	}
	err = d.loop(ctx, signals, show)
	if errors.Is(err, errAtOnce) {
		return err // with everything as it is: the store is made for that
	}
	return errors.Join(err, d.close())
}

// untilTold returns a context for what comes before the loop, which a signal to end
// ends. told stops that, and reports whether there was one.
func untilTold(ctx context.Context, signals <-chan os.Signal) (_ context.Context, told func() bool) {
	ctx, cancel := context.WithCancel(ctx)
	stop, ended := make(chan struct{}), make(chan bool, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- false
				return
			case s := <-signals:
				if s != syscall.SIGHUP { // the configuration was just read
					cancel()
					ended <- true
					return
				}
			}
		}
	}()
	return ctx, func() bool {
		close(stop)
		defer cancel()
		return <-ended
	}
}

// open opens the store and takes the key files in.
func (d *daemon) open(ctx context.Context, f *flags, files *keyFiles) error {
	if len(d.cfg.Terminate) == 0 {
		return nil // a proxy has no keys
	}
	if f.init && len(files.names) > 0 {
		// Better now than with a store that is there already.
		if _, err := surveyFiles(ctx, files, nil); err != nil {
			return err
		}
	}
	s := &d.cfg.Store
	store, err := bolt.Open(s.Dir, bolt.Options{
		Init: f.init, AnchorDir: s.AnchorDir, RootKey: s.RootKey, Hot: d.cfg.Keys.Hot,
		OnError: func(err error) {
			slog.New(d.quiet).Error("a context cannot be looked up", "reason", "storage", "err", err)
		},
	})
	if errors.Is(err, bolt.ErrMissing) && f.config != "" {
		return fmt.Errorf("%w.\nThe store remembers which sequence numbers were used. Without it every key would begin at 0 again and repeat nonces, "+
			"which gives the keys away; so nothing starts until a person has looked:\n"+
			"  it was there before: bring back the directory or volume, or mend store.dir in %s\n"+
			"  this is the first start, or the keys are new: oscored -config %s -init   (-init -fresh if the key files were never used anywhere)", err, f.config, f.config)
	}
	if err != nil {
		return err
	}
	if reason := store.Taint(); reason != "" {
		d.log.Error("the store's past is unknown: its contexts open messages and seal none", "dir", store.Dir(), "reason", reason, "next", keys.Mend)
	}
	if d.provide != nil {
		if err := d.provide(ctx, store); err != nil {
			return errors.Join(err, store.Close())
		}
	}
	reg, res, err := openRegistry(ctx, store, files, f.fresh, d.tellProgress())
	if err != nil {
		if f.init {
			err = fmt.Errorf("%w\nThe store was made, and is empty: mend this, and start again without -init", err)
		}
		if reg == nil {
			return errors.Join(err, store.Close())
		}
		return errors.Join(err, reg.close())
	}
	d.reg = reg
	d.log.Info("store open", "dir", store.Dir(), "epoch", store.Epoch(), "contexts", reg.ring.Len())
	d.tell(res)
	if reg.ring.Len() <= surveySmall {
		if err := d.survey.count(ctx, reg); err != nil {
			return err
		}
		if n, _ := d.survey.taints(); n > 0 {
			d.tellTainted(n, d.survey.names)
		}
	}
	return nil
}

// tellProgress returns what tells how far a long import is, to the log and to the
// service manager, which waits longer then.
func (d *daemon) tellProgress() func(done, of int) {
	var last time.Time
	return func(done, of int) {
		if now := time.Now(); now.Sub(last) >= 5*time.Second {
			if !last.IsZero() {
				d.log.Info("taking in key files", "done", done, "of", of)
			}
			last = now
			d.notify.say(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nWATCHDOG=1\nSTATUS=taking in key files: %d of %d", time.Minute.Microseconds(), done, of))
		}
	}
}

// tell logs what a look at the key files changed.
func (d *daemon) tell(res bolt.Synced) {
	if n := res.Added + len(res.Changed) + len(res.Removed); n > 0 {
		d.log.Info("contexts of the key files", "added", res.Added, "changed", len(res.Changed), "removed", len(res.Removed))
	}
}

// tellTainted says what contexts seal nothing, and what to do.
func (d *daemon) tellTainted(n int, names []string) {
	d.log.Warn("contexts are tainted: they may have been used before, so they open messages and seal none", "count", n, "names", few(names),
		"next", "if their secrets were never used anywhere: oscored ctl contexts add -fresh KEYFILE; else "+keys.Mend)
}

// listen opens all sockets.
func (d *daemon) listen() error {
	for i := range d.cfg.Terminate {
		r, err := d.newRoute(&d.cfg.Terminate[i])
		if err != nil {
			return err
		}
		d.routes = append(d.routes, r)
	}
	if d.reg != nil {
		d.reg.mu.Lock()
		d.reg.forget = d.forget
		d.reg.mu.Unlock()
	}
	for i := range d.cfg.Proxy {
		p := &d.cfg.Proxy[i]
		cfg, _, err := proxySettings(p)
		if err != nil {
			return err
		}
		cfg.Drain = d.cfg.Drain.Duration
		cfg.Logger = slog.New(d.quiet).With("proxy", p.Name)
		x, err := proxy.Listen(cfg)
		if err != nil {
			return fmt.Errorf("proxy %q: %w%s", p.Name, err, inUse(err))
		}
		d.proxies = append(d.proxies, &runningProxy{x, p.Name})
	}
	return d.listenWeb()
}

// inUse adds the mend to an error about an address.
func inUse(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return ": another program has the address; 'ss -lnp' tells which"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ": this machine has no such address; 'ip address' lists those it has"
	case errors.Is(err, syscall.EACCES):
		return ": a port below 1024 needs CAP_NET_BIND_SERVICE"
	}
	return ""
}

// forget tells every route that contexts were removed or replaced.
func (d *daemon) forget(names ...string) {
	for _, r := range d.routes {
		r.Forget(names...)
	}
}

// loop runs the routes until a signal or the administration ends it.
func (d *daemon) loop(ctx context.Context, signals <-chan os.Signal, show func()) error {
	run, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, len(d.routes)+len(d.proxies)+len(d.servers))
	var work, web sync.WaitGroup
	for _, r := range d.routes {
		work.Go(func() {
			if err := r.Serve(run); err != nil {
				failed <- fmt.Errorf("route %q: %w", r.name, err)
			}
		})
	}
	for _, p := range d.proxies {
		d.log.Info("proxies", "proxy", p.name, "listen", p.Addr().String())
		work.Go(func() {
			if err := p.Serve(run); err != nil {
				failed <- fmt.Errorf("proxy %q: %w", p.name, err)
			}
		})
	}
	for _, s := range d.servers {
		d.log.Info(s.what, "listen", s.url)
		web.Go(func() {
			if err := s.serve(); err != nil {
				failed <- err
			}
		})
	}
	defer func() {
		for _, s := range d.servers {
			s.close()
		}
		web.Wait()
	}()
	interval, err := watchdogInterval(os.Getenv)
	if err != nil {
		d.log.Warn("no watchdog", "err", err)
	}
	tick := time.NewTicker(limitEvery)
	defer tick.Stop()
	watch := time.NewTicker(max(time.Second, min(interval, 10*time.Second)))
	if interval > 0 && interval < time.Second {
		watch.Reset(interval)
	}
	defer watch.Stop()
	d.setState(true, false)
	d.notify.say("READY=1\nSTATUS=" + d.summary())
	if show != nil {
		show()
	}
	end := func(why string, err error) error {
		d.setState(true, true)
		d.notify.say("STOPPING=1\nSTATUS=draining")
		d.log.Info("ends", "why", why, "drain", d.config().Drain.Duration.String())
		stop()
		ended := make(chan struct{})
		go func() { work.Wait(); close(ended) }()
		for {
			select {
			case <-ended:
				d.quiet.flush(context.Background(), time.Now().Add(limitEvery))
				d.log.Info("ended", "ran", time.Since(d.began).Round(time.Second).String(), "summary", d.summary())
				return err
			case s := <-signals:
				if s != syscall.SIGHUP {
					return errors.Join(err, errAtOnce)
				}
			case q := <-d.requests:
				q.done <- errors.New("the daemon is ending")
			}
		}
	}
	// A reload may take long: one runs beside the loop, and one more may wait.
	reloads := make(chan chan error, 1)
	work.Go(func() {
		for {
			select {
			case <-run.Done():
				return
			case done := <-reloads:
				if err := d.reload(run); done != nil {
					done <- err
				}
			}
		}
	})
	begin := func(done chan error) {
		select {
		case reloads <- done:
		default:
			if done != nil {
				done <- errors.New("a reload is under way, and another one waits: ask again")
			}
		}
	}
	if d.reg != nil {
		work.Go(func() { d.survey.run(run, d.reg, d.tellTainted) })
	}
	for {
		select {
		case <-ctx.Done():
			return end("stopped", nil)
		case err := <-failed:
			return end("failure", err)
		case s := <-signals:
			if s == syscall.SIGHUP {
				begin(nil)
				continue
			}
			return end(s.String(), nil)
		case q := <-d.requests:
			if q.verb == "reload" {
				begin(q.done)
				continue
			}
			q.done <- nil
			return end("drain asked for by the administration", nil)
		case now := <-tick.C:
			d.quiet.flush(ctx, now)
			d.tellMigration()
		case <-watch.C:
			if err := d.healthy(ctx); err != nil {
				return end("the store has stopped", err)
			}
			d.watchdog(interval)
		}
	}
}

// stallLimit is how long a route may do nothing that time made due before the
// service manager is left without a sign of life.
const stallLimit = 5 * time.Second

// watchdog tells the service manager that the daemon lives, if its routes do.
func (d *daemon) watchdog(interval time.Duration) {
	for _, r := range d.routes {
		if t := r.Stalled(time.Now()); t > max(stallLimit, interval) {
			d.log.Error("a route does not move: the service manager is not told that it lives, and starts it again", "route", r.name, "for", t.Round(time.Second).String())
			return
		}
	}
	if interval > 0 {
		d.notify.say("WATCHDOG=1")
	}
}

func (d *daemon) setState(ready, draining bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready, d.draining = ready, draining
}

func (d *daemon) config() *config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cfg
}

// healthy returns why nothing can be sealed any more, nil if it can.
func (d *daemon) healthy(ctx context.Context) error {
	if d.reg == nil {
		return nil
	}
	return d.reg.healthy(ctx)
}

// errAtOnce ends a daemon that was told so twice.
var errAtOnce = errors.New("ended at once by a second signal: requests under way are lost, nothing else; the next start finds the store as after a crash")

// summary is a line for people.
func (d *daemon) summary() string {
	var requests uint64
	devices := 0
	for _, r := range d.routes {
		s := r.Stats()
		requests += s.Counters["requests_up"] + s.Counters["requests_down"]
		devices += s.Gauges["devices"]
	}
	contexts := 0
	if d.reg != nil && d.reg.ring != nil {
		contexts = d.reg.ring.Len()
	}
	return fmt.Sprintf("%d routes, %d proxies, %d contexts, %d devices, %d requests", len(d.routes), len(d.proxies), contexts, devices, requests)
}

// tellMigration says how many devices are still plain where they may be, when
// that has changed.
func (d *daemon) tellMigration() {
	for _, r := range d.routes {
		if r.policy.Load().Plain == "refuse" {
			continue
		}
		if n := r.Stats().Gauges["devices_plain"]; n != r.told {
			d.log.Info("devices are still plain", "route", r.name, "count", n)
			r.told = n
		}
	}
}

// close ends what is left and closes the store.
func (d *daemon) close() error {
	for _, s := range d.servers {
		s.close()
	}
	if d.reg == nil {
		return nil
	}
	return d.reg.close()
}

// adminURLName is the file that tells oscored ctl where to ask.
func adminURLName(c *config) string { return filepath.Join(c.Store.Dir, "admin.url") }

// routeConfig returns a route's settings as they are now.
func (d *daemon) routeConfig(name string) *routeConfig {
	c := d.config()
	for i := range c.Terminate {
		if c.Terminate[i].Name == name {
			return &c.Terminate[i]
		}
	}
	panic("cmd/oscored: a running route is not in the configuration: reload lets none go") // so it was checked
}
