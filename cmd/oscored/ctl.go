package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const ctlUsage = `Usage: oscored ctl [-config FILE | -url URL -token-file FILE] [-json] VERB

  status                     routes, store, how many of what
  devices [NAME]             devices that were seen since the start
  stuck                      those that cannot go on, why, and what to do
  contexts [NAME]            contexts, without secrets; -tainted those that seal nothing
  contexts add [-fresh] [-replace] FILE
                             take keys in; -fresh: they were never used anywhere; - is standard input
  contexts remove NAME...    remove contexts; their sequence numbers stay known
  exchanges                  requests under way
  counters                   what was passed and what was refused, by reason
  migration                  devices that still speak without OSCORE
  reload                     read the configuration and the key files anew, as SIGHUP
  drain                      let requests under way end, then end, as SIGTERM

Without -config and -url: /etc/oscored/oscored.toml if it is there, else the demonstration.
`

// ctl is a client of the administration API.
type ctl struct {
	base  string
	token string
	http  *http.Client
	json  bool
	out   io.Writer
	in    io.Reader
}

// systemConfig is where the package puts the configuration.
const systemConfig = "/etc/oscored/oscored.toml"

// ctlFlags say where the administration API is.
type ctlFlags struct {
	config, url, tokenFile, ca string
	json                       bool
	limit                      int
}

func runCtl(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := doCtl(ctx, args, stdin, stdout)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errConfig):
		fmt.Fprintf(stderr, "oscored ctl: %v\nRun 'oscored ctl -h' for its verbs.\n", err)
		return exitConfig
	}
	fmt.Fprintln(stderr, "oscored ctl:", err)
	return exitFailed
}

// usagef is a mistake in the command line.
func usagef(format string, args ...any) error { return mistakeError{fmt.Sprintf(format, args...)} }

type mistakeError struct{ text string }

func (e mistakeError) Error() string        { return e.text }
func (e mistakeError) Is(target error) bool { return target == errConfig }

func doCtl(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	var f ctlFlags
	s := flag.NewFlagSet("ctl", flag.ContinueOnError)
	s.SetOutput(io.Discard) // errors are printed by runCtl
	s.Usage = func() {
		fmt.Fprint(stdout, ctlUsage, "\n")
		s.SetOutput(stdout)
		s.PrintDefaults()
		s.SetOutput(io.Discard)
	}
	s.StringVar(&f.config, "config", "", "the daemon's configuration `FILE`")
	s.StringVar(&f.url, "url", "", "the administration's `URL`, such as http://127.0.0.1:5680")
	s.StringVar(&f.tokenFile, "token-file", "", "`FILE` with the token")
	s.StringVar(&f.ca, "ca", "", "certificate `FILE` (PEM) to trust")
	s.BoolVar(&f.json, "json", false, "print JSON as the API gives it")
	s.IntVar(&f.limit, "limit", 100, "entries to list, at most 1000")
	fresh := s.Bool("fresh", false, "contexts add: the keys were never used anywhere, by any program, on any machine")
	replace := s.Bool("replace", false, "contexts add: put other keys in the place of those of the same name")
	tainted := s.Bool("tainted", false, "contexts: those alone that seal nothing")
	find := s.String("find", "", "devices, contexts: those alone whose name holds this `TEXT`")
	after := s.String("after", "", "devices, contexts: go on after this `NAME`")
	var rest []string
	for {
		if err := s.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return err
			}
			return usagef("%v", err)
		}
		if args = s.Args(); len(args) == 0 {
			break
		}
		rest, args = append(rest, args[0]), args[1:]
	}
	if len(rest) == 0 {
		return usagef("a verb is missing: status, devices, stuck, contexts, exchanges, counters, migration, reload, drain")
	}
	list := url.Values{"limit": {fmt.Sprint(f.limit)}}
	for k, v := range map[string]string{"q": *find, "after": *after} {
		if v != "" {
			list.Set(k, v)
		}
	}
	verb, operands := rest[0], rest[1:]
	one := func() (string, error) {
		switch len(operands) {
		case 0:
			return "?" + list.Encode(), nil
		case 1:
			return "/" + url.PathEscape(operands[0]), nil
		}
		return "", usagef("one name at most: oscored ctl %s NAME", verb)
	}
	if len(operands) > 0 && verb != "devices" && verb != "contexts" {
		return usagef("%s takes no argument: %q is one too many", verb, operands[0])
	}
	c := &ctl{json: f.json, out: stdout, in: stdin}
	if err := c.find(&f); err != nil {
		return err
	}
	switch verb {
	case "status":
		return c.show(ctx, "status", printStatus)
	case "devices":
		at, err := one()
		if err != nil {
			return err
		}
		return c.show(ctx, "devices"+at, printDevices)
	case "stuck":
		return c.show(ctx, "stuck?"+list.Encode(), printStuck)
	case "exchanges":
		return c.show(ctx, "exchanges?"+list.Encode(), printDevices)
	case "counters":
		return c.show(ctx, "counters", printCounters)
	case "migration":
		return c.show(ctx, "migration", printMigration)
	case "reload", "drain":
		_, err := c.call(ctx, "POST", verb, nil)
		if err == nil && !c.json {
			fmt.Fprintln(stdout, map[string]string{"reload": "reloaded", "drain": "the daemon ends when requests under way have ended"}[verb])
		}
		return err
	case "contexts":
		switch {
		case len(operands) > 0 && operands[0] == "add":
			if len(operands) != 2 {
				return usagef("one key file: oscored ctl contexts add FILE")
			}
			return c.add(ctx, operands[1], *fresh, *replace)
		case len(operands) > 0 && operands[0] == "remove":
			if len(operands) < 2 {
				return usagef("a name is missing: oscored ctl contexts remove NAME")
			}
			return c.remove(ctx, operands[1:])
		}
		if *tainted {
			list.Set("tainted", "1")
		}
		at, err := one()
		if err != nil {
			return err
		}
		return c.show(ctx, "contexts"+at, printContexts)
	}
	return usagef("unknown verb %q: status, devices, stuck, contexts, exchanges, counters, migration, reload, drain", verb)
}

