package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/internal/terminate"
	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/keyfile"
)

// admin is the administration API: JSON over HTTP, for whoever has the token.
type admin struct {
	*daemon
	token    *token
	metrics  http.Handler
	loopback bool // requests must name this machine as itself
}

// maxKeyFile bounds the body of a key file, in bytes.
const maxKeyFile = 64 << 20

func (a *admin) handler() http.Handler {
	api := http.NewServeMux()
	for pattern, h := range map[string]func(*http.Request) (any, error){
		"GET /api/status":                a.getStatus,
		"GET /api/devices":               a.getDevices,
		"GET /api/devices/{name...}":     a.getDevice,
		"GET /api/stuck":                 a.getStuck,
		"GET /api/contexts":              a.getContexts,
		"GET /api/contexts/{name...}":    a.getContext,
		"POST /api/contexts":             a.postContexts,
		"DELETE /api/contexts/{name...}": a.deleteContext,
		"GET /api/exchanges":             a.getExchanges,
		"GET /api/counters":              a.getCounters,
		"GET /api/migration":             a.getMigration,
		"POST /api/reload":               func(r *http.Request) (any, error) { return a.ask(r.Context(), "reload") },
		"POST /api/drain":                func(r *http.Request) (any, error) { return a.ask(r.Context(), "drain") },
	} {
		api.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { answer(w, r, h) })
	}
	api.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, func(*http.Request) (any, error) {
			return nil, statusError{http.StatusNotFound, "there is no " + r.URL.Path}
		})
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", a.serveHealth)
	mux.Handle("/api/", a.protect(api, false))
	mux.Handle("GET /metrics", a.protect(a.metrics, false))
	mux.Handle("GET /{$}", a.protect(http.HandlerFunc(a.servePage), true))
	mux.Handle("GET /style.css", http.HandlerFunc(serveStyle))
	return mux
}

