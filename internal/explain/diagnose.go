package explain

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/oscorelay/oscorelay/oscore"
)

// Direction says who sent a captured request.
type Direction int

// Directions, seen from the owner of the keys.
const (
	Unknown Direction = iota
	Received
	Sent
)

// Trial judges a guess in place of a captured message. A trial that talks to a
// peer seals under keys that may be in use somewhere, so it must draw sequence
// numbers that nobody else draws; an error ends the search.
type Trial func(oscore.Params) (fits bool, err error)

// Evidence is what a guess is judged by: a captured sealed request and, if
// there is one, the sealed response to it; or a Trial.
type Evidence struct {
	Request   oscore.Message
	Response  *oscore.Message
	Direction Direction
	Trial     Trial
	// Mistakes bounds how many fields are wrong at once, MaxTrials the guesses;
	// zero means 4 and 100000.
	Mistakes  int
	MaxTrials int
}

// Verdict is the outcome of a diagnosis.
type Verdict string

// Verdicts.
const (
	KeysRight   Verdict = "right"   // as they were given
	KeysWrong   Verdict = "wrong"   // but the mistake is found
	KeysForeign Verdict = "foreign" // and no mistake that is known mends them
)

// Diagnosis is what a search found. It holds no secret.
type Diagnosis struct {
	Verdict  Verdict   `json:"verdict"`
	Findings []Finding `json:"findings,omitempty"`
	// By tells whether the keys' owner received the request or sent it.
	By     string   `json:"by,omitempty"`
	Trials int      `json:"trials"`
	Tried  []string `json:"tried,omitempty"` // when nothing fits
	Notes  []string `json:"notes,omitempty"`

	fit oscore.Params // the guess that fits
}

// Errors of Diagnose: there is nothing to judge a guess by.
var (
	ErrNotSealed  = errors.New("explain: the message has no OSCORE option: it is plain CoAP, which no key opens")
	ErrNotRequest = errors.New("explain: a sealed request is needed: a response does not open without its request")
)

// Diagnose finds out which fields of the keys are wrong: it reads each of them
// in the ways that people get wrong, one field at a time, then two, and so on,
// until the evidence fits.
func Diagnose(k Keys, e Evidence) (*Diagnosis, error) {
	if e.Mistakes == 0 {
		e.Mistakes = 4
	}
	if e.MaxTrials == 0 {
		e.MaxTrials = 100000
	}
	d := &Diagnosis{Verdict: KeysForeign}
	if e.Trial != nil {
		return d, d.live(k, &e)
	}
	if c := e.Request.Code; c>>5 != 0 || c == 0 {
		return nil, ErrNotRequest
	}
	option, protected, err := oscore.FindOption(e.Request)
	switch {
	case !protected:
		return nil, ErrNotSealed
	case err != nil || option.PartialIV == nil || option.KID == nil:
		return nil, fmt.Errorf("explain: option 9 of the request does not decode: see 'oscore decode'")
	}
	return d, d.captured(k, &e, option)
}

// live searches by a peer's answers; nothing is known of the kid.
func (d *Diagnosis) live(k Keys, e *Evidence) error {
	fields := append([]field{idsField(&k)}, keyFields(&k, nil)...)
	return d.conclude(k, fields, e, e.Trial)
}

// captured searches by a captured request. Its kid is certain: the tag covers
// it.
func (d *Diagnosis) captured(k Keys, e *Evidence, option oscore.Option) error {
	ids := d.identify(&k, e.Direction, option.KID)
	fits := func(p oscore.Params) (bool, error) {
		p.RecipientID, p.SenderID = option.KID, otherID(p, option.KID)
		_, _, err := openRequest(p, option.KIDContext, e.Request)
		return err == nil || errors.Is(err, oscore.ErrPlaintext), nil
	}
	if err := d.conclude(k, keyFields(&k, option.KIDContext), e, fits); err != nil || d.Verdict == KeysForeign {
		d.Findings = ids // all that can be said
		return err
	}
	if other := d.answered(k, e, option); other != nil {
		ids = append(ids, *other)
	}
	if len(ids) > 0 {
		d.Verdict, d.Findings = KeysWrong, append(ids, d.Findings...)
	}
	return nil
}

// answered judges the other ID, of which the request's tag says nothing, by the
// response. The keys that opened the request are d.fit.
func (d *Diagnosis) answered(k Keys, e *Evidence, option oscore.Option) *Finding {
	name, given := "sender ID", k.Sender // of an owner that received the request
	if d.By == "sender" {
		name, given = "recipient ID", k.Recipient
	}
	if e.Response == nil {
		d.note(fmt.Sprintf("a request says nothing about the other ID (the %s, %s here): give the response too and it is checked", name, idText(given.Bytes)))
		return nil
	}
	opt, protected, err := oscore.FindOption(*e.Response)
	if err != nil || !protected {
		d.note("the response has no option 9 that decodes, so the other ID is not checked")
		return nil
	}
	answer := &OSCORE{option: opt}
	if content, err := oscore.UnwrapBstr(opt.KIDContext); err == nil {
		h := Hex(content)
		answer.Rederive = &h
	}
	opens := func(id []byte) bool {
		p := d.fit
		p.SenderID, p.RecipientID = option.KID, id
		_, _, err := openAnswer(request{option: option, params: p}, answer, *e.Response)
		return err == nil || errors.Is(err, oscore.ErrPlaintext)
	}
	d.Trials++
	if opens(given.Bytes) {
		return nil
	}
	for _, r := range readings(given) {
		d.Trials++
		if opens(r.bytes) {
			return &Finding{name, "the " + name + " " + r.wrong, "write " + idOrEmpty(r.bytes)}
		}
	}
	for _, id := range shortIDs(k) {
		d.Trials++
		if opens(id) {
			return &Finding{name, fmt.Sprintf("the %s is %s here, but the response was sealed by %s", name, idText(given.Bytes), idText(id)), "write " + idOrEmpty(id)}
		}
	}
	d.note(fmt.Sprintf("the request opens, but the response does not, with the %s as given, empty, or any of one byte: the ID is another, or the response answers another request or was changed", name))
	return nil
}

