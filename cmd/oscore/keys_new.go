package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/keyfile"
	"github.com/oscorelay/oscorelay/oscore"
)

func keysNew(ctx context.Context, io stdio, args []string) (err error) {
	f := newKeyFlags("new", "NAME", io.out)
	peerOut := f.String("peer-out", "", "write the other end's settings to this file (.toml, .json, .csv) instead of printing both ends")
	sender := f.String("sender", "", "this end's sender ID: hex:01, text:a (default: one byte nobody here has)")
	recipient := f.String("recipient", "", "the other end's sender ID (default: one byte nobody here has)")
	idContext := f.String("id-context", "", `ID context: hex:..., text:..., or "random" (default: none)`)
	aead := f.String("aead", "AES-CCM-16-64-128", "AEAD algorithm, name or COSE number")
	hkdf := f.String("hkdf", "SHA-256", "hash of the key derivation: SHA-256, SHA-384, SHA-512")
	rederive := f.String("rederive", "none", "this end's role in Appendix B.2: client, server, both, none")
	notes := f.String("notes", "", "a note for people")
	names, err := f.parse(args)
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return usagef("one name is needed: oscore keys new NAME")
	}
	e := keys.Entry{Name: names[0], Notes: *notes}
	p := &e.Params
	if p.AEAD, err = oscore.ParseAEAD(*aead); err != nil {
		return usagef("--aead: %v", err)
	}
	if p.HKDF, err = oscore.ParseHKDF(*hkdf); err != nil {
		return usagef("--hkdf: %v", err)
	}
	roles := map[string]oscore.Role{"none": 0, "client": oscore.RoleClient, "server": oscore.RoleServer, "both": oscore.RoleClient | oscore.RoleServer}
	role, ok := roles[*rederive]
	if !ok {
		return usagef("--rederive: %q is none of client, server, both, none", *rederive)
	}
	e.Settings.Rederive = role
	p.MasterSecret = random(max(16, p.AEAD.KeyLen()))
	p.MasterSalt = random(8)
	switch *idContext {
	case "":
	case "random":
		p.IDContext = random(8)
	default:
		if p.IDContext, err = keyfile.ParseBytes(*idContext); err != nil {
			return usagef("--id-context: %v", err)
		}
	}
	st, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	warnTaint(io, st)
	entries := st.Entries()
	if slices.ContainsFunc(entries, func(o keys.Entry) bool { return o.Name == e.Name }) {
		return fmt.Errorf("there is an entry %q already: oscore keys rm %s, or choose another name", e.Name, e.Name)
	}
	if err := chooseIDs(ctx, p, entries, *sender, *recipient); err != nil {
		return err
	}
	if err := st.Put(ctx, true, e); err != nil {
		return err
	}
	peer := e.Peer()
	if *peerOut != "" {
		b, err := peerFile(*peerOut, peer)
		if err == nil {
			err = writeSecret(*peerOut, b)
		}
		if err != nil {
			return errors.Join(err, st.Remove(e.Name))
		}
		if f.json {
			return printJSON(io.out, map[string]any{"name": e.Name, "dir": st.Dir(), "peer": *peerOut})
		}
		fmt.Fprintf(io.out, "%s is in %s.\nThe other end's settings are in %s: take them there once, by a safe way, and delete the file.\n"+
			"  oscore keys import --fresh %s\n", e.Name, st.Dir(), *peerOut, *peerOut)
		return nil
	}
	if f.json {
		both := map[string]any{}
		for side, e := range map[string]keys.Entry{"this": e, "peer": peer} {
			if both[side], err = entryJSON(e); err != nil {
				return err
			}
		}
		return printJSON(io.out, both)
	}
	for _, side := range []struct {
		title string
		e     keys.Entry
	}{{"this end, in " + st.Dir() + " already", e}, {"the other end: for its import, once", peer}} {
		b, err := keyfile.Append([]byte("# "+side.title+"\n"), keyfile.TOML, []keys.Entry{side.e}, true)
		if err != nil {
			return err
		}
		fmt.Fprintf(io.out, "%s\n", b)
	}
	return nil
}

// peerFile writes the other end's settings in the format of the file's name.
func peerFile(name string, peer keys.Entry) ([]byte, error) {
	format, err := keyfile.FormatOf(name, nil)
	if err != nil {
		return nil, err
	}
	var b []byte
	if format == keyfile.TOML {
		b = []byte("# Never used anywhere: import it with --fresh, once, on one machine.\n")
	}
	return keyfile.Append(b, format, []keys.Entry{peer}, true)
}

// chooseIDs sets both IDs: as given, else one byte that no entry here has.
func chooseIDs(ctx context.Context, p *oscore.Params, entries []keys.Entry, sender, recipient string) (err error) {
	taken := keys.New(keys.NewMemory())
	for _, e := range entries {
		if _, err := taken.Add(ctx, e); err != nil {
			return err
		}
		_ = taken.ReserveID(e.Params.SenderID) // the IDs of this end are kept apart too, where they can be
	}
	if sender != "" {
		if p.SenderID, err = keyfile.ParseBytes(sender); err != nil {
			return usagef("--sender: %v", err)
		}
	}
	if recipient != "" {
		if p.RecipientID, err = keyfile.ParseBytes(recipient); err != nil {
			return usagef("--recipient: %v", err)
		}
	}
	if recipient == "" {
		if p.RecipientID, err = taken.ReserveFreeID(p.SenderID); err != nil {
			return err
		}
	}
	if sender == "" {
		p.SenderID, err = taken.ReserveFreeID(p.RecipientID)
	}
	return err
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}
