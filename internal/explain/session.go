package explain

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/oscorelay/oscorelay/oscore"
)

// Session explains messages in the order in which they were captured. It is
// not safe for concurrent use.
type Session struct {
	contexts   []oscore.Params
	showCrypto bool
	index      int
	requests   []request
	seals      map[string]sealing // by kid, kid context and Partial IV
	links      links
	way        way // of the message at hand, if it is known
}

// sealing is the first request that was seen under a kid and Partial IV.
type sealing struct {
	index   int
	payload []byte
}

// request is a protected request that was seen, for the responses to come.
type request struct {
	index      int
	way        way
	token      []byte
	body       []byte
	option     oscore.Option
	opened     bool
	by         string        // the owner's part in the request, "" if the kid is not the keys'
	params     oscore.Params // as the requester holds them
	registered bool          // Observe 0 inside
}

// NewSession returns a session. Without parameters (nil) nothing is decrypted.
// showCrypto adds AAD and nonce to the reports. An error names the parameter
// that is refused.
func NewSession(p *oscore.Params, showCrypto bool) (*Session, error) {
	s := &Session{showCrypto: showCrypto, seals: map[string]sealing{}, links: newLinks()}
	if p != nil {
		if err := s.AddContext(*p); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// AddContext adds parameters to try. An error names the one that is refused.
func (s *Session) AddContext(p oscore.Params) error {
	if err := p.Check(); err != nil {
		return err
	}
	own := p.Clone()
	own.OmitKIDContext = false
	s.contexts = append(s.contexts, own)
	return nil
}

// keyed reports whether there is anything to decrypt with.
func (s *Session) keyed() bool { return len(s.contexts) > 0 }

// Datagram explains a message in the framing of RFC 7252.
func (s *Session) Datagram(b []byte) *Report {
	s.index++
	r := &Report{Index: s.index}
	if m, ok := r.datagram(b); ok {
		s.explain(r, m)
	}
	return r
}

// Stream explains the frames (RFC 8323) that stand one behind the other in b.
func (s *Session) Stream(b []byte) []*Report {
	var out []*Report
	for more := true; more; {
		s.index++
		r := &Report{Index: s.index}
		m, rest, ok := r.stream(b)
		if ok {
			s.explain(r, m)
		}
		if r.Malformed != "" {
			r.guessDatagram(b)
		}
		out = append(out, r)
		b, more = rest, len(rest) > 0
	}
	return out
}

func (s *Session) explain(r *Report, m message) {
	r.body(m)
	if r.Malformed != "" {
		return
	}
	s.links.link(r, m, s.way)
	switch {
	case m.code.IsRequest() && r.OSCORE != nil:
		s.request(r, m)
	case m.code.IsResponse() && r.OSCORE != nil:
		s.response(r, m)
	case m.code.IsResponse():
		s.plainResponse(r, m)
	case r.OSCORE != nil:
		r.OSCORE.Problem = "option 9 in a message that is neither request nor response"
	case m.code.IsRequest() && s.keyed():
		r.Closed = "it has no option 9: this is plain CoAP, readable and changeable by anybody on its way"
	}
}

// request explains a protected request and decrypts it with the keys (§8.2).
func (s *Session) request(r *Report, m message) {
	o := r.OSCORE
	q := request{index: r.Index, way: s.way, token: m.token, body: m.body, option: o.option}
	s.repeated(r, m)
	if o.Problem == "" && s.keyed() {
		s.openRequest(r, m, &q)
	} else if s.keyed() {
		r.Closed = o.Problem
	}
	s.requests = append(s.requests, q)
}

// repeated notes a kid and Partial IV that an earlier request had.
func (s *Session) repeated(r *Report, m message) {
	o, payload := r.OSCORE.option, payloadOf(m.body)
	if o.PartialIV == nil || r.Links != nil && r.Links.Copy > 0 {
		return
	}
	key := fmt.Sprintf("%x %t %x %x", o.KID, o.KIDContext == nil, o.KIDContext, o.PartialIV)
	before, again := s.seals[key]
	switch {
	case !again:
		s.seals[key] = sealing{r.Index, payload}
	case bytes.Equal(before.payload, payload):
		r.note("same kid, Partial IV and ciphertext as message %d: a retransmission, a proxy's second leg or a replay", before.index)
	default:
		r.note("DANGER: same kid and Partial IV as message %d with another ciphertext. If both were sealed under one key, its nonce was used twice: replace the key at both ends", before.index)
	}
}

// openRequest decrypts a request with the first of the contexts that opens it,
// in the direction that its kid shows. Where none does, the report has the
// reason of the last one that the kid fits.
func (s *Session) openRequest(r *Report, m message, q *request) {
	foreign := true
	for i := range s.contexts {
		p := s.contexts[i]
		switch {
		case bytes.Equal(q.option.KID, p.RecipientID):
			q.by = "recipient"
		case bytes.Equal(q.option.KID, p.SenderID):
			q.by, p = "sender", p.Swap()
		default:
			continue
		}
		foreign = false
		if s.tryRequest(r, m, q, p); q.opened {
			return
		}
	}
	if foreign {
		ids := fmt.Sprintf("of %d contexts", len(s.contexts))
		if len(s.contexts) == 1 {
			ids = fmt.Sprintf("for recipient ID %s and sender ID %s", idText(s.contexts[0].RecipientID), idText(s.contexts[0].SenderID))
		}
		r.Closed = fmt.Sprintf("the kid is %s, but the keys are %s: the message is for another security context", idText(q.option.KID), ids)
	}
}

// tryRequest decrypts a request with the parameters of its receiver.
func (s *Session) tryRequest(r *Report, m message, q *request, p oscore.Params) {
	rederived := false
	if kc := q.option.KIDContext; kc != nil && !(p.IDContext != nil && bytes.Equal(kc, p.IDContext)) {
		if r.OSCORE.Rederive == nil {
			r.Closed = fmt.Sprintf("the kid fits, but the kid context is %s and the keys' ID Context is %s", idText(kc), contextText(p.IDContext))
			return
		}
		p.IDContext, rederived = *r.OSCORE.Rederive, true
		if p.IDContext == nil {
			p.IDContext = []byte{}
		}
	}
	q.params = p.Swap()
	if s.showCrypto {
		r.Crypto = cryptoOf(&p, q.option.KID, q.option.PartialIV, q.option.KID, q.option.PartialIV)
	}
	out, observes, err := openRequest(p, q.option.KIDContext, m.oscore())
	if err != nil {
		r.Closed = whyClosed(err, p.AEAD, payloadOf(m.body))
		if errors.Is(err, oscore.ErrDecrypt) {
			r.Closed += requestHint(rederived, p.IDContext)
		}
		return
	}
	if rederived {
		r.note("opened with the content of the kid context as ID Context: request of Appendix B.2")
	}
	q.opened, q.registered = true, observes
	r.Opened, r.Closed = newOpened(out, q.by), ""
}

// requestHint says what a tag that does not fit may come from.
func requestHint(rederived bool, idContext []byte) string {
	switch {
	case rederived:
		return " (tried with the content of the kid context as ID Context, as Appendix B.2 has it)"
	case idContext == nil:
		return ". Kid and kid context fit; secret, salt, ID Context, AEAD or HKDF differ, or the message was changed: try 'oscore diagnose'"
	}
	return ". The kid fits; secret, salt, ID Context, AEAD or HKDF differ, or the message was changed: try 'oscore diagnose'"
}

// openRequest is [oscore.Context.OpenRequest] with a window that knows nothing.
func openRequest(p oscore.Params, kidContext []byte, m oscore.Message) (out oscore.Message, observes bool, err error) {
	c, err := oscore.New(p)
	if err != nil {
		return out, false, err
	}
	if kidContext != nil {
		c.SetKIDContext(kidContext)
	}
	c.SetWindow(oscore.Fresh(0))
	var r oscore.Request
	out, err = c.OpenRequest(nil, &r, m)
	return out, r.Observes(), err
}

// response explains a protected response and decrypts it with the request it
// answers (§8.4).
func (s *Session) response(r *Report, m message) {
	if r.OSCORE.Problem != "" {
		if s.keyed() {
			r.Closed = r.OSCORE.Problem
		}
		return
	}
	if !s.keyed() {
		return
	}
	requests := s.answeredBy(m.token)
	if len(requests) == 0 {
		r.Closed = "a response needs its request, whose kid and Partial IV its tag covers: give the request before it"
		return
	}
	tokenFits := bytes.Equal(requests[0].token, m.token)
	for _, q := range requests {
		p, out, err := openAnswer(q, r.OSCORE, m.oscore())
		if err != nil {
			if r.Closed == "" {
				r.Closed = whyClosed(err, p.AEAD, payloadOf(m.body))
				if errors.Is(err, oscore.ErrDecrypt) {
					r.Closed += responseHint(requests, tokenFits)
				}
				s.crypto(r, q, p)
			}
			continue
		}
		r.Closed, r.Crypto = "", nil
		s.crypto(r, q, p)
		by := "recipient"
		if q.by == "recipient" { // who received the request sent the response
			by = "sender"
		}
		r.Opened = newOpened(out, by)
		r.Opened.Request = q.index
		if !bytes.Equal(q.token, m.token) {
			r.note("the token is not that of message %d, though it answers it: there is a proxy between, or a response was swapped", q.index)
		}
		return
	}
}

// responseHint says what a response's tag that does not fit may come from.
func responseHint(requests []request, tokenFits bool) string {
	switch {
	case !tokenFits:
		return ". No request given before it has its token: the request that it answers is probably missing"
	case requests[0].opened:
		return fmt.Sprintf(". Message %d opened, so the other ID is wrong, or this answers another request, or it was changed", requests[0].index)
	}
	return fmt.Sprintf(", tried with message %d, which does not open either", requests[0].index)
}

// maxTried bounds the requests that a response is tried with.
const maxTried = 64

// answeredBy returns the requests that a response may answer: those with its
// token between the same parties first, then those with its token, then the
// latest.
func (s *Session) answeredBy(token []byte) []request {
	var near, fits, rest []request
	for _, q := range slices.Backward(s.requests) {
		switch {
		case len(near)+len(fits)+len(rest) >= maxTried:
			return slices.Concat(near, fits, rest)
		case q.by == "" || q.params.MasterSecret == nil:
		case bytes.Equal(q.token, token) && q.way == s.way.back():
			near = append(near, q)
		case bytes.Equal(q.token, token):
			fits = append(fits, q)
		default:
			rest = append(rest, q)
		}
	}
	return slices.Concat(near, fits, rest)
}

// openAnswer opens a response as the requester would, and returns the
// parameters under which it tried.
func openAnswer(q request, o *OSCORE, m oscore.Message) (oscore.Params, oscore.Message, error) {
	p := q.params
	if o.Rederive == nil {
		out, err := openResponse(p, nil, q.option.Sequence(), m)
		return p, out, err
	}
	// Appendix B.2, response #1: ID Context = R2 || ID1.
	second := p
	second.IDContext = append(bytes.Clone(*o.Rederive), p.IDContext...)
	out, err := openResponse(p, &second, q.option.Sequence(), m)
	return second, out, err
}

// openResponse gets the Pending of a request with that sequence number by
// sealing one, and opens the response with it: under second if that is not nil
// (Appendix B.2). What is sealed is thrown away, so no nonce is used.
func openResponse(requester oscore.Params, second *oscore.Params, sequence uint64, m oscore.Message) (out oscore.Message, err error) {
	c, err := oscore.New(requester)
	if err != nil {
		return out, err
	}
	if err := c.Extend(sequence, sequence+1); err != nil {
		return out, err
	}
	var p oscore.Pending
	if _, err := c.SealRequest(nil, &p, oscore.Message{Code: 1, Body: registration}); err != nil {
		return out, err
	}
	if second == nil {
		return p.Open(nil, m)
	}
	under, err := oscore.New(*second)
	if err != nil {
		return out, err
	}
	return p.OpenUnder(nil, under, m)
}

// registration is the body of a request that registers an observation, so that
// notifications are accepted: an empty option 6.
var registration = []byte{0x60}

func (s *Session) crypto(r *Report, q request, p oscore.Params) {
	if !s.showCrypto || r.Crypto != nil {
		return
	}
	nonceOf, piv := &q.params, q.option.PartialIV
	pivID := q.option.KID
	if own := r.OSCORE.option.PartialIV; own != nil {
		nonceOf, piv, pivID = &p, own, p.RecipientID
	}
	r.Crypto = cryptoOf(nonceOf, q.option.KID, q.option.PartialIV, pivID, piv)
}

// plainResponse says what an unprotected answer to a protected request means.
func (s *Session) plainResponse(r *Report, m message) {
	if s.keyed() {
		r.Closed = "it has no option 9: this is plain CoAP, readable and changeable by anybody on its way"
	}
	for _, q := range slices.Backward(s.requests) {
		if !bytes.Equal(q.token, m.token) {
			continue
		}
		text := map[byte]string{
			0x80: "4.00 means that the receiver's tag did not fit: secret, salt, ID Context or an algorithm differ, or the message was changed",
			0x81: "4.01 means that the receiver has no context for that kid and kid context, or holds the request for a replay",
			0x82: "4.02 means that the receiver could not read option 9 or does not know OSCORE",
		}[byte(m.code)]
		if text == "" {
			text = "a client must not take it for the answer"
		}
		r.note("an unprotected answer to the sealed message %d, which nobody vouches for; %s", q.index, text)
		return
	}
}

// whyClosed turns an error of opening into words.
func whyClosed(err error, aead oscore.AEAD, ciphertext []byte) string {
	switch {
	case errors.Is(err, oscore.ErrDecrypt) && len(ciphertext) <= aead.TagLen():
		return fmt.Sprintf("the ciphertext has %s, but %s needs more than %d: the capture is cut short, or the algorithm is another",
			count(len(ciphertext), "byte"), aead, aead.TagLen())
	case errors.Is(err, oscore.ErrDecrypt):
		return "the authentication tag does not fit"
	case errors.Is(err, oscore.ErrPlaintext):
		return "the tag fits, but the plaintext is no CoAP message: the sender's encoder is wrong"
	}
	return err.Error()
}

// idText writes an ID for a person.
func idText(id []byte) string {
	if len(id) == 0 {
		return "empty"
	}
	return Hex(id).String()
}

// contextText writes an ID Context for a person.
func contextText(id []byte) string {
	if id == nil {
		return "absent"
	}
	return idText(id)
}
