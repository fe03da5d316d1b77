package keystest

import (
	"errors"
	"math/rand/v2"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// traffic sends requests both ways between an end on the store under test and
// one that never fails, over a network that delivers everything again and
// again, while the store's end crashes, stops and starts. It finds a number
// used twice, and a request accepted twice.
func traffic(r *run) {
	r.history()
	trafficOver(r, func(entry keys.Entry) (*keys.Keyring, *keys.Peer, error) {
		ring := keys.New(r.store)
		near, err := ring.AddNew(ctx, entry)
		return ring, near, err
	}, func(*keys.Keyring) error { return nil })
}

// evictions is traffic over a keyring that holds one peer, while another comes and
// goes.
func evictions(r *run) {
	if _, ok := r.store.(keys.Directory); !ok || r.s.Put == nil {
		r.Skip("the store is no Directory")
	}
	put := false
	trafficOver(r, func(entry keys.Entry) (*keys.Keyring, *keys.Peer, error) {
		if !put {
			other := entry
			other.Name, other.Params.MasterSecret, other.Params.RecipientID = "other", []byte("of another device"), []byte("o")
			if err := r.s.Put(entry, other); err != nil {
				return nil, nil, err
			}
			put = true
		}
		ring := keys.NewDirectory(r.store.(keys.Directory), keys.DirectoryOptions{Hot: 1, OnError: func(err error) { r.Error(err) }})
		near, ok := ring.Get(entry.Name)
		if !ok {
			return nil, nil, errors.New("keystest: an entry that was put is not found")
		}
		return ring, near, nil
	}, func(ring *keys.Keyring) error {
		p, ok := ring.Get("other")
		if !ok {
			return errors.New("keystest: an entry that was put is not found")
		}
		_, err := p.SealRequest(nil, new(oscore.Pending), oscore.Message{Code: 1})
		return err
	})
}

// trafficOver is traffic over the keyring that begin makes at each start, with
// something that disturbs it between the steps.
func trafficOver(r *run, begin func(keys.Entry) (*keys.Keyring, *keys.Peer, error), disturb func(*keys.Keyring) error) {
	rng := rand.New(rand.NewPCG(1, 2))
	entry := keys.Entry{Name: "device", Params: oscore.Params{
		MasterSecret: []byte("traffic with crashes"), SenderID: []byte("s"), RecipientID: []byte("c"),
	}}
	far, err := keys.New(keys.NewMemory()).AddNew(ctx, entry.Peer())
	if err != nil {
		r.Fatal(err)
	}
	var ring *keys.Keyring
	var near *keys.Peer
	start := func() {
		if ring, near, err = begin(entry); err != nil {
			r.Fatal(err)
		}
	}
	start()
	used, accepted := map[uint64]bool{}, map[uint64]bool{}
	spend := func(piv uint64) {
		if used[piv] {
			r.Fatalf("number %d was used twice", piv)
		}
		used[piv] = true
	}
	var network []oscore.Message
	var challenged *oscore.Request // what the near end asked an Echo for
	for range 3000 {
		if err := disturb(ring); err != nil {
			r.Fatal(err)
		}
		switch k := rng.IntN(100); {
		case k < 40: // the far end sends, maybe into the void
			var p oscore.Pending
			m, err := far.SealRequest(nil, &p, oscore.Message{Code: 1})
			if err != nil {
				r.Fatal(err)
			}
			network = append(network, m)
			if k < 10 {
				break
			}
			deliver(r, near, m, accepted, &challenged, spend)
		case k < 70 && len(network) > 0: // something comes again
			deliver(r, near, network[rng.IntN(len(network))], accepted, &challenged, spend)
		case k < 75 && challenged != nil:
			// The Echo comes back, in a request sent after the challenge.
			var p oscore.Pending
			m, err := far.SealRequest(nil, &p, oscore.Message{Code: 1})
			if err != nil {
				r.Fatal(err)
			}
			network = append(network, m)
			var q oscore.Request
			if _, err := near.OpenRequest(nil, &q, m); errors.Is(err, oscore.ErrUnproven) {
				if err := near.AcceptEcho(&q); err != nil {
					r.Fatal(err)
				}
				accepted[q.PartialIV()] = true
			} else if err == nil {
				accepted[q.PartialIV()] = true
			}
			challenged = nil
		case k < 97: // the near end sends
			var p oscore.Pending
			if _, err := near.SealRequest(nil, &p, oscore.Message{Code: 1}); err != nil {
				r.Fatal(err)
			}
			spend(p.PartialIV())
		default:
			clean := k == 97
			if clean {
				if err := ring.Close(ctx); err != nil {
					r.Fatal(err)
				}
			}
			challenged = nil
			r.restart(clean)
			start()
		}
	}
	if len(accepted) < 100 || len(used) < 100 {
		r.Fatalf("only %d requests accepted and %d numbers used: nothing was tested", len(accepted), len(used))
	}
	if err := ring.Close(ctx); err != nil {
		r.Fatal(err)
	}
}

func deliver(r *run, near *keys.Peer, m oscore.Message, accepted map[uint64]bool, challenged **oscore.Request, spend func(uint64)) {
	q := new(oscore.Request)
	_, err := near.OpenRequest(nil, q, m)
	switch {
	case err == nil:
		if accepted[q.PartialIV()] {
			r.Fatalf("request %d was accepted twice", q.PartialIV())
		}
		accepted[q.PartialIV()] = true
	case errors.Is(err, oscore.ErrUnproven):
		if *challenged != nil {
			return
		}
		out, err := near.SealChallenge(nil, q, []byte("echo"))
		if err != nil {
			r.Fatal(err)
		}
		opt, err := option(out)
		if err != nil {
			r.Fatal(err)
		}
		spend(opt.Sequence())
		*challenged = q
	case !errors.Is(err, oscore.ErrReplay):
		r.Fatal(err)
	}
}

// option returns the OSCORE option of a protected response, which is its first.
func option(m oscore.Message) (oscore.Option, error) {
	if len(m.Body) == 0 || m.Body[0]>>4 != 9 || m.Body[0]&15 > 12 {
		return oscore.Option{}, errors.New("keystest: no OSCORE option where one is due")
	}
	n := int(m.Body[0] & 15)
	return oscore.ParseOption(m.Body[1 : 1+n])
}
