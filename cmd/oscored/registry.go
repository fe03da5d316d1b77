package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/bolt"
)

// registry holds the contexts: those of the key files, those that came by the
// administration API, their store and the keyring that routes use.
type registry struct {
	store *bolt.Store
	ring  *keys.Keyring

	mu       sync.Mutex            // one change at a time
	sources  map[string]string     // names that came from key files, and which
	forget   func(names ...string) // tells the routes, nil before they run
	progress func(done, of int)
	closed   bool
}

// openRegistry takes the key files into an open store and makes its keyring. The
// progress of a long import is told.
func openRegistry(ctx context.Context, store *bolt.Store, files *keyFiles, fresh bool, progress func(done, of int)) (r *registry, res syncResult, err error) {
	r = &registry{store: store, sources: map[string]string{}, progress: progress}
	if err := r.loadSources(); err != nil {
		return nil, res, err
	}
	if files.unchanged && files.seen.Epoch+1 != store.Epoch() {
		// What was seen is not of this store's last start: it proves nothing.
		if files, err = readKeyFiles(files.names); err != nil {
			return nil, res, err
		}
	}
	if res, err = r.sync(ctx, files, fresh); err != nil {
		return nil, res, err
	}
	r.ring, err = store.Keyring(ctx)
	return r, res, err
}

// syncResult says what a look at the key files changed.
type syncResult struct {
	Added, Changed, Removed []string
}

// sync makes the store, and the keyring if it is open, hold what the key files
// do. What is wrong with the files changes nothing.
func (r *registry) sync(ctx context.Context, files *keyFiles, fresh bool) (res syncResult, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if files.unchanged {
		return res, r.end(files.seen)
	}
	var put []keys.Entry
	for i := range files.entries {
		e := &files.entries[i]
		old, there, err := r.store.Entry(ctx, e.Name)
		if err != nil {
			return res, err
		}
		switch _, ours := r.sources[e.Name]; {
		case !there:
			res.Added = append(res.Added, e.Name)
			put = append(put, *e)
		case reflect.DeepEqual(normal(&old), normal(e)):
			if fresh && r.tainted(ctx, e) != nil {
				put = append(put, *e)
			}
		case !ours && !sameKeys(&old, e):
			return res, fmt.Errorf("%w: %s: context %q came by the administration API with other keys: "+
				"remove it there (oscored ctl contexts remove %s), or give this one another name", errConfig, files.source[e.Name], e.Name, e.Name)
		default:
			res.Changed = append(res.Changed, e.Name)
			put = append(put, *e)
		}
	}
	for name := range r.sources {
		if _, still := files.source[name]; !still {
			if _, there, err := r.store.Entry(ctx, name); err != nil {
				return res, err
			} else if there {
				res.Removed = append(res.Removed, name)
			}
		}
	}
	slices.Sort(res.Removed)
	// What a start that is cut short from here on wrote is known as the files' by
	// the next one.
	both := maps.Clone(r.sources)
	maps.Copy(both, files.source)
	if err := r.begin(both); err != nil {
		return res, err
	}
	if err := r.exchange(ctx, fresh, put, res.Removed); err != nil {
		if errors.Is(err, errConfig) { // nothing was written
			return res, errors.Join(err, writeFile(r.sourcesName(), r.sources))
		}
		r.sources = both // as the note has it: the next look goes on from there
		return res, fmt.Errorf("%w: %w", errHalf, err)
	}
	r.sources = files.source
	if err := errors.Join(writeFile(r.sourcesName(), r.sources), r.end(files.seen)); err != nil {
		// What is noted is from before, and a look at the files finds them done.
		return res, fmt.Errorf("%w: the key files are taken in, the note of it cannot be written: %w", errHalf, err)
	}
	return res, nil
}

// errHalf is of a look at the key files that was not refused, and did not come to
// its end: the next one, of a reload or a start, goes on.
var errHalf = errors.New("what is left to do comes with the next reload or start")

// exchange writes entries and removes others. The caller holds mu.
func (r *registry) exchange(ctx context.Context, fresh bool, put []keys.Entry, removed []string) error {
	err := r.put(ctx, fresh, put)
	if !errors.Is(err, keys.ErrDuplicate) || len(removed) == 0 {
		if err == nil {
			err = r.drop(ctx, removed)
		}
		return err
	}
	// Perhaps what comes has the identifiers of what goes.
	if r.store.Len() <= manyEntries {
		if err := r.fits(ctx, put, removed); err != nil {
			return err
		}
	}
	var gone []keys.Entry
	for _, name := range removed {
		if e, there, err := r.store.Entry(ctx, name); err == nil && there {
			gone = append(gone, e)
		}
	}
	if err := r.drop(ctx, removed); err != nil {
		return err
	}
	if err := r.put(ctx, fresh, put); err != nil {
		return errors.Join(err, r.put(ctx, false, gone)) // their numbers are still known
	}
	return nil
}

