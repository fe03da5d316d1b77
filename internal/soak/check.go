package soak

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"time"

	"github.com/oscorelay/oscorelay/internal/capture"
)

// Message is a sealed message that the witness opened.
type Message struct {
	At        time.Time
	ToServer  bool
	Context   string
	Request   bool
	PartialIV uint64 // of the request; of a response its own, if it has one
	Code      byte   // inner
	Path      string // of a request
	Payload   []byte
	Repeated  bool // the very same datagram was seen before
}

// Report is what a capture shows.
type Report struct {
	Datagrams int
	Empty     int // acknowledgements and resets without a message
	Errors    int // plain errors of RFC 8613 §8.2
	Sealed    int
	Nonces    int // different pairs of key and nonce
	Repeats   int // the same ciphertext once more
	Unmatched int // responses to no request of the capture
	Foreign   int // of no known key: other contexts
	Challenge int // Echo challenges
	Notified  int // notifications, different ones
	Messages  []Message
	Faults    []error

	strays []string // of Foreign and Unmatched, some
}

// use is a key and a nonce: whose key, of which context.
type use struct {
	context  int
	toServer bool
	nonce    [nonceLen]byte
}

// asked is a request, as its responses refer to it.
type asked struct {
	context  int
	toServer bool
	kid, piv []byte
	observes bool
	answer   [32]byte // of the first response that is no challenge
	answered bool
	last     uint64 // Partial IV of the last notification
	notified map[uint64]bool
}

type exchangeKey struct {
	device   netip.AddrPort
	toServer bool
	token    string
}

type idKey struct {
	from, to netip.AddrPort
	mid      uint16
}

type idUse struct {
	at  time.Time
	sum [32]byte
}

// exchangeLifetime is EXCHANGE_LIFETIME (RFC 7252 §4.8.2).
const exchangeLifetime = 247 * time.Second

type checker struct {
	*Report
	server   netip.AddrPort
	contexts []material
	used     map[use][32]byte
	requests map[exchangeKey][]*asked
	numbers  map[use]*asked // by the request's own nonce
	ids      map[idKey]idUse
}

// Check looks at what devices and the server sent, each datagram as its sender
// sent it and in this order. The server's address tells the directions apart.
//
//   - every message is sealed, but for the plain errors of RFC 8613 §8.2
//   - every sealed message opens under a key of its sender
//   - one key and nonce seal one message (RFC 8613 §7.2)
//   - a request's number has one answer, beside Echo challenges that have a number
//     of their own
//   - of an observation each notification is newer than those before
//   - a sender uses a message ID once in EXCHANGE_LIFETIME (RFC 7252 §4.4)
func Check(packets []capture.Packet, server netip.AddrPort, contexts ...Context) (*Report, error) {
	c := &checker{
		Report: &Report{}, server: server,
		used: map[use][32]byte{}, requests: map[exchangeKey][]*asked{}, numbers: map[use]*asked{}, ids: map[idKey]idUse{},
	}
	for _, x := range contexts {
		m, err := derive(x)
		if err != nil {
			return nil, err
		}
		c.contexts = append(c.contexts, m)
	}
	for i := range packets {
		if err := c.datagram(&packets[i]); err != nil {
			c.fault(i, "%w", err)
		}
	}
	c.Nonces = len(c.used)
	return c.Report, nil
}

func (c *checker) fault(i int, format string, args ...any) {
	c.Faults = append(c.Faults, fmt.Errorf("datagram %d: "+format, append([]any{i + 1}, args...)...))
}

// stray notes what belongs nowhere, for people.
func (c *checker) stray(p *capture.Packet, d *datagram) {
	if len(c.strays) < 10 {
		c.strays = append(c.strays, fmt.Sprintf("datagram %d, %v to %v, type %d, code %d.%02d, message ID %d, token %x",
			c.Datagrams, p.From, p.To, d.typ, d.code>>5, d.code&31, d.mid, d.token))
	}
}

