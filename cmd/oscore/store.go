package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sort"
	"strings"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/keys/file"
)

// storeFlags say which key directory a command works with.
type storeFlags struct {
	dir     string
	anchors string
}

func (s *storeFlags) register(f *flag.FlagSet) {
	f.StringVar(&s.dir, "keys", "", "key `DIR` (default $OSCORE_HOME, else oscore in the user's configuration directory)")
	f.StringVar(&s.anchors, "anchors", "", "`DIR` of the anchors, which must not be copied or backed up with the keys (default $OSCORE_ANCHORS)")
}

// keyStore is an open key directory with its keyring.
type keyStore struct {
	*file.Store
	ring *keys.Keyring
}

// open opens the key directory. What taints its contexts is said, once.
func (s *storeFlags) open(ctx context.Context, io stdio) (*keyStore, error) {
	dir, o, err := keyPlaces(s.dir, s.anchors)
	if err != nil {
		return nil, err
	}
	st, err := file.Open(dir, o)
	if err != nil {
		return nil, err
	}
	warnTaint(io, st)
	ring, err := st.Keyring(ctx)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return &keyStore{st, ring}, nil
}

// Close hands the windows over and closes the directory.
func (k *keyStore) Close() error {
	return errors.Join(k.ring.Close(context.Background()), k.Store.Close())
}

// choose returns the peer of that name, or the only one if there is no name.
func (k *keyStore) choose(name string) (string, error) {
	var names []string
	for p := range k.ring.Peers() {
		names = append(names, p.Name())
	}
	sort.Strings(names)
	switch {
	case name != "":
		if _, ok := k.ring.Peer(name); !ok {
			return "", fmt.Errorf("%s has no peer %q; it has %s", k.Dir(), name, list(names))
		}
		return name, nil
	case len(names) == 0:
		return "", fmt.Errorf("%s has no keys: make some with 'oscore keys new', or bring them with 'oscore keys import'", k.Dir())
	case len(names) > 1:
		return "", usagef("which peer? name one with --peer: %s has %s", k.Dir(), list(names))
	}
	return names[0], nil
}

// list joins a few names.
func list(names []string) string {
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > 8:
		return strings.Join(names[:8], ", ") + fmt.Sprintf(" and %d more", len(names)-8)
	}
	return strings.Join(names, ", ")
}
