package lwm2m

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Ops are the operations that a server may do on a resource.
type Ops uint8

// The operations.
const (
	R Ops = 1 << iota
	W
	E
	RW = R | W
)

// Definition is what an object's definition says of a resource.
type Definition struct {
	Name      string
	Type      Type
	Ops       Ops
	Multiple  bool
	Mandatory bool
}

// Object is the definition of an object.
type Object struct {
	ID      uint16
	Version string // "" is 1.0
	// Hidden objects are not for servers: security material.
	Hidden bool
	// Many allows servers to create and delete instances.
	Many      bool
	Resources map[uint16]Definition
}

// resource holds values by resource instance; a single one's is 0.
type resource map[uint16]Value

type instance map[uint16]resource

// Objects is the tree of a device. It is safe for concurrent use.
type Objects struct {
	mu         sync.Mutex
	objects    map[uint16]*Object
	instances  map[uint16]map[uint16]instance
	attributes map[Path]Attributes
	executed   map[Path]int
	hooks      []func(Change)
	execute    func(path Path, arguments string) error
}

// Change tells of values that changed, or of instances that came or went.
type Change struct {
	Paths     []Path // of resources, or of instances
	Instances bool   // the list of instances changed: it has to be registered
}

// NewObjects returns a tree of the definitions without instances.
func NewObjects(defs ...*Object) *Objects {
	o := &Objects{objects: map[uint16]*Object{}, instances: map[uint16]map[uint16]instance{}, attributes: map[Path]Attributes{}, executed: map[Path]int{}}
	for _, d := range defs {
		o.objects[d.ID] = d
		o.instances[d.ID] = map[uint16]instance{}
	}
	return o
}

// OnChange has f called after each change, without locks held.
func (o *Objects) OnChange(f func(Change)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hooks = append(o.hooks, f)
}

// OnExecute has f called for each execution, after it was counted.
func (o *Objects) OnExecute(f func(path Path, arguments string) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.execute = f
}

// Resource implements Types.
func (o *Objects) Resource(object, id uint16) (Definition, bool) {
	d := o.objects[object]
	if d == nil {
		return Definition{}, false
	}
	def, ok := d.Resources[id]
	return def, ok
}

// Set sets a resource, or a resource instance, as the device itself does:
// whatever servers may do. Instances on the way are made. The value's type
// must be the definition's.
func (o *Objects) Set(path Path, v Value) error {
	change, err := o.set(path, v)
	if err == nil {
		o.tell(change)
	}
	return err
}

func (o *Objects) set(path Path, v Value) (c Change, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if path.Depth() < 3 {
		return c, fmt.Errorf("%w: %s is no resource", ErrBadRequest, path)
	}
	def, ok := o.Resource(path.ID(0), path.ID(2))
	switch {
	case !ok:
		return c, fmt.Errorf("%w: %s", ErrNotFound, path)
	case def.Type != v.Type:
		return c, fmt.Errorf("%w: %s holds %s", ErrBadRequest, path, def.Type)
	case def.Multiple != (path.Depth() == 4):
		return c, fmt.Errorf("%w: %s: only a multiple resource has instances, and its values are theirs", ErrBadRequest, path)
	}
	c.Instances = o.instances[path.ID(0)][path.ID(1)] == nil
	if o.put(path, v) || c.Instances {
		c.Paths = []Path{path}
	}
	return c, nil
}

// put stores a value and reports whether it differs from what was there.
func (o *Objects) put(path Path, v Value) bool {
	in := o.instances[path.ID(0)][path.ID(1)]
	if in == nil {
		in = instance{}
		o.instances[path.ID(0)][path.ID(1)] = in
	}
	res := in[path.ID(2)]
	if res == nil {
		res = resource{}
		in[path.ID(2)] = res
	}
	old, had := res[path.ID(3)]
	res[path.ID(3)] = v
	return !had || !old.Equal(v)
}

func (o *Objects) tell(c Change) {
	if len(c.Paths) == 0 && !c.Instances {
		return
	}
	o.mu.Lock()
	hooks := slices.Clone(o.hooks)
	o.mu.Unlock()
	for _, f := range hooks {
		f(c)
	}
}

// Get returns a single value, as the device itself reads it.
func (o *Objects) Get(path Path) (Value, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	v, ok := o.instances[path.ID(0)][path.ID(1)][path.ID(2)][path.ID(3)]
	return v, ok && path.Depth() >= 3
}

// Executed returns how often a resource was executed.
func (o *Objects) Executed(path Path) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.executed[path]
}

// Read returns what a server may read at a path, in the order of paths.
//
// Errors: ErrNotFound, ErrNotAllowed, ErrUnauthorized.
func (o *Objects) Read(path Path) ([]Record, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.read(path); err != nil {
		return nil, err
	}
	records, readable := o.collect(path)
	if len(records) == 0 && path.Depth() >= 3 && !readable {
		return nil, fmt.Errorf("%w: %s is not readable", ErrNotAllowed, path)
	}
	return records, nil
}

// ReadPaths returns what a server may read at any of the paths; those that do
// not exist are left out (LwM2M Core §6.3.2), unless none does.
func (o *Objects) ReadPaths(paths []Path) ([]Record, error) {
	var out []Record
	var first error
	for _, p := range paths {
		records, err := o.Read(p)
		if err != nil && first == nil {
			first = err
		}
		out = append(out, records...)
	}
	if len(out) == 0 && first != nil {
		return nil, first
	}
	return out, nil
}

// read checks that a path exists and is for servers.
func (o *Objects) read(path Path) (*Object, error) {
	missing := fmt.Errorf("%w: %s", ErrNotFound, path)
	if path.Depth() == 0 {
		return nil, fmt.Errorf("%w: the root", ErrNotAllowed)
	}
	d := o.objects[path.ID(0)]
	switch {
	case d == nil:
		return nil, missing
	case d.Hidden:
		return nil, fmt.Errorf("%w: %s", ErrUnauthorized, path)
	case path.Depth() == 1:
		return d, nil
	}
	in, ok := o.instances[path.ID(0)][path.ID(1)]
	if !ok {
		return nil, missing
	}
	if path.Depth() == 2 {
		return d, nil
	}
	def, ok := d.Resources[path.ID(2)]
	if !ok {
		return nil, missing
	}
	res, ok := in[path.ID(2)]
	if !ok && def.Ops&E == 0 {
		return nil, missing
	}
	if _, has := res[path.ID(3)]; path.Depth() == 4 && (!def.Multiple || !has) {
		return nil, missing
	}
	return d, nil
}

// collect returns the readable records below a path that exists.
func (o *Objects) collect(path Path) (records []Record, readable bool) {
	d := o.objects[path.ID(0)]
	for _, iid := range slices.Sorted(maps.Keys(o.instances[d.ID])) {
		for _, rid := range slices.Sorted(maps.Keys(o.instances[d.ID][iid])) {
			at, def := NewPath(d.ID, iid, rid), d.Resources[rid]
			if def.Ops&R == 0 || !at.Holds(path) && !path.Holds(at) {
				continue
			}
			readable = true
			res := o.instances[d.ID][iid][rid]
			if !def.Multiple {
				records = append(records, Record{at, res[0]})
				continue
			}
			for _, k := range slices.Sorted(maps.Keys(res)) {
				if p := at.Child(k); path.Holds(p) {
					records = append(records, Record{p, res[k]})
				}
			}
		}
	}
	return records, readable
}
