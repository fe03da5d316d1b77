package gocoap

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
)

// observation is the client's side of an observation.
type observation struct {
	c        *Client
	w        *waiter
	cancel   context.CancelFunc
	canceled atomic.Bool
	done     chan struct{}
	f        func(*pool.Message)
}

var _ mux.Observation = (*observation)(nil)

// DoObserve registers an observation (RFC 7641) by a GET or FETCH with Observe
// 0, waits for the first response and calls f with it and with every later
// notification, in their order, one at a time, until the observation is
// cancelled, the server ends it, or the connection closes. The message is
// released when f returns, unless f hijacks it. Notifications that fail to
// verify or are older than one already taken are left out.
//
// A response without Observe means that the server does not notify: f is
// called once and the observation is over.
func (c *Client) DoObserve(req *pool.Message, f func(*pool.Message)) (_ mux.Observation, err error) {
	if v, err := req.Observe(); err != nil || v != 0 {
		return nil, errors.New("gocoap: DoObserve needs a request with Observe 0")
	}
	m, err := toOSCORE(req)
	if err != nil {
		return nil, err
	}
	turn, err := c.first.enter(req.Context())
	if err != nil {
		return nil, err
	}
	defer func() { err = turn.leave(err) }()
	w, step, err := c.ask(req.Context(), turn, m, req.Type(), nil)
	if err != nil {
		return nil, err
	}
	c.first.confirm()
	ctx, cancel := context.WithCancel(c.Context())
	o := &observation{c: c, w: w, cancel: cancel, done: make(chan struct{}), f: f}
	go o.run(ctx, step)
	return o, nil
}

// run hands notifications over until the observation ends.
func (o *observation) run(ctx context.Context, step endpoint.Step) {
	defer close(o.done)
	defer o.w.stop()
	defer o.canceled.Store(true)
	for {
		if step.Kind != endpoint.Notification && o.canceled.Load() {
			return // the answer to the cancellation
		}
		o.hand(ctx, step)
		if step.Kind != endpoint.Notification {
			return
		}
		var err error
		if step, err = o.w.next(ctx); err != nil {
			return
		}
	}
}

// hand calls f with one notification, once all its blocks are there.
func (o *observation) hand(ctx context.Context, step endpoint.Step) {
	m := step.Message
	if step.More != nil {
		// The body has further blocks: an exchange of its own. A newer
		// notification supersedes one whose blocks cannot be had.
		w := newWaiter(o.w.l, step.More, o.w.typ)
		defer w.stop()
		ctx, cancel := context.WithTimeout(ctx, exchangeLifetime)
		defer cancel()
		if err := w.l.gate.enter(ctx, true); err != nil {
			return
		}
		// The program may have taken its time: the message that came with the
		// step has aged.
		block, err := step.More.Reseal()
		if err != nil {
			w.l.gate.leave()
			return
		}
		if err := w.sendNew(ctx, block); err != nil {
			return
		}
		whole, err := w.next(ctx)
		if err != nil {
			return
		}
		m = whole.Message
	}
	msg, err := o.c.message(ctx, m)
	if err != nil {
		return
	}
	if o.canceled.Load() {
		o.c.ReleaseMessage(msg)
		return
	}
	o.f(msg)
	if !msg.IsHijacked() {
		o.c.ReleaseMessage(msg)
	}
}

// Cancel ends the observation with a protected request (RFC 7641 §3.6) and
// waits for its answer until the context ends; either way no further
// notification is handed over.
func (o *observation) Cancel(ctx context.Context, _ ...message.Option) error {
	if o.canceled.Swap(true) {
		return nil
	}
	defer o.cancel()
	if err := o.w.l.gate.enter(ctx, false); err != nil {
		return err
	}
	o.w.mu.Lock()
	m, err := o.w.x.Cancel(time.Now())
	token := message.Token(o.w.token)
	o.w.mu.Unlock()
	if err != nil {
		o.w.l.gate.leave()
		return nil // over already
	}
	if err := o.w.send(ctx, token, m); err != nil {
		return err
	}
	select {
	case <-o.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Canceled reports whether the observation is over.
func (o *observation) Canceled() bool { return o.canceled.Load() }
