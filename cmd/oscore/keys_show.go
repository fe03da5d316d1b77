package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/file"
	"github.com/oscorelay/oscorelay/keys/keyfile"
)

func keysShow(_ context.Context, io stdio, args []string) error {
	f := newKeyFlags("show", "[NAME...]", io.out)
	secrets := f.Bool("secrets", false, "show the master secrets and salts")
	names, err := f.parse(args)
	if err != nil {
		return err
	}
	v, dir, err := f.read()
	if err != nil {
		return err
	}
	entries, err := pick(v.Entries, func(e *file.EntryView) string { return e.Name }, names)
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b file.EntryView) int { return cmp.Compare(a.Name, b.Name) })
	if f.json {
		return printJSON(io.out, showJSON(dir, v, entries, *secrets))
	}
	if len(entries) == 0 {
		fmt.Fprintf(io.out, "%s holds no keys: oscore keys new NAME makes some\n", dir)
		return nil
	}
	w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSENDER\tRECIPIENT\tID CONTEXT\tAEAD\tNEXT\tSTATE")
	for i := range entries {
		e := &entries[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", e.Name, showID(e.Params.SenderID), showID(e.Params.RecipientID),
			showContext(e), e.Params.AEAD, e.Next, showState(e))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i := range entries {
		e := &entries[i]
		if *secrets {
			fmt.Fprintf(io.out, "\n%s\n  master secret %x\n  master salt   %s\n", e.Name, []byte(e.Params.MasterSecret), showID(e.Params.MasterSalt))
		}
		if len(names) > 0 && e.Taint != nil {
			fmt.Fprintf(io.out, "\n%s: %v\n", e.Name, e.Taint)
		}
		if len(names) > 0 && e.Notes != "" {
			fmt.Fprintf(io.out, "\n%s: %s\n", e.Name, e.Notes)
		}
	}
	return nil
}

func showID(b []byte) string {
	if len(b) == 0 {
		return `""`
	}
	return hex.EncodeToString(b)
}

func showContext(e *file.EntryView) string {
	switch {
	case e.IDContext != nil:
		return showShort(e.IDContext) + " (B.2)"
	case e.Params.IDContext == nil:
		return "-"
	}
	return showShort(e.Params.IDContext)
}

// showShort keeps a row within 80 columns.
func showShort(b []byte) string {
	if len(b) > 8 {
		return hex.EncodeToString(b[:6]) + "…"
	}
	return showID(b)
}

func showState(e *file.EntryView) string {
	if e.Taint != nil {
		return "tainted"
	}
	return "ok"
}

func showJSON(dir string, v *file.View, entries []file.EntryView, secrets bool) any {
	type entry struct {
		Name        string `json:"name"`
		SenderID    string `json:"sender_id"`
		RecipientID string `json:"recipient_id"`
		IDContext   any    `json:"id_context"` // null if absent
		Rederived   any    `json:"rederived,omitempty"`
		AEAD        string `json:"aead"`
		HKDF        string `json:"hkdf"`
		Next        uint64 `json:"next"`
		Tainted     string `json:"tainted,omitempty"`
		Secret      string `json:"master_secret,omitempty"`
		Salt        string `json:"master_salt,omitempty"`
		Notes       string `json:"notes,omitempty"`
	}
	list := []entry{}
	for i := range entries {
		e := &entries[i]
		p := &e.Params
		out := entry{
			Name: e.Name, SenderID: hex.EncodeToString(p.SenderID), RecipientID: hex.EncodeToString(p.RecipientID),
			AEAD: p.AEAD.String(), HKDF: p.HKDF.String(), Next: e.Next, Notes: e.Notes,
		}
		if p.IDContext != nil {
			out.IDContext = hex.EncodeToString(p.IDContext)
		}
		if e.IDContext != nil {
			out.Rederived = hex.EncodeToString(e.IDContext)
		}
		if e.Taint != nil {
			out.Tainted = e.Taint.Error()
		}
		if secrets {
			out.Secret, out.Salt = hex.EncodeToString(p.MasterSecret), hex.EncodeToString(p.MasterSalt)
		}
		list = append(list, out)
	}
	return map[string]any{"dir": dir, "store": v.Store, "epoch": v.Epoch, "entries": list}
}

func keysLint(_ context.Context, io stdio, args []string) error {
	f := newKeyFlags("lint", "[FILE...]", io.out)
	files, err := f.parse(args)
	if err != nil {
		return err
	}
	var entries []keys.Entry
	for _, name := range files {
		read, err := readKeyFile(io, name)
		if err != nil {
			return err
		}
		entries = append(entries, read...)
	}
	if len(files) == 0 {
		v, _, err := f.read()
		if err != nil {
			return err
		}
		for _, e := range v.Entries {
			entries = append(entries, e.Entry)
		}
	}
	findings := keyfile.Lint(entries)
	if f.json {
		if err := printJSON(io.out, map[string]any{"entries": len(entries), "findings": append([]keyfile.Finding{}, findings...)}); err != nil {
			return err
		}
	} else {
		for _, x := range findings {
			fmt.Fprintf(io.out, "%s: %s: %s\n    %s\n", x.Entry, x.Code, x.Why, x.Mend)
		}
		fmt.Fprintf(io.out, "%d entries, %d remarks\n", len(entries), len(findings))
	}
	if len(findings) > 0 {
		return errors.New("there is something to mend")
	}
	return nil
}

func keysRemove(_ context.Context, io stdio, args []string) (err error) {
	f := newKeyFlags("rm", "NAME...", io.out)
	names, err := f.parse(args)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return usagef("a name is missing: oscore keys rm NAME")
	}
	st, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	warnTaint(io, st)
	if err := st.Remove(names...); err != nil {
		return err
	}
	if f.json {
		return printJSON(io.out, map[string]any{"dir": st.Dir(), "removed": names})
	}
	fmt.Fprintf(io.out, "%d removed from %s\n", len(names), st.Dir())
	return nil
}