// datagram looks at one datagram.
func (c *checker) datagram(p *capture.Packet) error {
	c.Datagrams++
	d, err := parseDatagram(p.Data)
	if err != nil {
		return err
	}
	if d.typ == confirmable || d.typ == nonConfirmable {
		if err := c.messageID(p, &d); err != nil {
			c.fault(c.Datagrams-1, "%w", err)
		}
	}
	if d.code == 0 {
		c.Empty++
		if len(p.Data) != 4 {
			return fmt.Errorf("an empty message of %d bytes", len(p.Data))
		}
		return nil
	}
	value, has := d.find(optOSCORE)
	if !has {
		if !isPlainError(&d) {
			return fmt.Errorf("PLAIN: code %d.%02d, path %q, payload %q", d.code>>5, d.code&31, d.path(), d.payload)
		}
		c.Errors++
		return nil
	}
	c.Sealed++
	h, err := parseHeader(value)
	if err != nil {
		return err
	}
	if d.code < 32 {
		return c.request(p, &d, h)
	}
	return c.response(p, &d, h)
}

// messageID holds a sender to RFC 7252 §4.4.
func (c *checker) messageID(p *capture.Packet, d *datagram) error {
	k, u := idKey{p.From, p.To, d.mid}, idUse{p.At, sha256.Sum256(p.Data)}
	old, was := c.ids[k]
	if was && old.sum == u.sum {
		return nil
	}
	c.ids[k] = u
	if was && u.at.Sub(old.at) < exchangeLifetime {
		return fmt.Errorf("message ID %d from %v to %v for another message, %v after the first", d.mid, p.From, p.To, u.at.Sub(old.at).Round(time.Millisecond))
	}
	return nil
}

// diagnostics are the texts of the errors of RFC 8613 §8.2, by code.
var diagnostics = map[byte][]string{
	0x80: {"Decryption failed"},
	0x81: {"Security context not found", "Replay detected"},
	0x82: {"Failed to decode COSE"},
}

func isPlainError(d *datagram) bool {
	texts, ok := diagnostics[d.code]
	for _, o := range d.options {
		ok = ok && o.number == optMaxAge
	}
	known := len(d.payload) == 0
	for _, s := range texts {
		known = known || string(d.payload) == s
	}
	return ok && known
}

func (c *checker) ends(i int, toServer bool) (id []byte, key *material) {
	m := &c.contexts[i]
	if toServer {
		return m.Device, m
	}
	return m.Server, m
}

// request looks at a sealed request.
func (c *checker) request(p *capture.Packet, d *datagram, h header) error {
	toServer := p.To == c.server
	device := p.From
	if !toServer {
		device = p.To
	}
	if !h.hasKID || len(h.partialIV) == 0 {
		return fmt.Errorf("a request without kid or Partial IV")
	}
	for i := range c.contexts {
		id, m := c.ends(i, toServer)
		if !bytes.Equal(id, h.kid) || h.kidContext != nil && !bytes.Equal(h.kidContext, m.IDContext) {
			continue
		}
		key := m.up
		if !toServer {
			key = m.down
		}
		nonce := m.nonce(id, h.partialIV)
		plain, ok := open(key, nonce, aad(h.kid, h.partialIV), d.payload)
		if !ok {
			continue
		}
		inner, code, err := parsePlain(plain)
		if err != nil {
			return err
		}
		u := use{i, toServer, nonce}
		repeated, err := c.seal(u, d.payload, number(h.partialIV))
		if err != nil {
			return err
		}
		a := c.numbers[u]
		if a == nil {
			observe, has := inner.find(optObserve)
			a = &asked{context: i, toServer: toServer, kid: h.kid, piv: h.partialIV, observes: has && len(observe) == 0, notified: map[uint64]bool{}}
			c.numbers[u] = a
		}
		k := exchangeKey{device, toServer, string(d.token)}
		if all := c.requests[k]; len(all) == 0 || all[len(all)-1] != a {
			c.requests[k] = append(all, a)
		}
		c.Messages = append(c.Messages, Message{
			At: p.At, ToServer: toServer, Context: m.Name, Request: true, PartialIV: number(h.partialIV),
			Code: code, Path: inner.path(), Payload: inner.payload, Repeated: repeated,
		})
		return nil
	}
	c.Foreign++
	c.stray(p, d)
	return nil
}

