package sim

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
)

// Command is a line that a process reads. Which fields a command takes stands
// with DeviceHelp and ServerHelp.
type Command struct {
	ID       int               `json:"id"`
	Cmd      string            `json:"cmd"`
	Endpoint string            `json:"ep,omitempty"`
	Path     string            `json:"path,omitempty"`
	Paths    []string          `json:"paths,omitempty"`
	Format   *int              `json:"ct,omitempty"`
	Value    *string           `json:"value,omitempty"`  // in the plain text format
	Values   map[string]string `json:"values,omitempty"` // by path
	Payload  []byte            `json:"payload,omitempty"`
	Size     int               `json:"size,omitempty"`
	Mode     string            `json:"mode,omitempty"`
	Query    []string          `json:"query,omitempty"`
	Address  string            `json:"addr,omitempty"`
	Of       int               `json:"of,omitempty"`
	Timeout  int               `json:"timeout_ms,omitempty"`
	Awake    bool              `json:"awake,omitempty"`
	NON      bool              `json:"non,omitempty"`
}

// DeviceHelp describes the device's lines.
const DeviceHelp = `Commands, one JSON object a line; "id" comes back in the answer, "timeout_ms" bounds each:
  {"id":1,"cmd":"register"}  update  deregister  sleep  wake  quit
  {"id":1,"cmd":"set","path":"/3303/0/5700","value":"21.5"}   change a value, notify
  {"id":1,"cmd":"get","path":"/3/0/9"}                        its value as "text"
  {"id":1,"cmd":"send","paths":["/3/0/9"],"ct":112}           ct 112 (default) or 110
  {"id":1,"cmd":"executed","path":"/3/0/4"}                   how often, as "count"
  {"id":1,"cmd":"observers"}                                  how many, as "count"
  {"id":1,"cmd":"server","addr":"127.0.0.1:5683"}             talk to another address

Events: ready (addr), answer and error (id), registered (location), updated, unknown (4.04 to an
update), register-failed, update-failed, deregistered, sent, served (method, path, code, bytes,
sum, peer), executed (path, query: the arguments, count), package and installed (bytes, sum),
notified, observation-ended, asleep, awake, oscore (method: the reason).`

// ServerHelp describes the server's lines.
const ServerHelp = `Commands, one JSON object a line; "id" comes back in the answer, "timeout_ms" bounds each,
"awake":true waits for the device's next registration or update first, "non":true sends a NON:
  {"id":1,"cmd":"read","ep":"dev1","path":"/3/0","ct":112}    ct: 0 42 110 112 11542, or left out
  {"id":1,"cmd":"write","ep":"dev1","path":"/3/0/14","value":"+02:00","ct":0}
      or "payload":"<base64>", or "size":102400 for so many bytes of a pattern;
      "mode":"replace" (PUT, default) or "update" (POST)
  {"id":1,"cmd":"execute","ep":"dev1","path":"/3/0/4","value":"0='x'"}
  {"id":1,"cmd":"discover","ep":"dev1","path":"/3"}
  {"id":1,"cmd":"attributes","ep":"dev1","path":"/3303/0/5700","query":["pmin=1","gt=25"]}
  {"id":1,"cmd":"create","ep":"dev1","path":"/3303","ct":11542,"payload":"…"}   delete
  {"id":1,"cmd":"read-composite","ep":"dev1","paths":["/3/0/0","/6"],"ct":112}
  {"id":1,"cmd":"write-composite","ep":"dev1","values":{"/3/0/14":"+01:00"},"ct":112}
  {"id":7,"cmd":"observe","ep":"dev1","path":"/3303/0/5700"}  notifications carry id 7
  {"id":8,"cmd":"observe-composite","ep":"dev1","paths":["/3/0/9","/6"]}
  {"id":9,"cmd":"cancel","of":7}   "mode":"passive" resets the next notification instead (plain)
  {"id":1,"cmd":"clients"}  quit

Events: ready (addr), answer and error (id), registered, updated, deregistered, expired, sent
(ep, addr, peer, query, location, payload), refused, unknown (no such registration), unexpected,
notification (id, ep, path, code, payload), reset (of a response nobody asked for; addr), oscore
(method: the reason). Payloads: "payload" base64, "bytes", "sum" SHA-256, "text" where readable.`

