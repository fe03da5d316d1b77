package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/bolt"
)

// registry holds the contexts: those of the key files, those that came by the
// administration API, their store and the keyring that routes use. The store knows
// which came from where.
type registry struct {
	store *bolt.Store
	ring  *keys.Keyring

	mu       sync.Mutex            // one change at a time
	forget   func(names ...string) // tells the routes, nil before they run
	progress func(done, of int)
	closed   bool
}

// openRegistry takes the key files into an open store and makes its keyring. The
// progress of a long import is told.
func openRegistry(ctx context.Context, store *bolt.Store, files *keyFiles, fresh bool, progress func(done, of int)) (r *registry, res bolt.Synced, err error) {
	r = &registry{store: store, progress: progress}
	if res, err = r.sync(ctx, files, fresh); err != nil {
		return nil, res, err
	}
	r.ring, err = store.Keyring(ctx)
	return r, res, err
}

// sync makes the store, and the keyring if it is open, hold what the key files
// do. What is wrong with the files changes nothing. Files that are as they were are
// read for that alone.
func (r *registry) sync(ctx context.Context, files *keyFiles, fresh bool) (res bolt.Synced, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !fresh {
		if same, err := files.unchanged(ctx, r.store); err != nil || same {
			return res, err
		}
	}
	res, err = r.store.Sync(ctx, files.all(), files.mark, bolt.ImportOptions{Fresh: fresh, Expected: files.estimate(), Progress: r.progress})
	var foreign *bolt.ForeignError
	switch {
	case errors.As(err, &foreign):
		return res, fmt.Errorf("%w: %s: context %q came by the administration API with other keys: "+
			"remove it there (oscored ctl contexts remove %s), or give this one another name", errConfig, foreign.Source, foreign.Name, foreign.Name)
	case errors.Is(err, keys.ErrDuplicate) || errors.Is(err, keys.ErrTainted):
		return res, fmt.Errorf("%w: %w", errConfig, err)
	case err != nil:
		return res, fmt.Errorf("%w: %w", errHalf, err)
	}
	if r.forget != nil {
		r.forget(append(res.Changed, res.Removed...)...)
	}
	return res, nil
}

// errHalf is of a look at the key files that was not refused, and did not come to
// its end: the next one, of a reload or a start, goes on.
var errHalf = errors.New("what is left to do comes with the next reload or start")

// put writes entries; the keyring sees them. The caller holds mu.
func (r *registry) put(ctx context.Context, fresh bool, entries []keys.Entry) error {
	err := r.store.Put(ctx, fresh, entries...)
	if errors.Is(err, keys.ErrDuplicate) || errors.Is(err, keys.ErrTainted) {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	if err == nil && r.forget != nil {
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

// add takes in contexts of the administration API.
func (r *registry) add(ctx context.Context, entries []keys.Entry, fresh, replace bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range entries {
		e := &entries[i]
		if file, err := r.store.Source(ctx, e.Name); err != nil {
			return err
		} else if file != "" {
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
		if file, err := r.store.Source(ctx, e.Name); err != nil || file == "" || !there || !sameKeys(&old, e) {
			return false, err
		}
		*e = old // its settings are those of the file
	}
	return true, r.put(ctx, true, entries)
}

// remove removes a context that came by the administration API.
func (r *registry) remove(ctx context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if file, err := r.store.Source(ctx, name); err != nil {
		return err
	} else if file != "" {
		return fmt.Errorf("%w: context %q comes from %s: remove it there and reload", keys.ErrDuplicate, name, file)
	}
	return r.drop(ctx, []string{name})
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
