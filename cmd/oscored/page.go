package main

import (
	"bytes"
	_ "embed" // the page
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var pageText string

//go:embed page.css
var styleText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"since": since}).Parse(pageText))

// since is a time as a person reads it.
func since(t *time.Time) string {
	if t == nil {
		return ""
	}
	d := time.Since(*t)
	if d < time.Minute {
		return d.Round(time.Second).String() + " ago"
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s") + " ago"
}

type refusedView struct {
	Route, Reason string
	N             uint64
}

// servePage shows the state to a browser. It changes nothing.
func (a *admin) servePage(w http.ResponseWriter, r *http.Request) {
	v, err := a.getDevices(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	list := v.(devicesView)
	view := struct {
		Status  *statusView
		Up      string
		Query   string
		Devices []deviceView
		Total   int
		Next    string
		Stuck   []deviceView
		StuckN  int
		Refused []refusedView
	}{
		Status: a.status(r.Context()), Up: time.Since(a.began).Round(time.Second).String(), Query: r.FormValue("q"),
		Devices: list.Devices, Total: list.Total, Next: list.Next,
	}
	view.Stuck, view.StuckN, _ = a.devices("", 100, isStuck)
	for _, x := range a.routes {
		for reason, n := range x.Stats().Counters {
			if n > 0 && !events[reason] && !passed[reason] {
				view.Refused = append(view.Refused, refusedView{x.name, reason, n})
			}
		}
	}
	slices.SortFunc(view.Refused, func(x, y refusedView) int { return strings.Compare(x.Route+" "+x.Reason, y.Route+" "+y.Reason) })
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, view); err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	secure(w, "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // the client is gone
}

func serveStyle(w http.ResponseWriter, _ *http.Request) {
	secure(w, "text/css; charset=utf-8")
	_, _ = w.Write([]byte(styleText)) // the client is gone
}

// secure sets the headers of what a browser shows: nothing from elsewhere, no
// script, in nobody's frame, kept nowhere.
func secure(w http.ResponseWriter, contentType string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}
