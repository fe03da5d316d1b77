package gocoap

import (
	"bytes"
	"slices"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
)

// toOSCORE returns the code and body of a go-coap message. Nothing of the
// result aliases it: go-coap recycles its messages.
func toOSCORE(m *pool.Message) (oscore.Message, error) {
	options := m.Options()
	if !slices.IsSortedFunc(options, byID) {
		options = slices.Clone(options)
		slices.SortStableFunc(options, byID)
	}
	var payload []byte
	if m.Body() != nil {
		var err error
		if payload, err = m.ReadBody(); err != nil {
			return oscore.Message{}, err
		}
	}
	n := len(payload) + 1
	for _, o := range options {
		n += len(o.Value) + 5
	}
	body := make([]byte, 0, n)
	var previous uint16
	for _, o := range options {
		body = coap.AppendOption(body, previous, uint16(o.ID), o.Value)
		previous = uint16(o.ID)
	}
	return oscore.Message{Code: byte(m.Code()), Body: coap.AppendPayload(body, payload)}, nil
}

func byID(a, b message.Option) int { return int(a.ID) - int(b.ID) }

// fromOSCORE fills a go-coap message in. It aliases the body.
func fromOSCORE(dst *pool.Message, m oscore.Message) error {
	dst.SetCode(codes.Code(m.Code))
	var options message.Options
	w := coap.Walk(m.Body)
	for w.Next() {
		options = append(options, message.Option{ID: message.OptionID(w.Number), Value: w.Value})
	}
	if err := w.Err(); err != nil {
		return err
	}
	dst.ResetOptionsTo(options)
	if payload := w.Payload(); payload != nil {
		dst.SetBody(bytes.NewReader(payload))
	} else {
		dst.SetBody(nil)
	}
	return nil
}
