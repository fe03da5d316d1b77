package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oscorelay/oscorelay/fragment"
	"github.com/oscorelay/oscorelay/fragment/fetch"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// sealedManifest returns a source that reads the manifest from a sealed
// resource, so that the one part of a download which cannot be checked block by
// block does not come from a mirror.
func sealedManifest(sio stdio, store storeFlags, peer, uri string) (fetch.ManifestSource, error) {
	to, err := parseTarget(uri)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, _ fragment.Name) (sign1 []byte, err error) {
		ks, err := store.open(ctx, sio)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, ks.Close()) }()
		if peer, err = ks.choose(peer); err != nil {
			return nil, err
		}
		r := requestFlags{peer: peer}
		c, err := r.dial(ks, to, peer, sio.err)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		req, err := r.build(ctx, c, codes.GET, to, nil)
		if err != nil {
			return nil, err
		}
		resp, err := c.Do(req)
		if err != nil {
			return nil, explainFailure(err, peer, to.address)
		}
		if resp.Code() != codes.Content {
			return nil, fmt.Errorf("%s answers %v", uri, resp.Code())
		}
		return resp.ReadBody()
	}, nil
}
