package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
)

// webServer is an HTTP listener: the administration's or that of the metrics.
type webServer struct {
	what string
	url  string
	http *http.Server
	l    net.Listener
	tls  bool
	done func()
}

func (s *webServer) serve() error {
	err := s.http.Serve(s.l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("%s: %w", s.what, err)
}

func (s *webServer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
	_ = s.l.Close() // if it never served
	if s.done != nil {
		s.done()
		s.done = nil
	}
}

// listenWeb opens the listeners of the administration and of the metrics.
func (d *daemon) listenWeb() error {
	c := d.config()
	m := newMetrics(d)
	if c.Admin.Listen != "" {
		tok, err := loadToken(tokenName(c))
		if err != nil {
			return err
		}
		s, err := newWebServer("administration", c.Admin.Listen, c.Admin.TLSCert, c.Admin.TLSKey)
		if err != nil {
			return err
		}
		d.servers = append(d.servers, s)
		s.http.Handler = (&admin{daemon: d, token: tok, metrics: m, loopback: !s.tls}).handler()
		if d.reg != nil {
			name := adminURLName(c)
			if err := os.WriteFile(name, []byte(s.url+"\n"), 0o600); err != nil {
				return err
			}
			s.done = func() { _ = os.Remove(name) }
		}
	}
	if c.Metrics.Listen != "" {
		s, err := newWebServer("metrics", c.Metrics.Listen, "", "")
		if err != nil {
			return err
		}
		d.servers = append(d.servers, s)
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", m)
		mux.HandleFunc("GET /healthz", d.serveHealth)
		s.http.Handler = mux
	}
	return nil
}

func newWebServer(what, listen, cert, key string) (*webServer, error) {
	addr, err := tcpAddress(listen)
	if err != nil {
		return nil, err
	}
	s := &webServer{what: what, http: &http.Server{ReadHeaderTimeout: 5 * time.Second, ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}}
	scheme := "http://"
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%w: admin.tls_cert: %w", errConfig, err)
		}
		s.tls, scheme = true, "https://"
		s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	if s.l, err = net.Listen("tcp", addr.String()); err != nil {
		return nil, fmt.Errorf("%s: %w%s", what, err, inUse(err))
	}
	s.url = scheme + s.l.Addr().String()
	if s.tls {
		s.l = tls.NewListener(s.l, s.http.TLSConfig)
	}
	return s, nil
}

// serveHealth says whether requests are served: 200, else 503 and why.
func (d *daemon) serveHealth(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	ready, draining := d.ready, d.draining
	d.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	why := ""
	if err := d.healthy(r.Context()); err != nil {
		why = "the store has stopped"
	}
	switch {
	case draining:
		why = "draining"
	case !ready:
		why = "starting"
	}
	if why != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, why)
		return
	}
	fmt.Fprintln(w, "ok")
}

// isLoopbackHost reports whether a Host header names this machine to itself, so
// that a name of somebody else's that leads here is refused (DNS rebinding).
func isLoopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
