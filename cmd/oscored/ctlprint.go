package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
)

// clean makes a text that a device chose harmless for a terminal.
func clean(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// table prints rows in columns.
func table(w io.Writer, head []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			if cell = clean(cell); cell == "" {
				cell = "-"
			}
			row[i] = cell
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

func printStatus(w io.Writer, b []byte) error {
	var v statusView
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	fmt.Fprintf(w, "oscored %s, %s since %s\n", v.Version, v.State, v.Began.Format("2006-01-02 15:04:05"))
	if v.Store != nil {
		fmt.Fprintf(w, "store %s, epoch %d, %d contexts, %d of them tainted\n", v.Store.Dir, v.Store.Epoch, v.Contexts, v.Tainted)
		if v.Store.Taint != "" {
			fmt.Fprintln(w, "the store's past is unknown:", v.Store.Taint)
		}
		if v.Store.Error != "" {
			fmt.Fprintln(w, "the store has stopped:", v.Store.Error)
		}
	}
	var rows [][]string
	for _, r := range v.Routes {
		rows = append(rows, []string{r.Name, r.Listen, r.Backend, r.Plain, fmt.Sprint(r.Devices), fmt.Sprint(r.StillPlain), fmt.Sprint(r.Exchanges), fmt.Sprint(r.Observations)})
	}
	for _, p := range v.Proxies {
		rows = append(rows, []string{p.Name, p.Listen, "(proxy)", "", "", "", fmt.Sprint(p.Requests), ""})
	}
	return table(w, []string{"ROUTE", "LISTENS", "LEADS TO", "PLAIN", "DEVICES", "STILL PLAIN", "UNDER WAY", "OBSERVATIONS"}, rows)
}

func printDevices(w io.Writer, b []byte) error {
	var v devicesView
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	var rows [][]string
	for _, d := range v.Devices {
		state := "sealed"
		if !d.Sealed {
			state = "plain"
		}
		if d.Stuck != "" {
			state += ", stuck: " + d.Stuck
		}
		rows = append(rows, []string{d.Name, d.Endpoint, d.Route, d.Address, d.Upstream, d.Location, since(d.LastSeen), fmt.Sprint(d.Exchanges), fmt.Sprint(d.Observations), state})
	}
	if err := table(w, []string{"DEVICE", "ENDPOINT", "ROUTE", "ADDRESS", "UPSTREAM", "REGISTERED", "LAST SEEN", "UNDER WAY", "OBSERVATIONS", "STATE"}, rows); err != nil {
		return err
	}
	return printMore(w, v.Next)
}

func printMore(w io.Writer, next string) error {
	if next != "" {
		fmt.Fprintf(w, "more: -after %s\n", quote(clean(next)))
	}
	return nil
}

func printStuck(w io.Writer, b []byte) error {
	var v devicesView
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if len(v.Devices) == 0 {
		fmt.Fprintln(w, "no device is stuck")
	}
	for _, d := range v.Devices {
		fmt.Fprintf(w, "%s (route %s, last seen %s)\n  why:  %s\n  next: %s\n", clean(d.Name), d.Route, cmpOr(since(d.LastSeen), "never"), clean(d.Stuck), clean(d.Next))
	}
	return printMore(w, v.Next)
}

func printContexts(w io.Writer, b []byte) error {
	var v contextsView
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	var rows [][]string
	for _, c := range v.Contexts {
		state := "ready"
		switch {
		case c.Tainted != "":
			state = "tainted: " + c.Tainted
		case c.Renew:
			state = "renew its keys soon"
		case c.InUse && !c.WindowOpen:
			state = "ready, Echo first"
		}
		rows = append(rows, []string{c.Name, c.SenderID, c.RecipientID, c.IDContext, strings.Join(c.Routes, " "), fmt.Sprint(c.Next), fmt.Sprint(c.Failed), c.Source, state})
	}
	for _, r := range v.Remarks {
		fmt.Fprintln(w, "remark:", clean(r))
	}
	if err := table(w, []string{"CONTEXT", "SENDER ID", "RECIPIENT ID", "ID CONTEXT", "ROUTES", "NEXT NUMBER", "FAILED", "FROM", "STATE"}, rows); err != nil {
		return err
	}
	return printMore(w, v.Next)
}

func printCounters(w io.Writer, b []byte) error {
	var v map[string]map[string]uint64
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	var rows [][]string
	for _, route := range slices.Sorted(maps.Keys(v)) {
		for _, name := range slices.Sorted(maps.Keys(v[route])) {
			rows = append(rows, []string{route, name, fmt.Sprint(v[route][name])})
		}
	}
	return table(w, []string{"ROUTE", "COUNTER", "MESSAGES"}, rows)
}

func printMigration(w io.Writer, b []byte) error {
	var v []struct {
		Route      string   `json:"route"`
		Plain      string   `json:"plain"`
		Sealed     int      `json:"sealed"`
		StillPlain int      `json:"still_plain"`
		Names      []string `json:"still_plain_names"`
		Next       string   `json:"next"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	for _, r := range v {
		fmt.Fprintf(w, "%s: plain = %q, %d devices sealed, %d still plain\n  next: %s\n", clean(r.Route), r.Plain, r.Sealed, r.StillPlain, r.Next)
		for _, n := range r.Names {
			fmt.Fprintln(w, "  plain:", clean(n))
		}
	}
	return nil
}
