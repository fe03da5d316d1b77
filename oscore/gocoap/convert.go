package gocoap

import (
	"bytes"
	"io"
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
	size := int64(0)
	if m.Body() != nil {
		var err error
		if size, err = m.BodySize(); err != nil {
			return oscore.Message{}, err
		}
	}
	n := int(size) + 1
	for _, o := range options {
		n += len(o.Value) + 5
	}
	body := make([]byte, 0, n)
	var previous uint16
	for _, o := range options {
		body = coap.AppendOption(body, previous, uint16(o.ID), o.Value)
		previous = uint16(o.ID)
	}
	if size == 0 {
		return oscore.Message{Code: byte(m.Code()), Body: body}, nil
	}
	if _, err := m.Body().Seek(0, io.SeekStart); err != nil {
		return oscore.Message{}, err
	}
	body = append(body, payloadMarker)
	from := len(body)
	body = body[:from+int(size)] // n has room for it
	if _, err := io.ReadFull(m.Body(), body[from:]); err != nil {
		return oscore.Message{}, err
	}
	return oscore.Message{Code: byte(m.Code()), Body: body}, nil
}

// payloadMarker ends the options (RFC 7252 §3).
const payloadMarker = 0xff

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