// Serve reads commands until the input ends, the context does, or one says
// quit; each runs by itself, and its answer goes to say.
func Serve(ctx context.Context, in io.Reader, run func(context.Context, Command) (Event, error), say func(Event)) error {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	lines, ended := make(chan []byte), make(chan error, 1)
	go func() {
		s := bufio.NewScanner(in)
		s.Buffer(nil, 4<<20)
		for s.Scan() {
			select {
			case lines <- append([]byte(nil), s.Bytes()...):
			case <-ctx.Done():
				return
			}
		}
		ended <- s.Err()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case line := <-lines:
			var c Command
			if err := json.Unmarshal(line, &c); err != nil {
				say(Event{Event: "error", ID: c.ID, Error: fmt.Sprintf("command %.80q: %v", line, err)})
				continue
			}
			if c.Cmd == "quit" {
				say(Event{Event: "answer", ID: c.ID})
				return nil
			}
			running.Go(func() {
				ctx := ctx
				if c.Timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, time.Duration(c.Timeout)*time.Millisecond)
					defer cancel()
				}
				e, err := run(ctx, c)
				e.ID = c.ID
				if e.Event == "" {
					e.Event = "answer"
				}
				if err != nil {
					e = Event{Event: "error", ID: c.ID, Error: err.Error()}
				}
				say(e)
			})
		}
	}
}

func unknownCommand(c Command) error { return fmt.Errorf("unknown command %q; -h lists them", c.Cmd) }

// Command does what a line says.
func (d *Device) Command(ctx context.Context, c Command) (e Event, err error) {
	var path lwm2m.Path
	if path, err = lwm2m.ParsePath(c.Path); err != nil {
		return e, err
	}
	switch c.Cmd {
	case "register":
		err = d.Register(ctx)
		e.Location = d.Location()
	case "update", "wake":
		err = d.Update(ctx)
		e.Location = d.Location()
	case "deregister":
		err = d.Deregister(ctx)
	case "sleep":
		d.Sleep()
	case "set":
		err = d.set(path, c.Value)
	case "get":
		v, ok := d.objects.Get(path)
		if !ok {
			return e, fmt.Errorf("%w: %s", lwm2m.ErrNotFound, path)
		}
		e.Text = v.String()
	case "send":
		var paths []lwm2m.Path
		for _, s := range c.Paths {
			p, err := lwm2m.ParsePath(s)
			if err != nil {
				return e, err
			}
			paths = append(paths, p)
		}
		err = d.Send(ctx, c.format(lwm2m.SenMLCBOR), paths...)
	case "executed":
		e.Count = d.objects.Executed(path)
	case "observers":
		e.Count = len(d.Observers())
	case "server":
		err = d.SetServer(c.Address)
	default:
		err = unknownCommand(c)
	}
	return e, err
}

func (d *Device) set(path lwm2m.Path, value *string) error {
	if path.Depth() < 3 || value == nil {
		return fmt.Errorf("%w: set takes the path of a resource and a value", lwm2m.ErrBadRequest)
	}
	def, ok := d.objects.Resource(path.ID(0), path.ID(2))
	if !ok {
		return fmt.Errorf("%w: %s", lwm2m.ErrNotFound, path)
	}
	v, err := lwm2m.ParseText(def.Type, *value)
	if err != nil {
		return err
	}
	return d.objects.Set(path, v)
}

func (c Command) format(otherwise int) int {
	if c.Format == nil {
		return otherwise
	}
	return *c.Format
}

// Pattern returns n bytes that are easy to tell when one is lost or doubled.
func Pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// standard has the types of values for commands that hold them as text.
var standard = lwm2m.Standard(1, "U", 0, lwm2m.Security{})