// fits returns an error if entries would stand in each other's way when others
// are gone.
func (r *registry) fits(ctx context.Context, put []keys.Entry, removed []string) error {
	gone := map[string]bool{}
	for _, name := range removed {
		gone[name] = true
	}
	trial := keys.New(keys.NewMemory())
	add := func(e keys.Entry) error {
		if _, err := trial.Add(ctx, e); err != nil {
			return fmt.Errorf("%w: context %q: %w", errConfig, e.Name, err)
		}
		return nil
	}
	for _, e := range put {
		gone[e.Name] = true
		if err := add(e); err != nil {
			return err
		}
	}
	return r.store.Entries(ctx, func(e keys.Entry) error {
		if gone[e.Name] {
			return nil
		}
		return add(e)
	})
}

// manyEntries is from how many on an import is worth its files on disk.
const manyEntries = 10_000

// put writes entries; the keyring sees them. The caller holds mu.
func (r *registry) put(ctx context.Context, fresh bool, entries []keys.Entry) error {
	var err error
	switch {
	case len(entries) == 0:
		return nil
	case len(entries) < manyEntries:
		err = r.store.Put(ctx, fresh, entries...)
	default:
		err = r.store.Import(ctx, func(yield func(keys.Entry, error) bool) {
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
		}, bolt.ImportOptions{Fresh: fresh, Expected: len(entries), Progress: r.progress})
	}
	if errors.Is(err, keys.ErrDuplicate) || errors.Is(err, keys.ErrTainted) {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	// An import that broke off has written some of them.
	if (err == nil || len(entries) >= manyEntries) && r.forget != nil {
		names := make([]string, len(entries))
		for i := range entries {
			names[i] = entries[i].Name
		}
		r.forget(names...)
	}
	return err
}

// drop removes entries. The caller holds mu.
func (r *registry) drop(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if err := r.store.Remove(ctx, names...); err != nil {
		return err
	}
	if r.forget != nil {
		r.forget(names...)
	}
	return nil
}

// tainted returns why an entry's history is unknown, nil if it is known.
func (r *registry) tainted(ctx context.Context, e *keys.Entry) error {
	sender, _, err := keys.Identities(&e.Params)
	if err != nil {
		return err
	}
	return r.store.Known(ctx, sender[:])
}

// add takes in contexts of the administration API.
func (r *registry) add(ctx context.Context, entries []keys.Entry, fresh, replace bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range entries {
		e := &entries[i]
		if file, ok := r.sources[e.Name]; ok {
			return fmt.Errorf("%w: context %q comes from %s: change it there and reload", keys.ErrDuplicate, e.Name, file)
		}
		old, there, err := r.store.Entry(ctx, e.Name)
		if err != nil {
			return err
		}
		if there && !replace && !sameKeys(&old, e) {
			return fmt.Errorf("%w: there is a context %q with other keys: remove it first, or say replace", keys.ErrDuplicate, e.Name)
		}
	}
	return r.put(ctx, fresh, entries)
}

// declareFresh says of contexts of the key files that they were never used.
func (r *registry) declareFresh(ctx context.Context, entries []keys.Entry) (done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range entries {
		e := &entries[i]
		old, there, err := r.store.Entry(ctx, e.Name)
		if err != nil {
			return false, err
		}
		if _, ours := r.sources[e.Name]; !ours || !there || !sameKeys(&old, e) {
			return false, nil
		}
		*e = old // its settings are those of the file
	}
	return true, r.put(ctx, true, entries)
}

// remove removes a context that came by the administration API.
func (r *registry) remove(ctx context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if file, ok := r.sources[name]; ok {
		return fmt.Errorf("%w: context %q comes from %s: remove it there and reload", keys.ErrDuplicate, name, file)
	}
	return r.drop(ctx, []string{name})
}

// source returns the key file of a context, empty if it came by the API.
func (r *registry) source(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sources[name]
}

// close hands the replay windows over and closes the store.
func (r *registry) close() error {
	r.mu.Lock() // a change that is under way ends first
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	var err error
	if r.ring != nil {
		err = r.ring.Close(context.Background())
	}
	return errors.Join(err, r.store.Close())
}

// errProbe ends a transaction that was to change nothing.
var errProbe = errors.New("probe")

// healthy returns nil if the store would write, and else why it does not any
// more. It costs no write.
func (r *registry) healthy(ctx context.Context) error {
	if err := r.store.Update(ctx, func(*bolt.Tx) error { return errProbe }); !errors.Is(err, errProbe) {
		return err
	}
	return nil
}

// sameKeys reports whether two entries lead to the same keys.
func sameKeys(a, b *keys.Entry) bool {
	s1, r1, err1 := keys.Identities(&a.Params)
	s2, r2, err2 := keys.Identities(&b.Params)
	return err1 == nil && err2 == nil && s1 == s2 && r1 == r2
}

// normal is an entry as it is compared: the store gives absent and empty bytes
// back as they were, except where they mean the same.
func normal(e *keys.Entry) keys.Entry {
	c := e.Clone()
	p := &c.Params
	for _, b := range []*[]byte{&p.MasterSalt, &p.SenderID, &p.RecipientID} {
		if len(*b) == 0 {
			*b = nil
		}
	}
	return c
}
