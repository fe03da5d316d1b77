package main

import (
	"errors"
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
	WindowOpen bool   `json:"window_open"` // else an Echo round trip comes first
	Next       uint64 `json:"next_sequence"`
	Encrypted  uint64 `json:"encrypted"` // messages at most, those skipped at restarts too
	Failed     uint64 `json:"failed"`    // messages that did not verify, since the start
	Renew      bool   `json:"renew"`     // the key's use comes near its limit
}

type contextsView struct {
	Contexts []contextView `json:"contexts"`
	Next     string        `json:"next,omitempty"`
}

func (a *admin) viewContext(e *keys.Entry) contextView {
	v := contextView{
		Name: e.Name, SenderID: keyfile.FormatBytes(e.Params.SenderID), RecipientID: keyfile.FormatBytes(e.Params.RecipientID),
		AEAD: e.Params.AEAD.String(), HKDF: e.Params.HKDF.String(), Source: cmpOr(a.reg.source(e.Name), "administration"), Notes: e.Notes, Routes: []string{},
	}
	if e.Params.IDContext != nil {
		v.IDContext = keyfile.FormatBytes(e.Params.IDContext)
	}
	c := a.config()
	for i := range c.Terminate {
		if accepts(c.Terminate[i].Contexts, e.Name) {
			v.Routes = append(v.Routes, c.Terminate[i].Name)
		}
	}
	if p, ok := a.reg.ring.Get(e.Name); ok {
		s := p.Status()
		v.Derived, v.WindowOpen, v.Next = s.Derived, s.WindowOpen, s.NextSequence
		if s.Derived {
			v.IDContext = keyfile.FormatBytes(s.IDContext)
		}
		if s.Taint != nil {
			v.Tainted = s.Taint.Error()
		}
		v.Encrypted, v.Failed, v.Renew = s.Usage.Encrypted, s.Usage.Failed, s.Usage.Near()
	}
	return v
}

// errEnough ends a listing.
var errEnough = errors.New("enough")

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
	err = a.reg.store.Entries(r.Context(), func(e keys.Entry) error {
		if e.Name <= after && after != "" || !strings.Contains(e.Name, q) {
			return nil
		}
		x := a.viewContext(&e)
		if only && x.Tainted == "" {
			return nil
		}
		if len(v.Contexts) == limit {
			v.Next = v.Contexts[limit-1].Name
			return errEnough
		}
		v.Contexts = append(v.Contexts, x)
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return v, err
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
	e, there, err := a.reg.store.Entry(r.Context(), r.PathValue("name"))
	if err == nil && !there {
		err = fmt.Errorf("%w: there is no context %q", keys.ErrNotFound, r.PathValue("name"))
	}
	if err != nil {
		return nil, err
	}
	return contextsView{Contexts: []contextView{a.viewContext(&e)}}, nil
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
	for i := range entries {
		x := a.viewContext(&entries[i])
		if x.Tainted != "" {
			tainted++
		}
		v.Contexts = append(v.Contexts, x)
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