// Command does what a line says.
func (s *Server) Command(ctx context.Context, c Command) (e Event, err error) {
	var r Request
	observe := false
	switch c.Cmd {
	case "clients":
		for _, r := range s.Registrations() {
			e.Clients = append(e.Clients, Event{
				Endpoint: r.Endpoint, Addr: r.Addr.String(), Peer: r.Peer, Location: "/rd/" + r.ID, Text: r.Links, Count: r.Updates,
			})
		}
		return e, nil
	case "cancel":
		o, ok := s.Observation(c.Of)
		switch {
		case !ok:
			return e, fmt.Errorf("no observation %d: \"of\" is the id of the observe command", c.Of)
		case c.Mode == "passive":
			return e, o.CancelPassively()
		}
		return e, o.Cancel(ctx)
	case "read":
		r = ReadRequest(c.Path, c.format(NoFormat))
	case "observe":
		r, observe = ReadRequest(c.Path, c.format(NoFormat)), true
	case "discover":
		r = DiscoverRequest(c.Path)
	case "write":
		r, err = c.write()
	case "execute":
		r = ExecuteRequest(c.Path, "")
		if c.Value != nil {
			r = ExecuteRequest(c.Path, *c.Value)
		}
	case "attributes":
		r = AttributesRequest(c.Path, c.Query...)
	case "create":
		r = CreateRequest(c.Path, c.format(lwm2m.TLV), c.Payload)
	case "delete":
		r = DeleteRequest(c.Path)
	case "read-composite":
		r, err = ReadCompositeRequest(c.format(lwm2m.SenMLCBOR), c.Paths...)
	case "observe-composite":
		r, err = ReadCompositeRequest(c.format(lwm2m.SenMLCBOR), c.Paths...)
		observe = true
	case "write-composite":
		var records []lwm2m.Record
		if records, err = c.records(); err == nil {
			r, err = WriteCompositeRequest(c.format(lwm2m.SenMLCBOR), records...)
		}
	default:
		err = unknownCommand(c)
	}
	if err != nil {
		return e, err
	}
	r.NON = c.NON
	var resp Response
	switch {
	case observe:
		_, resp, err = s.observeAs(ctx, c.ID, c.Endpoint, r, nil)
	case c.Awake:
		resp, err = s.DoAwake(ctx, c.Endpoint, r)
	default:
		resp, err = s.Do(ctx, c.Endpoint, r)
	}
	e.Endpoint, e.Path, e.Code, e.Location = c.Endpoint, c.Path, CodeText(resp.Code), resp.Location
	e.body(resp.Format, resp.Payload)
	return e, err
}

// write returns the request of a write command.
func (c Command) write() (Request, error) {
	mode := lwm2m.Replace
	switch c.Mode {
	case "", "replace":
	case "update":
		mode = lwm2m.Update
	default:
		return Request{}, fmt.Errorf("mode %q is neither replace nor update", c.Mode)
	}
	switch {
	case c.Value != nil:
		path, err := lwm2m.ParsePath(c.Path)
		if err != nil {
			return Request{}, err
		}
		format := c.format(lwm2m.Text)
		record, err := textRecord(path, *c.Value)
		if err != nil {
			return Request{}, err
		}
		payload, err := lwm2m.Encode(format, path, []lwm2m.Record{record})
		return WriteRequest(c.Path, mode, format, payload), err
	case c.Size > 0:
		return WriteRequest(c.Path, mode, c.format(lwm2m.Octets), Pattern(c.Size)), nil
	}
	return WriteRequest(c.Path, mode, c.format(lwm2m.Octets), c.Payload), nil
}

func textRecord(path lwm2m.Path, value string) (lwm2m.Record, error) {
	if path.Depth() < 3 {
		return lwm2m.Record{}, fmt.Errorf("%w: %s is no resource; send \"payload\" instead of \"value\"", lwm2m.ErrBadRequest, path)
	}
	def, ok := standard.Resource(path.ID(0), path.ID(2))
	if !ok {
		return lwm2m.Record{}, fmt.Errorf("%w: the type of %s is not known here; send \"payload\" instead of \"value\"", lwm2m.ErrNotFound, path)
	}
	v, err := lwm2m.ParseText(def.Type, value)
	return lwm2m.Record{Path: path, Value: v}, err
}

func (c Command) records() (out []lwm2m.Record, err error) {
	for _, k := range slices.Sorted(maps.Keys(c.Values)) {
		path, err := lwm2m.ParsePath(k)
		if err != nil {
			return nil, err
		}
		r, err := textRecord(path, c.Values[k])
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}
