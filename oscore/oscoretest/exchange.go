package oscoretest

import (
	"errors"
	"slices"

	"github.com/oscorelay/oscorelay/internal/endpoint"
	"github.com/oscorelay/oscorelay/oscore"
)

// Exchange is one request of a side and what comes of it. Further blocks and
// Echo round trips are steps of it.
type Exchange struct {
	side          *Side
	x             *endpoint.Exchange
	token         []byte
	last          oscore.Message
	answer        *Message
	notifications []Message
	refused       []error
	err           error
	of            *Exchange // whose notification this one completes
}

// Answer returns the verified answer; for an observation its first. The error
// is [ErrNoAnswer] together with the reasons of Refused while there is none, or
// what ended the exchange.
func (x *Exchange) Answer() (Message, error) {
	switch {
	case x.answer != nil:
		return *x.answer, nil
	case x.err != nil:
		return Message{}, x.err
	}
	return Message{}, errors.Join(append([]error{ErrNoAnswer}, x.refused...)...)
}

// Notifications returns the verified ones so far, without the first answer.
func (x *Exchange) Notifications() []Message { return slices.Clone(x.notifications) }

// Refused returns why messages under the request's token were not taken; a
// [*PlainError] for an unprotected one.
func (x *Exchange) Refused() []error { return slices.Clone(x.refused) }

// Retransmit sends the last message of the exchange again, the same bytes.
func (x *Exchange) Retransmit() {
	x.side.pair.t.Helper()
	if x.token == nil {
		return // nothing was sent
	}
	x.side.send(x.token, x.last)
	x.side.pair.Relay.run()
}

// Cancel ends an observation at the other end (RFC 7641 §3.6).
func (x *Exchange) Cancel() error {
	x.side.pair.t.Helper()
	if x.x == nil {
		return x.err
	}
	m, err := x.x.Cancel(x.side.pair.now)
	if err != nil {
		return err
	}
	x.answer = nil
	x.send(x.token, m)
	x.side.pair.Relay.run()
	_, err = x.Answer()
	return err
}

// send sends a message of the exchange under a token, which takes the place of
// the earlier one.
func (x *Exchange) send(token []byte, m oscore.Message) {
	if x.side.exchanges[string(x.token)] == x {
		delete(x.side.exchanges, string(x.token))
	}
	x.token, x.last = token, m
	x.side.exchanges[string(token)] = x
	x.side.send(token, m)
}

func (x *Exchange) fail(err error) {
	if x.answer == nil && x.err == nil {
		x.err = err
	}
}

// receive takes a message under the exchange's token.
func (x *Exchange) receive(m oscore.Message) {
	step := x.x.Receive(x.side.pair.now, m)
	switch step.Kind {
	case endpoint.Wait:
		err := step.Err
		if plain := new(endpoint.PlainError); errors.As(err, &plain) {
			err = &PlainError{Code(plain.Code)}
		}
		x.refused = append(x.refused, err)
	case endpoint.Send:
		token := x.token
		if !step.SameToken {
			token = x.side.token()
		}
		x.send(token, step.Message)
	case endpoint.Response:
		x.take(decode(step.Message))
		delete(x.side.exchanges, string(x.token))
	case endpoint.Notification:
		if step.More != nil {
			more := &Exchange{side: x.side, x: step.More, of: x}
			more.send(x.side.token(), step.Message)
			return
		}
		x.take(decode(step.Message))
	case endpoint.Failed:
		x.fail(step.Err)
	}
}

// take notes an answer or a notification.
func (x *Exchange) take(m Message) {
	if x.of != nil {
		x = x.of
	}
	if x.answer == nil {
		x.answer = &m
		return
	}
	x.notifications = append(x.notifications, m)
}
