package sim

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/sim/lwm2m"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// observerKey is what an observation is found by: who asked, under which token.
type observerKey struct{ peer, source, token string }

// observer is an observation of this device's resources.
type observer struct {
	d     *Device
	in    *incoming
	paths []lwm2m.Path
	base  lwm2m.Path

	mu      sync.Mutex // orders its notifications
	last    time.Time
	values  []lwm2m.Record // as last notified
	pending func() bool    // stops the timer of a change that waits for pmin
	overdue func() bool    // stops that of pmax
	over    bool
}

func keyOf(in *incoming) observerKey {
	k := observerKey{peer: in.Peer, token: in.Token}
	if in.Source != nil {
		k.source = in.Source.String()
	}
	return k
}

// observe registers an observation, in place of one by the same peer of the
// same token or of the same target (RFC 7641 §4.1).
func (d *Device) observe(in *incoming, paths []lwm2m.Path, base lwm2m.Path) bool {
	o := &observer{d: d, in: in, paths: paths, base: base, last: d.cfg.Clock.Now()}
	o.values, _ = d.objects.ReadPaths(paths) // the caller has read them
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return false
	}
	old := d.observers[keyOf(in)]
	d.observers[keyOf(in)] = o
	d.mu.Unlock()
	if old != nil {
		old.stop()
	}
	o.mu.Lock()
	o.schedule()
	o.mu.Unlock()
	return true
}

// unobserve ends an observation. A hop may have given the request another
// token: then it is the one of the same target.
func (d *Device) unobserve(in *incoming) {
	d.mu.Lock()
	k := keyOf(in)
	if d.observers[k] == nil {
		for other, o := range d.observers {
			if other.peer == k.peer && (k.peer != "" || other.source == k.source) &&
				o.in.Path == in.Path && o.in.Method == in.Method && slices.Equal(o.in.Payload, in.Payload) {
				k = other
			}
		}
	}
	o := d.observers[k]
	delete(d.observers, k)
	d.mu.Unlock()
	if o != nil {
		o.stop()
	}
}

func (o *observer) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
	o.stopTimersLocked()
}

func (o *observer) stopTimers() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopTimersLocked()
}

func (o *observer) stopTimersLocked() {
	for _, stop := range []*func() bool{&o.pending, &o.overdue} {
		if *stop != nil {
			(*stop)()
			*stop = nil
		}
	}
}

// Observers returns the paths that are observed.
func (d *Device) Observers() (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.observers {
		out = append(out, fmt.Sprint(o.paths))
	}
	slices.Sort(out)
	return out
}

// changed notifies who observes what changed.
func (d *Device) changed(c lwm2m.Change) {
	d.mu.Lock()
	observers := make([]*observer, 0, len(d.observers))
	for _, o := range d.observers {
		observers = append(observers, o)
	}
	d.mu.Unlock()
	for _, o := range observers {
		touched := slices.ContainsFunc(c.Paths, func(p lwm2m.Path) bool {
			return slices.ContainsFunc(o.paths, func(q lwm2m.Path) bool { return q.Holds(p) || p.Holds(q) })
		})
		if touched {
			o.changed()
		}
	}
	if c.Instances {
		d.TriggerUpdate()
	}
}

// attributes returns those in force: of a composite observation none but con.
func (o *observer) attributes() lwm2m.Attributes {
	if o.base.Depth() == 0 {
		return lwm2m.Attributes{}
	}
	return o.d.objects.Attributes(o.base)
}

// changed notifies now, or when pmin is over, if the change is worth it.
func (o *observer) changed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over || o.pending != nil {
		return
	}
	a := o.attributes()
	now, err := o.d.objects.ReadPaths(o.paths)
	if err == nil && len(now) == 1 && len(o.values) == 1 && !a.Worth(o.values[0].Value, now[0].Value) {
		return
	}
	least, _ := a.Periods()
	if wait := least - o.d.cfg.Clock.Now().Sub(o.last); wait > 0 {
		o.pending = o.d.cfg.Clock.AfterFunc(wait, o.due)
		return
	}
	o.notify(a)
}

// due notifies by a timer's order.
func (o *observer) due() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over {
		o.notify(o.attributes())
	}
}

// schedule sets the timer of pmax.
func (o *observer) schedule() {
	if _, most := o.attributes().Periods(); most > 0 {
		o.overdue = o.d.cfg.Clock.AfterFunc(most, o.due)
	}
}

// notify sends the state as it is. o.mu is held.
func (o *observer) notify(a lwm2m.Attributes) {
	o.stopTimersLocked()
	resp := o.d.read(o.paths, o.base, o.in.Accept, o.in.Method == codes.FETCH)
	resp.Observe = resp.Err() == nil
	o.last = o.d.cfg.Clock.Now()
	o.values, _ = o.d.objects.ReadPaths(o.paths) // an error ends the observation below
	confirm := o.d.cfg.Confirm
	if a.Confirm != nil {
		confirm = *a.Confirm
	}
	err := o.in.notify(resp, confirm)
	e := Event{Event: "notified", Path: o.in.Path, Code: CodeText(resp.Code), Bytes: len(resp.Payload)}
	if err != nil {
		e.Event, e.Error = "observation-ended", err.Error()
	}
	o.d.log.add(e)
	if err != nil || !resp.Observe {
		o.over = true
		go o.d.drop(o) // the caller may hold the device's lock order the other way round
		return
	}
	o.schedule()
}

// drop forgets an observation that is over.
func (d *Device) drop(o *observer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.observers[keyOf(o.in)] == o {
		delete(d.observers, keyOf(o.in))
	}
}