// seal notes what a key and a nonce sealed.
func (c *checker) seal(u use, ciphertext []byte, partialIV uint64) (repeated bool, err error) {
	sum := sha256.Sum256(ciphertext)
	old, was := c.used[u]
	switch {
	case !was:
		c.used[u] = sum
	case old == sum:
		c.Repeats++
		return true, nil
	default:
		return false, fmt.Errorf("NONCE used twice: context %s, toward the server: %v, Partial IV %d", c.contexts[u.context].Name, u.toServer, partialIV)
	}
	return false, nil
}

// response looks at a sealed response: of the latest request with its token that
// it verifies for.
func (c *checker) response(p *capture.Packet, d *datagram, h header) error {
	toServer := p.To == c.server // the way of the response
	device := p.From
	if !toServer {
		device = p.To
	}
	all := c.requests[exchangeKey{device, !toServer, string(d.token)}]
	if len(all) == 0 {
		c.Unmatched++
		c.stray(p, d)
		return nil
	}
	for n := len(all) - 1; n >= 0; n-- {
		a := all[n]
		id, m := c.ends(a.context, toServer)
		key := m.up
		if !toServer {
			key = m.down
		}
		nonce := m.nonce(a.kid, a.piv)
		if len(h.partialIV) > 0 {
			nonce = m.nonce(id, h.partialIV)
		}
		plain, ok := open(key, nonce, aad(a.kid, a.piv), d.payload)
		if !ok {
			continue
		}
		inner, code, err := parsePlain(plain)
		if err != nil {
			return err
		}
		repeated, err := c.seal(use{a.context, toServer, nonce}, d.payload, number(h.partialIV))
		if err != nil {
			return err
		}
		c.Messages = append(c.Messages, Message{
			At: p.At, ToServer: toServer, Context: m.Name, PartialIV: number(h.partialIV), Code: code, Payload: inner.payload, Repeated: repeated,
		})
		return c.answer(a, d, h, &inner, code)
	}
	c.Foreign++
	c.stray(p, d)
	return nil
}

// answer holds what answers a request to the rules.
func (c *checker) answer(a *asked, d *datagram, h header, inner *body, code byte) error {
	if _, echo := inner.find(optEcho); echo && code == 0x81 {
		c.Challenge++
		if len(h.partialIV) > 0 {
			return nil
		}
		// Whoever knows its replay window may do without a number of its own. It
		// is the request's one answer then.
	}
	if _, notification := inner.find(optObserve); notification && a.observes {
		n := number(h.partialIV)
		if len(h.partialIV) == 0 || a.notified[n] { // the first may go under the request's nonce
			return nil
		}
		if n < a.last {
			return fmt.Errorf("notification %d after %d, of the request with Partial IV %d", n, a.last, number(a.piv))
		}
		a.notified[n], a.last = true, n
		c.Notified++
		return nil
	}
	if sum := sha256.Sum256(d.payload); !a.answered {
		a.answer, a.answered = sum, true
	} else if a.answer != sum {
		return fmt.Errorf("ACCEPTED twice: two answers to the request of %s with Partial IV %d", c.contexts[a.context].Name, number(a.piv))
	}
	return nil
}

func parsePlain(plain []byte) (b body, code byte, err error) {
	if len(plain) == 0 {
		return b, 0, errFormat
	}
	b, err = parseBody(plain[1:])
	return b, plain[0], err
}
