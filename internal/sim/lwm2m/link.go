package lwm2m

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Links returns what a device registers (LwM2M Core §6.2.1): its objects and
// their instances, without those of security material.
func (o *Objects) Links() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	links := []string{fmt.Sprintf("</>;rt=\"oma.lwm2m\";ct=\"%d %d %d\"", SenMLJSON, SenMLCBOR, TLV)}
	for _, id := range slices.Sorted(maps.Keys(o.objects)) {
		d := o.objects[id]
		if d.Hidden {
			continue
		}
		if d.Version != "" || len(o.instances[id]) == 0 {
			links = append(links, fmt.Sprintf("</%d>%s", id, version(d)))
		}
		for _, iid := range slices.Sorted(maps.Keys(o.instances[id])) {
			links = append(links, fmt.Sprintf("</%d/%d>", id, iid))
		}
	}
	return strings.Join(links, ",")
}

func version(d *Object) string {
	if d.Version == "" {
		return ""
	}
	return ";ver=" + d.Version
}

// Discover returns the links below an object, an instance or a resource, with
// the attributes that were set (LwM2M Core §6.3.3).
func (o *Objects) Discover(path Path) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d, err := o.read(path)
	if err != nil {
		return "", err
	}
	if path.Depth() > 3 {
		return "", fmt.Errorf("%w: %s is too deep for Discover", ErrNotAllowed, path)
	}
	var links []string
	link := func(p Path, more string) {
		if path.Holds(p) {
			links = append(links, "<"+p.String()+">"+more+o.attributes[p].String())
		}
	}
	link(NewPath(d.ID), version(d))
	for _, iid := range slices.Sorted(maps.Keys(o.instances[d.ID])) {
		in := o.instances[d.ID][iid]
		link(NewPath(d.ID, iid), "")
		for _, rid := range slices.Sorted(maps.Keys(d.Resources)) {
			at, def := NewPath(d.ID, iid, rid), d.Resources[rid]
			res, has := in[rid]
			switch {
			case !has && def.Ops&E == 0:
			case def.Multiple:
				link(at, fmt.Sprintf(";dim=%d", len(res)))
				if path.Depth() == 3 {
					for _, k := range slices.Sorted(maps.Keys(res)) {
						link(at.Child(k), "")
					}
				}
			default:
				link(at, "")
			}
		}
	}
	return strings.Join(links, ","), nil
}
