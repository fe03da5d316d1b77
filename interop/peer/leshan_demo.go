package peer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// LeshanDemo starts Leshan's demo server 2.0.0-M4 as published, with its web
// page, REST interface and event stream. It has no composite operations there.
func LeshanDemo(t testing.TB) *Leshan {
	t.Helper()
	coap, coaps, web := FreePort(t), FreePort(t), FreePort(t)
	l := &Leshan{Addr: Loopback(coap), Page: "http://" + Loopback(web).String(), events: newEventLog()}
	d := demo{l}
	l.call = d.call
	l.Process = Start(t, javaSpec(t, "Leshan demo M4", "leshan-demo", []string{
		// On Java 17 its JSON library reaches into java.util.
		"--add-opens", "java.base/java.util=ALL-UNNAMED", "--add-opens", "java.base/java.lang=ALL-UNNAMED",
		"-Dlogback.configurationFile=" + source(t, "leshan-demo", "logback.xml"),
	}, "org.eclipse.leshan.server.demo.LeshanServerDemo",
		"-lh", "127.0.0.1", "-lp", decimal(coap), "-slh", "127.0.0.1", "-slp", decimal(coaps), "-wh", "127.0.0.1", "-wp", decimal(web)))
	l.await("the REST interface", func() bool {
		_, err := d.clients()
		return err == nil
	})
	l.AwaitPing(coap)
	d.listen(t, "", d.probe)
	return l
}

