package gocoap

import (
	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
)

const (
	optionOSCORE message.OptionID = message.OptionID(coap.OSCORE)
	optionEDHOC  message.OptionID = message.OptionID(coap.EDHOC)
)

// go-coap answers a message with an option of odd number that it does not know
// before any hook is called, so the two options must be known to it. The table
// is global: from here on every go-coap server of the process takes them for
// known, and an unwrapped one takes a protected request for a plain POST to /.
// [Guard] mends that.
func init() {
	message.CoapOptionDefs[optionOSCORE] = message.OptionDef{ValueFormat: message.ValueOpaque, MinLen: 0, MaxLen: 255}
	message.CoapOptionDefs[optionEDHOC] = message.OptionDef{ValueFormat: message.ValueOpaque, MinLen: 0, MaxLen: 65535} // a value is ignored (RFC 9668 §3.1)
}

// Guard is middleware for a go-coap server without OSCORE in a process that
// imports this package: it refuses protected requests with 4.02 (Bad Option),
// as the server would have done by itself otherwise.
//
//	router.Use(gocoap.Guard)   // or options.WithMux(gocoap.Guard(router)): the latter
//	                           // sees requests for paths that the router lacks, too
func Guard(next mux.Handler) mux.Handler {
	return mux.HandlerFunc(func(w mux.ResponseWriter, r *mux.Message) {
		if r.HasOption(optionOSCORE) || r.HasOption(optionEDHOC) {
			setPlain(w, codes.BadOption)
			return
		}
		next.ServeCOAP(w, r)
	})
}

func setPlain(w mux.ResponseWriter, code codes.Code) {
	_ = w.SetResponse(code, message.TextPlain, nil) // fails on a body only, and there is none
}

func pathOf(options message.Options) string {
	path, err := options.Path()
	if err != nil || path == "" {
		return "/"
	}
	return path
}