// shortIDs lists the IDs that are tried for the other end: the keys' own, the
// empty one, and all of one byte.
func shortIDs(k Keys) [][]byte {
	ids := [][]byte{k.Sender.Bytes, k.Recipient.Bytes, {}}
	for b := range 256 {
		ids = append(ids, []byte{byte(b)})
	}
	return ids
}

// keyFields lists the fields that are guessed whatever the evidence.
func keyFields(k *Keys, kidContext []byte) []field {
	aead, hkdf := algorithmFields(k)
	return []field{secretField(k), saltField(k, kidContext), contextField(k, kidContext), hkdf, aead}
}

// otherID returns an ID for the end that did not send the request: it has no
// part in opening it, but must differ.
func otherID(p oscore.Params, kid []byte) []byte {
	for _, id := range [][]byte{p.SenderID, p.RecipientID, {}, {0}} {
		if !bytes.Equal(id, kid) && len(id) <= p.AEAD.MaxIDLen() {
			return id
		}
	}
	return []byte{1}
}

// identify compares the IDs with the kid of the message and returns what is
// wrong with them.
func (d *Diagnosis) identify(k *Keys, direction Direction, kid []byte) []Finding {
	received, sent := bytes.Equal(kid, k.Recipient.Bytes), bytes.Equal(kid, k.Sender.Bytes)
	swapped := Finding{"sender and recipient ID", "the sender ID and the recipient ID have changed places", "swap the two: the sender ID is the one that this end sends with"}
	d.By = "recipient"
	switch {
	case received && sent:
		return []Finding{{"sender and recipient ID", "the sender ID and the recipient ID are equal, so both ends would use one key", "give the two ends different IDs"}}
	case received && direction == Sent, sent && direction == Received:
		if direction == Sent {
			d.By = "sender"
		}
		k.Sender, k.Recipient = k.Recipient, k.Sender // for what follows
		return []Finding{swapped}
	case sent:
		d.By = "sender"
		if direction == Unknown {
			d.note("the kid is the sender ID of these keys: their owner sent the message. If it was received instead, the IDs are swapped")
		}
		return nil
	case received:
		if direction == Unknown {
			d.note("the kid is the recipient ID of these keys: their owner received the message. If it was sent instead, the IDs are swapped")
		}
		return nil
	}
	name, given := "recipient ID", k.Recipient
	if direction == Sent {
		name, given, d.By = "sender ID", k.Sender, "sender"
	}
	for _, r := range readings(given) {
		if bytes.Equal(r.bytes, kid) {
			return []Finding{{name, "the " + name + " " + r.wrong, "write " + idOrEmpty(kid)}}
		}
	}
	if direction == Unknown {
		for _, r := range readings(k.Sender) {
			if bytes.Equal(r.bytes, kid) {
				d.By = "sender"
				return []Finding{{"sender ID", "the sender ID " + r.wrong, "write " + idOrEmpty(kid)}}
			}
		}
	}
	return []Finding{{
		name, fmt.Sprintf("the %s is %s, but the message carries the kid %s (the keys' other ID does not fit either)", name, idText(given.Bytes), idText(kid)),
		"write " + idOrEmpty(kid) + ", or the message is another peer's",
	}}
}

// conclude runs the search and words its outcome.
func (d *Diagnosis) conclude(k Keys, fields []field, e *Evidence, fits Trial) error {
	s := search{fields: fields, fits: fits, left: e.MaxTrials}
	for wrong := 0; wrong <= e.Mistakes; wrong++ {
		found, err := s.try(k, 0, wrong, nil)
		d.Trials = s.trials
		if err != nil {
			return err
		}
		if found == nil {
			continue
		}
		d.Verdict, d.Findings, d.fit = KeysRight, found, s.fit
		if len(found) > 0 {
			d.Verdict = KeysWrong
		}
		return nil
	}
	for _, f := range fields {
		d.Tried = append(d.Tried, f.name+": "+f.readings)
	}
	return nil
}

func (d *Diagnosis) note(text string) { d.Notes = append(d.Notes, text) }

// search walks the combinations of readings.
type search struct {
	fields []field
	fits   Trial
	trials int
	left   int
	fit    oscore.Params // the guess that fits
}

// try changes exactly wrong of the fields from the given one on, in every way,
// and returns the findings of the first guess that fits: not nil, but empty
// when no field was changed.
func (s *search) try(k Keys, from, wrong int, found []Finding) ([]Finding, error) {
	if wrong == 0 {
		p := k.Params()
		p.OmitKIDContext = false
		if s.left <= 0 || p.Check() != nil && s.fields[0].name == "sender and recipient ID" {
			return nil, nil
		}
		s.left--
		s.trials++
		ok, err := s.fits(p)
		if err != nil || !ok {
			return nil, err
		}
		s.fit = p
		return append([]Finding{}, found...), nil
	}
	for i := from; i <= len(s.fields)-wrong; i++ {
		for _, a := range s.fields[i].alternatives {
			guess := k
			a.apply(&guess)
			hit, err := s.try(guess, i+1, wrong-1, append(found[:len(found):len(found)], a.finding))
			if hit != nil || err != nil {
				return hit, err
			}
		}
	}
	return nil, nil
}