// protect lets requests with the token through. A browser may give it as a
// password, but then only read: what it remembers a foreign page could use too.
func (a *admin) protect(next http.Handler, browser bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.loopback && !isLoopbackHost(r.Host) {
			refuse(w, http.StatusMisdirectedRequest, fmt.Sprintf("the request is for host %q: this is the administration of this machine alone, ask for 127.0.0.1", r.Host))
			return
		}
		got, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !bearer {
			_, got, _ = r.BasicAuth()
		}
		switch {
		case !a.token.is(got):
			if got != "" {
				slog.New(a.quiet).Warn("administration refused", "reason", "token", "source", r.RemoteAddr, "path", r.URL.Path)
			}
			w.Header().Set("WWW-Authenticate", "Bearer")
			if browser || strings.Contains(r.Header.Get("Accept"), "text/html") {
				w.Header().Set("WWW-Authenticate", `Basic realm="oscored: any name, the token as password", charset="UTF-8"`)
			}
			refuse(w, http.StatusUnauthorized, "the token is missing or wrong: it is in the file that [admin] token_file names")
		case !bearer && r.Method != http.MethodGet && r.Method != http.MethodHead:
			refuse(w, http.StatusForbidden, "changes need the header Authorization: Bearer")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// statusError is an error with the HTTP status that tells it.
type statusError struct {
	status int
	text   string
}

func (e statusError) Error() string { return e.text }

func answer(w http.ResponseWriter, r *http.Request, h func(*http.Request) (any, error)) {
	v, err := h(r)
	if err != nil {
		status := http.StatusInternalServerError
		var s statusError
		var place *keyfile.Error
		switch {
		case errors.As(err, &s):
			status = s.status
		case errors.Is(err, keys.ErrNotFound):
			status = http.StatusNotFound
		case errors.Is(err, keys.ErrDuplicate), errors.Is(err, keys.ErrTainted):
			status = http.StatusConflict
		case errors.Is(err, errConfig), errors.As(err, &place):
			status = http.StatusBadRequest
		}
		refuse(w, status, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // the client is gone
}

func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text}) // the client is gone
}

// ask hands a request to the daemon's loop and waits for what it says.
func (a *admin) ask(ctx context.Context, verb string) (any, error) {
	q := request{verb, make(chan error, 1)}
	select {
	case a.requests <- q:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case err := <-q.done:
		if err != nil {
			return nil, statusError{http.StatusConflict, err.Error()}
		}
		return map[string]string{"done": verb}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// statusView is the state of the whole.
type statusView struct {
	Version  string      `json:"version"`
	Began    time.Time   `json:"began"`
	State    string      `json:"state"` // starting, serving, draining
	Store    *storeView  `json:"store,omitempty"`
	Routes   []routeView `json:"routes"`
	Proxies  []proxyView `json:"proxies"`
	Contexts int         `json:"contexts"`
	Tainted  int         `json:"tainted"`
}

type storeView struct {
	Dir   string `json:"dir"`
	Epoch uint64 `json:"epoch"`
	Taint string `json:"taint,omitempty"`
	Error string `json:"error,omitempty"`
}

type routeView struct {
	Name         string `json:"name"`
	Listen       string `json:"listen"`
	Backend      string `json:"backend"`
	Plain        string `json:"plain"`
	Devices      int    `json:"devices"`
	StillPlain   int    `json:"still_plain"`
	Exchanges    int    `json:"exchanges"`
	Observations int    `json:"observations"`
}

type proxyView struct {
	Name     string `json:"name"`
	Listen   string `json:"listen"`
	Requests uint64 `json:"requests"`
}

func (a *admin) status(ctx context.Context) *statusView {
	a.mu.Lock()
	ready, draining := a.ready, a.draining
	a.mu.Unlock()
	v := &statusView{Version: version(), Began: a.began, State: "starting", Routes: []routeView{}, Proxies: []proxyView{}}
	switch {
	case draining:
		v.State = "draining"
	case ready:
		v.State = "serving"
	}
	if a.reg != nil {
		v.Store = &storeView{Dir: a.reg.store.Dir(), Epoch: a.reg.store.Epoch(), Taint: a.reg.store.Taint()}
		if err := a.healthy(ctx); err != nil {
			v.Store.Error = err.Error()
		}
		v.Contexts = a.reg.ring.Len()
		v.Tainted, _ = a.survey.taints()
	}
	for _, r := range a.routes {
		g, c := r.Stats().Gauges, r.policy.Load()
		v.Routes = append(v.Routes, routeView{r.name, r.Addr().String(), c.Backend, c.Plain, g["devices"], g["devices_plain"], g["exchanges"], g["observations"]})
	}
	for _, p := range a.proxies {
		v.Proxies = append(v.Proxies, proxyView{p.name, p.Addr().String(), p.Stats().Requests})
	}
	return v
}

func (a *admin) getStatus(r *http.Request) (any, error) { return a.status(r.Context()), nil }

// deviceView is a device for people.
type deviceView struct {
	Route        string     `json:"route"`
	Name         string     `json:"name"`
	Endpoint     string     `json:"endpoint,omitempty"`
	Address      string     `json:"address,omitempty"`
	Upstream     string     `json:"upstream,omitempty"`
	Location     string     `json:"location,omitempty"`
	LastSeen     *time.Time `json:"last_seen,omitempty"`
	Sealed       bool       `json:"sealed"`
	Observations int        `json:"observations"`
	Dormant      int        `json:"dormant"` // observations that wait for it to be heard
	Exchanges    int        `json:"exchanges"`
	Stuck        string     `json:"stuck,omitempty"`
	Since        *time.Time `json:"stuck_since,omitempty"`
	Next         string     `json:"next,omitempty"`
}

// found is a device of a route.
type found struct {
	route string
	terminate.Device
}

// devices returns the devices of a page, in the order of their names, and how many
// there are in all. It holds no more than a few pages of them.
func (a *admin) devices(after string, limit int, keep func(*terminate.Device) bool) (out []deviceView, total int, next string) {
	var list []found
	most := limit + len(a.routes) + 1 // a name is on as many routes at most
	cut := func() {
		slices.SortStableFunc(list, func(x, y found) int { return strings.Compare(x.Context, y.Context) })
		list = list[:min(len(list), most)]
	}
	for _, r := range a.routes {
		r.Devices(func(d terminate.Device) bool {
			if !keep(&d) {
				return true
			}
			total++
			if after != "" && d.Context <= after {
				return true
			}
			if list = append(list, found{r.name, d}); len(list) >= 4*most {
				cut()
			}
			return true
		})
	}
	cut()
	list, next = page(list, limit, func(f *found) string { return f.Context })
	out = []deviceView{}
	for i := range list {
		out = append(out, list[i].view())
	}
	return out, total, next
}

func (d *found) view() deviceView {
	v := deviceView{
		Route: d.route, Name: d.Context, Endpoint: d.Endpoint, Address: addressText(d.Address), Upstream: addressText(d.Upstream), Location: d.Location,
		Sealed: !d.Plain, Observations: d.Observations, Dormant: d.Dormant, Exchanges: d.Exchanges, Stuck: d.Stuck, Next: nextStep(d.Stuck),
	}
	if !d.LastSeen.IsZero() {
		v.LastSeen = &d.LastSeen
	}
	if d.Stuck != "" {
		v.Since = &d.Since
	}
	return v
}

// page cuts a list that is ordered by name: at most so many, and the name to go on
// after.
func page[T any](list []T, limit int, name func(*T) string) (out []T, next string) {
	if len(list) <= limit {
		return list, ""
	}
	end := limit
	for end < len(list) && name(&list[end]) == name(&list[end-1]) {
		end++ // the same name on another route
	}
	if end < len(list) {
		next = name(&list[end-1])
	}
	return list[:end], next
}

// limitOf reads how many entries a page may have: 100, at most 1000.
func limitOf(r *http.Request) (int, error) {
	s := r.FormValue("limit")
	if s == "" {
		return 100, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1000 {
		return 0, statusError{http.StatusBadRequest, fmt.Sprintf("limit %q is no number from 1 to 1000", s)}
	}
	return n, nil
}

type devicesView struct {
	Devices []deviceView `json:"devices"`
	Total   int          `json:"total"`
	Next    string       `json:"next,omitempty"` // give it as after
}

// listDevices is the page that a request asks for.
func (a *admin) listDevices(r *http.Request, keep func(*terminate.Device) bool) (v devicesView, err error) {
	limit, err := limitOf(r)
	if err != nil {
		return v, err
	}
	v.Devices, v.Total, v.Next = a.devices(r.FormValue("after"), limit, keep)
	return v, nil
}

func (a *admin) getDevices(r *http.Request) (any, error) {
	q := r.FormValue("q")
	return a.listDevices(r, func(d *terminate.Device) bool {
		return q == "" || strings.Contains(d.Context, q) || strings.Contains(d.Endpoint, q)
	})
}

func (a *admin) getDevice(r *http.Request) (any, error) {
	name := r.PathValue("name")
	list, n, _ := a.devices("", 1000, func(d *terminate.Device) bool { return d.Context == name || d.Endpoint == name })
	if n == 0 {
		return nil, statusError{http.StatusNotFound, fmt.Sprintf("no device %q was seen since the start: 'oscored ctl contexts %s' tells whether its keys are here", name, name)}
	}
	return devicesView{Devices: list, Total: n}, nil
}

func isStuck(d *terminate.Device) bool { return d.Stuck != "" }

func (a *admin) getStuck(r *http.Request) (any, error) { return a.listDevices(r, isStuck) }

func (a *admin) getExchanges(r *http.Request) (any, error) {
	v, err := a.listDevices(r, func(d *terminate.Device) bool { return d.Exchanges > 0 })
	v.Total = 0
	for _, x := range a.routes {
		v.Total += x.Stats().Gauges["exchanges"]
	}
	return v, err
}

func (a *admin) getCounters(*http.Request) (any, error) {
	out := map[string]map[string]uint64{}
	for _, r := range a.routes {
		out[r.name] = r.Stats().Counters
	}
	for _, p := range a.proxies {
		out[p.name] = proxyCounters(p.Stats())
	}
	return out, nil
}

func (a *admin) getMigration(*http.Request) (any, error) {
	type view struct {
		Route      string   `json:"route"`
		Plain      string   `json:"plain"`
		Sealed     int      `json:"sealed"`
		StillPlain int      `json:"still_plain"`
		Names      []string `json:"still_plain_names"` // the first hundred
		Next       string   `json:"next"`
	}
	out := []view{}
	for _, r := range a.routes {
		v := view{Route: r.name, Plain: r.policy.Load().Plain, Names: []string{}}
		r.Devices(func(d terminate.Device) bool {
			if !d.Plain {
				v.Sealed++
			} else if v.StillPlain++; len(v.Names) < 100 {
				v.Names = append(v.Names, cmpOr(d.Context, d.Endpoint, addressText(d.Address)))
			}
			return true
		})
		switch {
		case v.Plain == "refuse":
			v.Next = "done: requests without OSCORE are refused"
		case v.StillPlain > 0:
			v.Next = "give these devices their keys; meanwhile they are served as they are"
		default:
			v.Next = "no device was seen plain since the start: when all have been seen, set plain = \"refuse\" and reload"
		}
		out = append(out, v)
	}
	return out, nil
}

// cmpOr returns the first that is not empty.
func cmpOr(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// readBody reads a request's body, up to a limit.
func readBody(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxKeyFile {
		return nil, statusError{http.StatusRequestEntityTooLarge, fmt.Sprintf("a key file of more than %d bytes: cut it in parts", maxKeyFile)}
	}
	return b, nil
}