// find finds the administration API: -url and -token-file, or the configuration.
func (c *ctl) find(f *ctlFlags) error {
	conf, err := f.load()
	if err != nil {
		return err
	}
	c.base = f.url
	if c.base == "" {
		c.base = conf.adminURL()
	}
	if c.base == "" {
		return usagef("the configuration has no administration API: [admin] listen is empty")
	}
	tokenFile := f.tokenFile
	if tokenFile == "" && conf != nil {
		tokenFile = tokenName(conf)
	}
	if tokenFile == "" {
		return usagef("-token-file is missing")
	}
	if c.token, err = readToken(tokenFile); err != nil {
		return fmt.Errorf("%w: a daemon that never ran has no token; one of another user needs that user (sudo -u oscored oscored ctl …)", err)
	}
	ca := f.ca
	if ca == "" && conf != nil {
		ca = conf.Admin.TLSCert
	}
	c.http = &http.Client{Timeout: time.Minute}
	if ca != "" {
		b, err := os.ReadFile(ca)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(b) {
			return fmt.Errorf("%s holds no certificate", ca)
		}
		c.http.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	}
	return nil
}

// load reads the configuration that names the API, nil if flags do.
func (f *ctlFlags) load() (*config, error) {
	name := f.config
	if name == "" {
		if f.url != "" {
			return nil, nil
		}
		if _, err := os.Stat(systemConfig); err == nil {
			name = systemConfig
		}
	}
	if name != "" {
		conf, _, err := readConfig(name)
		return conf, err
	}
	dir, err := stateDir()
	if err != nil {
		return nil, err
	}
	conf := newConfig()
	conf.Store.Dir = filepath.Join(dir, "store")
	return conf, nil
}

// adminURL is where a running daemon says that its administration is, else where
// the configuration puts it.
func (c *config) adminURL() string {
	if b, err := os.ReadFile(adminURLName(c)); err == nil {
		return strings.TrimSpace(string(b))
	}
	if c.Admin.Listen == "" {
		return ""
	}
	scheme := "http://"
	if c.Admin.TLSCert != "" {
		scheme = "https://"
	}
	return scheme + c.Admin.Listen
}

// call sends a request and returns the answer's body.
func (c *ctl) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.base, "/")+"/api/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: is the daemon running? systemctl status oscored", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(b, &e) != nil || e.Error == "" {
			e.Error = "answered " + resp.Status
		}
		return nil, errors.New(e.Error)
	}
	return b, nil
}

// show prints what a path answers, as JSON or for people.
func (c *ctl) show(ctx context.Context, path string, print func(io.Writer, []byte) error) error {
	b, err := c.call(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	if c.json {
		var out bytes.Buffer
		if err := json.Indent(&out, b, "", "  "); err != nil {
			return err
		}
		_, err = out.WriteTo(c.out)
		return err
	}
	return print(c.out, b)
}

func (c *ctl) add(ctx context.Context, file string, fresh, replace bool) error {
	var b []byte
	var err error
	if file == "-" {
		b, err = io.ReadAll(c.in)
	} else {
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return err
	}
	q := url.Values{"file": {file}}
	if fresh {
		q.Set("fresh", "1")
	}
	if replace {
		q.Set("replace", "1")
	}
	answer, err := c.call(ctx, "POST", "contexts?"+q.Encode(), b)
	if err != nil {
		return err
	}
	if c.json {
		_, err = c.out.Write(answer)
		return err
	}
	return printContexts(c.out, answer)
}

func (c *ctl) remove(ctx context.Context, names []string) error {
	for _, name := range names {
		if _, err := c.call(ctx, "DELETE", "contexts/"+url.PathEscape(name), nil); err != nil {
			return err
		}
		if !c.json {
			fmt.Fprintln(c.out, "removed", clean(name))
		}
	}
	return nil
}
