package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// handle answers a request of the server's.
func (d *Device) handle(in *incoming) Response {
	resp := d.answer(in)
	e := Event{Event: "served", Method: in.Method.String(), Path: in.Path, Peer: in.Peer, Code: CodeText(resp.Code), Bytes: len(in.Payload)}
	if in.Source != nil {
		e.Addr = in.Source.String()
	}
	if len(in.Query) > 0 {
		e.Query = in.Query[0]
	}
	if in.Format != NoFormat {
		e.Format = &in.Format
	}
	if len(in.Payload) > 0 {
		e.Sum = sum(in.Payload)
	}
	d.log.add(e)
	if d.cfg.Queue {
		d.wake() // the time to sleep runs from the last exchange
	}
	return resp
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func (d *Device) answer(in *incoming) Response {
	path, err := lwm2m.ParsePath(in.Path)
	if err != nil {
		return Response{Code: codes.NotFound, Format: NoFormat} // a path that is no LwM2M path
	}
	switch in.Method {
	case codes.GET:
		if in.Accept == lwm2m.LinkFormat {
			return d.discover(path)
		}
		return d.readOrObserve(in, []lwm2m.Path{path}, path)
	case codes.FETCH:
		paths, err := d.paths(in)
		if err != nil {
			return failure(err)
		}
		return d.readOrObserve(in, paths, lwm2m.Path{})
	case codes.PUT:
		if len(in.Payload) == 0 && in.Format == NoFormat {
			return changed(d.objects.SetAttributes(path, in.Query))
		}
		return d.write(in, path, lwm2m.Replace)
	case codes.POST:
		return d.post(in, path)
	case ipatch:
		records, err := lwm2m.Decode(composite(in.Format), lwm2m.Path{}, in.Payload, d.objects)
		if err == nil {
			err = d.objects.WriteAll(records)
		}
		return changed(err)
	case codes.DELETE:
		if err := d.objects.Delete(path); err != nil {
			return failure(err)
		}
		return Response{Code: codes.Deleted, Format: NoFormat}
	}
	return failure(lwm2m.ErrNotAllowed)
}

// composite refuses formats that composite operations do not have.
func composite(format int) int {
	if format != lwm2m.SenMLJSON && format != lwm2m.SenMLCBOR {
		return NoFormat
	}
	return format
}

func changed(err error) Response {
	if err != nil {
		return failure(err)
	}
	return Response{Code: codes.Changed, Format: NoFormat}
}

func (d *Device) discover(path lwm2m.Path) Response {
	links, err := d.objects.Discover(path)
	if err != nil {
		return failure(err)
	}
	return Response{Code: codes.Content, Format: lwm2m.LinkFormat, Payload: []byte(links)}
}

// paths returns what a composite read names.
func (d *Device) paths(in *incoming) ([]lwm2m.Path, error) {
	if in.Path != "/" {
		return nil, fmt.Errorf("%w: composite operations have no path", lwm2m.ErrNotAllowed)
	}
	records, err := lwm2m.Decode(composite(in.Format), lwm2m.Path{}, in.Payload, d.objects)
	if err != nil {
		return nil, err
	}
	var paths []lwm2m.Path
	for _, r := range records {
		if r.Value.Type != lwm2m.None {
			return nil, fmt.Errorf("%w: a composite read holds no values", lwm2m.ErrBadRequest)
		}
		paths = append(paths, r.Path)
	}
	return paths, nil
}

// readOrObserve answers GET and FETCH.
func (d *Device) readOrObserve(in *incoming, paths []lwm2m.Path, base lwm2m.Path) Response {
	resp := d.read(paths, base, in.Accept, in.Method == codes.FETCH)
	switch {
	case in.Observe == 1:
		d.unobserve(in)
	case in.Observe == 0 && resp.Err() == nil:
		resp.Observe = d.observe(in, paths, base)
	}
	return resp
}

// read encodes what is at the paths; base is the root for composite operations.
func (d *Device) read(paths []lwm2m.Path, base lwm2m.Path, accept int, many bool) Response {
	var records []lwm2m.Record
	var err error
	if many {
		records, err = d.objects.ReadPaths(paths)
	} else {
		records, err = d.objects.Read(base)
	}
	if err != nil {
		return failure(err)
	}
	format := accept
	if format == NoFormat {
		format = preferred(base, records)
	}
	payload, err := lwm2m.Encode(format, base, records)
	if err != nil {
		return failure(err)
	}
	return Response{Code: codes.Content, Format: format, Payload: payload}
}

// preferred is the format where the server asks for none.
func preferred(base lwm2m.Path, records []lwm2m.Record) int {
	switch {
	case base.Depth() == 0:
		return lwm2m.SenMLCBOR
	case len(records) != 1 || records[0].Path != base:
		return lwm2m.TLV
	case records[0].Value.Type == lwm2m.Opaque:
		return lwm2m.Octets
	}
	return lwm2m.Text
}

func (d *Device) write(in *incoming, path lwm2m.Path, mode lwm2m.Mode) Response {
	format := in.Format
	if format == NoFormat {
		format = lwm2m.Text
	}
	records, err := lwm2m.Decode(format, path, in.Payload, d.objects)
	if err == nil {
		err = d.objects.Write(path, records, mode)
	}
	if err == nil {
		d.firmware(path, records)
	}
	return changed(err)
}

// post tells Execute, Write and Create apart (LwM2M Core §6.3).
func (d *Device) post(in *incoming, path lwm2m.Path) Response {
	switch path.Depth() {
	case 1:
		format := in.Format
		if format == NoFormat {
			format = lwm2m.TLV
		}
		records, err := lwm2m.Decode(format, path, in.Payload, d.objects)
		if err != nil {
			return failure(err)
		}
		at, err := d.objects.Create(path, records)
		if err != nil {
			return failure(err)
		}
		return Response{Code: codes.Created, Format: NoFormat, Location: at.String()}
	case 3:
		if def, ok := d.objects.Resource(path.ID(0), path.ID(2)); ok && def.Ops&lwm2m.E == 0 {
			return d.write(in, path, lwm2m.Update)
		}
		_, err := d.objects.Execute(path, string(in.Payload))
		return changed(err)
	}
	return d.write(in, path, lwm2m.Update)
}

// The states and results of Object 5.
const (
	firmwareIdle       = 0
	firmwareDownloaded = 2
	firmwareSuccess    = 1
)

// firmware follows the state machine of Object 5 when a package is written: an
// empty one resets it.
func (d *Device) firmware(path lwm2m.Path, records []lwm2m.Record) {
	if path.ID(0) != 5 {
		return
	}
	i := slices.IndexFunc(records, func(r lwm2m.Record) bool { return r.Path.ID(2) == 0 })
	if i < 0 {
		return
	}
	state := int64(firmwareDownloaded)
	b := records[i].Value.Bytes
	if len(b) == 0 {
		state = firmwareIdle
	}
	d.log.add(Event{Event: "package", Path: records[i].Path.String(), Bytes: len(b), Sum: sum(b)})
	d.firmwareState(path, state, 0)
}

func (d *Device) firmwareState(path lwm2m.Path, state, result int64) {
	at := path.Up(2)
	_ = d.objects.Set(at.Child(3), lwm2m.Int(state)) // a device without these resources has no state
	_ = d.objects.Set(at.Child(5), lwm2m.Int(result))
}

// install executes Update of Object 5: the package becomes the firmware.
func (d *Device) install(path lwm2m.Path) error {
	at := path.Up(2)
	if state, ok := d.objects.Get(at.Child(3)); !ok || state.Int != firmwareDownloaded {
		return fmt.Errorf("%w: no package was downloaded", lwm2m.ErrPreconditionState)
	}
	pkg, _ := d.objects.Get(at.Child(0))
	version := "fw-" + sum(pkg.Bytes)[:16]
	_ = d.objects.Set(lwm2m.MustPath("/3/0/3"), lwm2m.Str(version)) // as above
	_ = d.objects.Set(at.Child(0), lwm2m.Bytes(nil))
	d.firmwareState(path, firmwareIdle, firmwareSuccess)
	d.log.add(Event{Event: "installed", Text: version, Bytes: len(pkg.Bytes), Sum: sum(pkg.Bytes)})
	return nil
}
