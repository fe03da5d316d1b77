package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/keyfile"
)

// contextView is a context for people: no secret, and nothing that one could be
// guessed by.
type contextView struct {
	Name        string   `json:"name"`
	SenderID    string   `json:"sender_id"`
	RecipientID string   `json:"recipient_id"`
	IDContext   string   `json:"id_context,omitempty"`
	AEAD        string   `json:"aead"`
	HKDF        string   `json:"hkdf"`
	Source      string   `json:"source"` // a key file, or "administration"
	Notes       string   `json:"notes,omitempty"`
	Routes      []string `json:"routes"`
	Tainted     string   `json:"tainted,omitempty"` // why

	Derived    bool   `json:"derived"`     // Appendix B.2 gave it another context
	InUse      bool   `json:"in_use"`      // of late; what follows is known of those alone
	WindowOpen bool   `json:"window_open"` // else an Echo round trip comes first
	Next       uint64 `json:"next_sequence"`
	Encrypted  uint64 `json:"encrypted"` // messages at most, those skipped at restarts too
	Failed     uint64 `json:"failed"`    // messages that did not verify, since the start
	Renew      bool   `json:"renew"`     // the key's use comes near its limit
}

type contextsView struct {
	Contexts []contextView `json:"contexts"`
	Remarks  []string      `json:"remarks,omitempty"`
	Next     string        `json:"next,omitempty"`
}

// viewContext shows a context. Of one that is not in use it shows what the store
// knows, and brings it not in.
func (a *admin) viewContext(ctx context.Context, name string, hot map[string]*keys.Peer) (v contextView, ok bool, err error) {
	rec, ok, err := a.reg.store.Load(ctx, name)
	if err != nil || !ok {
		return v, false, err
	}
	e := &rec.Entry
	source, err := a.reg.store.Source(ctx, name)
	if err != nil {
		return v, false, err
	}
	v = contextView{
		Name: e.Name, SenderID: keyfile.FormatBytes(e.Params.SenderID), RecipientID: keyfile.FormatBytes(e.Params.RecipientID),
		AEAD: e.Params.AEAD.String(), HKDF: e.Params.HKDF.String(), Source: cmpOr(source, "administration"), Notes: e.Notes, Routes: []string{},
		Derived: rec.Derived != nil, Encrypted: rec.Encrypted,
	}
	switch {
	case rec.Derived != nil:
		v.IDContext = keyfile.FormatBytes(rec.Derived)
	case e.Params.IDContext != nil:
		v.IDContext = keyfile.FormatBytes(e.Params.IDContext)
	}
	if rec.Taint != nil {
		v.Tainted = rec.Taint.Error()
	}
	c := a.config()
	for i := range c.Terminate {
		if accepts(c.Terminate[i].Contexts, e.Name) {
			v.Routes = append(v.Routes, c.Terminate[i].Name)
		}
	}
	if p := hot[name]; p != nil {
		s := p.Status()
		v.InUse, v.WindowOpen, v.Next = true, s.WindowOpen, s.NextSequence
		v.Encrypted, v.Failed, v.Renew = s.Usage.Encrypted, s.Usage.Failed, s.Usage.Near()
	}
	return v, true, nil
}

// hot are the contexts in use, by name.
func (a *admin) hot() map[string]*keys.Peer {
	all := a.reg.ring.Hot()
	out := make(map[string]*keys.Peer, len(all))
	for _, p := range all {
		out[p.Name()] = p
	}
	return out
}

func (a *admin) getContexts(r *http.Request) (any, error) {
	if err := a.hasKeys(); err != nil {
		return nil, err
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	after, q, only := r.FormValue("after"), r.FormValue("q"), r.FormValue("tainted") != ""
	v := contextsView{Contexts: []contextView{}}
	hot := a.hot()
	for {
		names, err := a.reg.store.Names(r.Context(), after, surveyPage)
		if err != nil || len(names) == 0 {
			return v, err
		}
		for _, name := range names {
			if !strings.Contains(name, q) {
				continue
			}
			x, ok, err := a.viewContext(r.Context(), name, hot)
			if err != nil {
				return nil, err
			}
			if !ok || only && x.Tainted == "" {
				continue
			}
			if len(v.Contexts) == limit {
				v.Next = v.Contexts[limit-1].Name
				return v, nil
			}
			v.Contexts = append(v.Contexts, x)
		}
		after = names[len(names)-1]
	}
}

func (a *admin) hasKeys() error {
	if a.reg == nil {
		return statusError{http.StatusNotFound, "there are no contexts: no [[terminate]] is configured"}
	}
	return nil
}

func (a *admin) getContext(r *http.Request) (any, error) {
	if err := a.hasKeys(); err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	x, there, err := a.viewContext(r.Context(), name, a.hot())
	if err == nil && !there {
		err = fmt.Errorf("%w: there is no context %q", keys.ErrNotFound, name)
	}
	if err != nil {
		return nil, err
	}
	return contextsView{Contexts: []contextView{x}}, nil
}

// postContexts takes in a key file's content. fresh says that it was never used
// anywhere, replace that it may take the place of other keys of the same name.
func (a *admin) postContexts(r *http.Request) (any, error) {
	if err := a.hasKeys(); err != nil {
		return nil, err
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	query := r.URL.Query()
	name := cmpOr(query.Get("file"), "body")
	format := keyfile.Format(query.Get("format"))
	if format == "" {
		if format, err = keyfile.FormatOf(name, body); err != nil {
			return nil, statusError{http.StatusBadRequest, err.Error()}
		}
	}
	entries, err := keyfile.Parse(name, format, body)
	if err != nil {
		return nil, statusError{http.StatusBadRequest, err.Error()}
	}
	fresh, replace := query.Get("fresh") == "1", query.Get("replace") == "1"
	done := false
	if fresh {
		if done, err = a.reg.declareFresh(r.Context(), entries); err != nil {
			return nil, err
		}
	}
	if !done {
		if err := a.reg.add(r.Context(), entries, fresh, replace); err != nil {
			return nil, err
		}
	}
	v := contextsView{Contexts: []contextView{}}
	tainted := 0
	hot := a.hot()
	for i := range entries {
		x, ok, err := a.viewContext(r.Context(), entries[i].Name, hot)
		if err != nil {
			return nil, err
		}
		if x.Tainted != "" {
			tainted++
		}
		if ok && len(v.Contexts) < 1000 {
			v.Contexts = append(v.Contexts, x)
		}
	}
	for _, x := range keyfile.Lint(entries) {
		v.Remarks = append(v.Remarks, fmt.Sprintf("context %q: %s: %s", x.Entry, x.Why, x.Mend))
	}
	a.survey.expire()
	a.log.Info("contexts added by the administration", "count", len(entries), "fresh", fresh, "tainted", tainted, "source", r.RemoteAddr)
	return v, nil
}

func (a *admin) deleteContext(r *http.Request) (any, error) {
	if err := a.hasKeys(); err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	if err := a.reg.remove(r.Context(), name); err != nil {
		return nil, err
	}
	a.survey.expire()
	a.log.Info("context removed by the administration", "context", name, "source", r.RemoteAddr)
	return map[string]string{"removed": name}, nil
}