// probe registers a device, and deregisters it: that gives an event.
func (d demo) probe(t testing.TB) {
	t.Helper()
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(d.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func(b []byte) Message {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		in := make([]byte, 1<<10)
		if err := c.SetReadDeadline(time.Now().Add(leshanPatience)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(in)
		if err != nil {
			t.Fatalf("%s: %v", d.name, err)
		}
		m, err := ParseMessage(in[:n])
		if err != nil {
			t.Fatalf("%s: %v: %x", d.name, err, in[:n])
		}
		return m
	}
	// CON POST /rd?ep=probe&lt=60&lwm2m=1.0 </3>, then CON DELETE of what it made.
	m := ask([]byte("\x41\x02\x00\x01p\xb2rd\x48ep=" + probeName + "\x05lt=60\x09lwm2m=1.0\xff</3>"))
	if Dotted(m.Code) != "2.01" {
		t.Fatalf("%s: the probe got %s %q", d.name, m, m.Payload)
	}
	bye := []byte("\x41\x04\x00\x02p")
	delta := byte(OptUriPath)
	for _, o := range m.Options {
		if o.Number == OptLocationPath && len(o.Value) < 13 {
			bye = append(append(bye, delta<<4|byte(len(o.Value))), o.Value...)
			delta = 0
		}
	}
	ask(bye)
}

// probeName is the endpoint name of the harness's own device; its events are
// nobody's.
const probeName = "probe"

// Trace has the demo server tell of the CoAP messages that it exchanges with a
// device that is registered. Its page shows a Send (/dp) nowhere else.
func (l *Leshan) Trace(t testing.TB, ep string) {
	t.Helper()
	if l.Page != "" {
		demo{l}.listen(t, ep, func(t testing.TB) { l.Read(t, ep, "/3/0/0") })
	}
}

type demo struct{ *Leshan }

func (d demo) call(c LeshanCommand) (LeshanReply, error) {
	at := "/api/clients/" + url.PathEscape(c.Endpoint) + c.Path
	switch c.Op {
	case "clients":
		all, err := d.clients()
		return LeshanReply{Clients: all}, err
	case "read":
		return d.rest(http.MethodGet, at, c, nil)
	case "discover":
		return d.rest(http.MethodGet, at+"/discover", c, nil)
	case "observe":
		return d.rest(http.MethodPost, at+"/observe", c, nil)
	case "cancel": // the interface does not say how many there were
		r, err := d.rest(http.MethodDelete, at+"/observe", c, nil)
		r.Cancelled = 1
		return r, err
	case "execute":
		return d.rest(http.MethodPost, at, c, nil)
	case "delete":
		return d.rest(http.MethodDelete, at, c, nil)
	case "write":
		value := c.Value
		if c.Opaque != "" {
			value = c.Opaque
		}
		return d.rest(http.MethodPut, at, c, resource(c.Path, value))
	case "create": // the path is that of the new instance's one resource
		object := "/api/clients/" + url.PathEscape(c.Endpoint) + path.Dir(path.Dir(c.Path))
		instance, _ := strconv.Atoi(path.Base(path.Dir(c.Path)))
		return d.rest(http.MethodPost, object, c, map[string]any{"id": instance, "resources": []any{resource(c.Path, c.Value)}})
	}
	return LeshanReply{}, fmt.Errorf("the demo server has no %s", c.Op)
}

func resource(at, value string) map[string]any {
	id, _ := strconv.Atoi(path.Base(at))
	return map[string]any{"id": id, "value": value}
}

// node is a resource, an instance or an object in the demo's JSON.
type node struct {
	ID        int            `json:"id"`
	Value     any            `json:"value"`
	Values    map[string]any `json:"values"`
	Resources []node         `json:"resources"`
	Instances []node         `json:"instances"`
}

func (n node) flatten(at string) map[string]string {
	all := map[string]string{}
	if n.Value != nil {
		all[at] = fmt.Sprint(n.Value)
	}
	for id, v := range n.Values {
		all[at+"/"+id] = fmt.Sprint(v)
	}
	for _, below := range append(n.Resources, n.Instances...) {
		maps.Copy(all, below.flatten(at+"/"+strconv.Itoa(below.ID)))
	}
	return all
}

func (d demo) rest(method, at string, c LeshanCommand, body any) (LeshanReply, error) {
	q := url.Values{"timeout": {strconv.FormatInt(c.Timeout, 10)}}
	if c.Format != "" {
		q.Set("format", c.Format)
	}
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return LeshanReply{}, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, d.Page+at+"?"+q.Encode(), in)
	if err != nil {
		return LeshanReply{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	status, text, err := fetch(req, time.Duration(c.Timeout)*time.Millisecond+leshanPatience)
	if err != nil {
		return LeshanReply{}, err
	}
	if len(text) == 0 { // the end of an observation
		return LeshanReply{}, nil
	}
	var answer struct {
		Status       string
		Content      *node
		ObjectLinks  []struct{ URL string }
		ErrorMessage string
	}
	if status >= 300 || json.Unmarshal(text, &answer) != nil {
		return LeshanReply{Error: fmt.Sprintf("HTTP %d: %s", status, text)}, nil
	}
	r := LeshanReply{Code: code(answer.Status), Message: answer.ErrorMessage}
	if answer.Content != nil {
		r.Values = answer.Content.flatten(c.Path)
	}
	for _, l := range answer.ObjectLinks {
		r.Links = append(r.Links, l.URL)
	}
	return r, nil
}

// code reads "CONTENT(205)".
func code(status string) int {
	_, s, _ := strings.Cut(status, "(")
	n, _ := strconv.Atoi(strings.TrimSuffix(s, ")"))
	return n
}

func fetch(req *http.Request, within time.Duration) (status int, body []byte, err error) {
	res, err := (&http.Client{Timeout: within}).Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// demoClient is a registration in the demo's JSON.
type demoClient struct {
	Endpoint       string
	RegistrationID string
	Address        string
	QueueMode      bool
}

func (d demo) clients() ([]LeshanClient, error) {
	req, err := http.NewRequest(http.MethodGet, d.Page+"/api/clients", nil)
	if err != nil {
		return nil, err
	}
	status, body, err := fetch(req, time.Second)
	if err != nil {
		return nil, err
	}
	var all []demoClient
	if err := json.Unmarshal(body, &all); status != http.StatusOK || err != nil {
		return nil, fmt.Errorf("HTTP %d: %s: %v", status, body, err)
	}
	var clients []LeshanClient
	for _, c := range all {
		clients = append(clients, LeshanClient{Endpoint: c.Endpoint, Registration: c.RegistrationID, Address: c.Address, Queue: c.QueueMode})
	}
	return clients, nil
}

// listen takes the event stream (server-sent events), of all devices or with
// the CoAP messages of one. The server answers before it begins to send
// events: listen has something happen until it hears of it.
func (d demo) listen(t testing.TB, ep string, happen func(testing.TB)) {
	t.Helper()
	q := ""
	if ep != "" {
		q = "?ep=" + url.QueryEscape(ep)
	}
	req, err := http.NewRequest(http.MethodGet, d.Page+"/api/event"+q, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	heard := make(chan struct{})
	go func() {
		s := bufio.NewScanner(res.Body)
		s.Buffer(nil, 1<<20)
		kind, once := "", sync.Once{}
		for s.Scan() {
			key, value, _ := strings.Cut(s.Text(), ": ")
			switch {
			case key == "event":
				kind = value
			case key == "data" && (kind == "COAPLOG") == (ep != ""):
				once.Do(func() { close(heard) })
				if e, ok := demoEvent(kind, value); ok && e.Endpoint != probeName {
					d.events.add(e)
				}
			}
		}
		if ep == "" {
			d.events.close(io.EOF)
		}
	}()
	again, late := time.NewTicker(100*time.Millisecond), time.After(startPatience)
	defer again.Stop()
	for {
		happen(t)
		select {
		case <-heard:
			return
		case <-again.C:
		case <-late:
			t.Fatalf("%s sends no events", d.name)
		}
	}
}

// demoEvent translates an event of the demo server.
func demoEvent(kind, data string) (LeshanEvent, bool) {
	var v struct {
		demoClient
		Registration *demoClient // of an update
		EP, Res      string      // of the others
		Val          node

		Incoming      bool
		Code, Options string
		Payload       string
	}
	if json.Unmarshal([]byte(data), &v) != nil {
		return LeshanEvent{}, false
	}
	e := LeshanEvent{Endpoint: v.EP}
	if v.Registration != nil {
		v.demoClient = *v.Registration
	}
	switch kind {
	case "REGISTRATION":
		e.Kind, e.Endpoint, e.Address = "registered", v.Endpoint, v.Address
	case "UPDATED":
		e.Kind, e.Endpoint, e.Address = "updated", v.Endpoint, v.Address
	case "DEREGISTRATION":
		e.Kind, e.Endpoint = "deregistered", v.Endpoint
	case "SLEEPING", "AWAKE":
		e.Kind = strings.ToLower(kind)
	case "NOTIFICATION":
		e.Kind, e.Path, e.Values = "notification", v.Res, v.Val.flatten(v.Res)
	case "COAPLOG":
		if !v.Incoming || v.Code != "POST" || !strings.HasPrefix(v.Options, `Uri-Path: "dp"`) {
			return e, false
		}
		e.Kind, e.Value = "send", strings.TrimPrefix(v.Payload, "Hex:")
	default:
		return e, false
	}
	return e, true
}
