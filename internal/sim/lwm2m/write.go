package lwm2m

import (
	"fmt"
	"slices"
)

// Mode is how a write treats what it does not name.
type Mode uint8

// The modes.
const (
	Replace Mode = iota // PUT: optional resources of the instance, and instances of the resource, that are not named go
	Update              // POST: what is not named stays
)

// Write writes records that a server sent to a path, all of them or none.
//
// Errors: ErrNotFound, ErrNotAllowed, ErrUnauthorized, ErrBadRequest.
func (o *Objects) Write(path Path, records []Record, mode Mode) error {
	c, err := o.write(path, records, mode)
	if err == nil {
		o.tell(c)
	}
	return err
}

func (o *Objects) write(path Path, records []Record, mode Mode) (c Change, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if path.Depth() == 1 || path.Depth() == 0 {
		return c, fmt.Errorf("%w: %s is no instance", ErrNotAllowed, path)
	}
	if path.Depth() > 2 {
		if def, ok := o.Resource(path.ID(0), path.ID(2)); ok && def.Ops&W != 0 && path.Depth() == 3 {
			// An optional resource that is not there yet can be written.
			if _, err := o.read(path.Up(2)); err != nil {
				return c, err
			}
		} else if _, err := o.read(path); err != nil {
			return c, err
		}
	} else if _, err := o.read(path); err != nil {
		return c, err
	}
	if err := o.check(records); err != nil {
		return c, err
	}
	if mode == Replace {
		c.Paths = o.makeRoom(path, records)
	}
	o.apply(&c, records)
	return c, nil
}

// WriteAll is Write-Composite: records of any instances (LwM2M Core §6.3.7).
func (o *Objects) WriteAll(records []Record) error {
	c, err := o.writeAll(records)
	if err == nil {
		o.tell(c)
	}
	return err
}

func (o *Objects) writeAll(records []Record) (c Change, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range records {
		if r.Path.Depth() < 3 {
			return c, fmt.Errorf("%w: %s is no resource", ErrBadRequest, r.Path)
		}
		if _, err := o.read(r.Path.Up(2)); err != nil {
			return c, err
		}
	}
	if err := o.check(records); err != nil {
		return c, err
	}
	o.apply(&c, records)
	return c, nil
}

// check reports whether a server may write each record.
func (o *Objects) check(records []Record) error {
	for _, r := range records {
		if r.Path.Depth() < 3 {
			continue // an empty instance
		}
		def, ok := o.Resource(r.Path.ID(0), r.Path.ID(2))
		empty := r.Value.Type == None && def.Multiple && r.Path.Depth() == 3
		switch {
		case !ok:
			return fmt.Errorf("%w: %s", ErrNotFound, r.Path)
		case def.Ops&W == 0:
			return fmt.Errorf("%w: %s is not writable", ErrNotAllowed, r.Path)
		case empty:
		case def.Multiple != (r.Path.Depth() == 4):
			return fmt.Errorf("%w: %s: only a multiple resource has instances, and its values are theirs", ErrBadRequest, r.Path)
		case def.Type != r.Value.Type:
			return fmt.Errorf("%w: %s holds %s", ErrBadRequest, r.Path, def.Type)
		}
	}
	return nil
}

func (o *Objects) apply(c *Change, records []Record) {
	for _, r := range records {
		switch {
		case r.Path.Depth() < 3:
		case r.Value.Type == None:
			o.instances[r.Path.ID(0)][r.Path.ID(1)][r.Path.ID(2)] = resource{}
			c.Paths = append(c.Paths, r.Path)
		case o.put(r.Path, r.Value) && !slices.Contains(c.Paths, r.Path):
			c.Paths = append(c.Paths, r.Path)
		}
	}
}

// makeRoom removes what a replacing write does not name.
func (o *Objects) makeRoom(path Path, records []Record) (gone []Path) {
	named := func(p Path) bool {
		return slices.ContainsFunc(records, func(r Record) bool { return p.Holds(r.Path) })
	}
	in := o.instances[path.ID(0)][path.ID(1)]
	for rid, res := range in {
		at, def := path.Up(2).Child(rid), o.objects[path.ID(0)].Resources[rid]
		switch {
		case def.Ops&W == 0 || path.Depth() == 4 || !path.Holds(at):
		case !named(at) && !def.Mandatory:
			delete(in, rid)
			gone = append(gone, at)
		case def.Multiple && named(at):
			for k := range res {
				if p := at.Child(k); !named(p) {
					delete(res, k)
					gone = append(gone, p)
				}
			}
		}
	}
	slices.SortFunc(gone, comparePaths)
	return gone
}

// Create makes instances of an object, from records that a server sent to its
// path; records of an ID that none has. It returns the instance.
func (o *Objects) Create(path Path, records []Record) (Path, error) {
	at, c, err := o.create(path, records)
	if err == nil {
		o.tell(c)
	}
	return at, err
}

func (o *Objects) create(path Path, records []Record) (at Path, c Change, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d, err := o.read(path)
	if err != nil {
		return at, c, err
	}
	if path.Depth() != 1 || !d.Many {
		return at, c, fmt.Errorf("%w: %s has no instances to create", ErrNotAllowed, path)
	}
	if len(records) == 0 {
		return at, c, fmt.Errorf("%w: no instance in the payload", ErrBadRequest)
	}
	at = records[0].Path.Up(2)
	for _, r := range records {
		if r.Path.Up(2) != at || r.Path.Depth() < 2 {
			return at, c, fmt.Errorf("%w: one instance at a time", ErrBadRequest)
		}
	}
	if _, exists := o.instances[d.ID][at.ID(1)]; exists {
		return at, c, fmt.Errorf("%w: %s exists", ErrBadRequest, at)
	}
	if err := o.check(records); err != nil {
		return at, c, err
	}
	o.instances[d.ID][at.ID(1)] = instance{}
	o.apply(&c, records)
	c.Instances, c.Paths = true, append(c.Paths, at)
	return at, c, nil
}

// Delete removes an instance.
func (o *Objects) Delete(path Path) error {
	o.mu.Lock()
	d, err := o.read(path)
	if err == nil && (path.Depth() != 2 || !d.Many) {
		err = fmt.Errorf("%w: %s cannot be deleted", ErrNotAllowed, path)
	}
	if err != nil {
		o.mu.Unlock()
		return err
	}
	delete(o.instances[path.ID(0)], path.ID(1))
	for p := range o.attributes {
		if path.Holds(p) {
			delete(o.attributes, p)
		}
	}
	o.mu.Unlock()
	o.tell(Change{Paths: []Path{path}, Instances: true})
	return nil
}

// Execute counts an execution and has it done.
func (o *Objects) Execute(path Path, arguments string) (count int, err error) {
	o.mu.Lock()
	_, err = o.read(path)
	if err == nil {
		if def, _ := o.Resource(path.ID(0), path.ID(2)); path.Depth() != 3 || def.Ops&E == 0 {
			err = fmt.Errorf("%w: %s is not executable", ErrNotAllowed, path)
		}
	}
	if err != nil {
		o.mu.Unlock()
		return 0, err
	}
	o.executed[path]++
	count, f := o.executed[path], o.execute
	o.mu.Unlock()
	if f != nil {
		err = f(path, arguments)
	}
	return count, err
}
