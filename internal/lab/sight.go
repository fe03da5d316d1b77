package lab

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/mallory"
	"github.com/oscorelay/oscorelay/oscore"
)

// HasChain reports whether the chain can run: oscored gives each device an
// upstream address of its own, which Linux alone lets it.
func HasChain() bool { return runtime.GOOS == "linux" }

// runChain runs the chain, and tells at its end what each hop could see.
func runChain(r *run) error {
	if !HasChain() {
		return nil
	}
	c, err := newChain(r.ctx, r.cfg)
	if err != nil {
		return err
	}
	defer c.close()
	for _, part := range []struct {
		name  string
		steps []step[*chain]
	}{{PartChain, chainTraffic}, {PartKill, chainKills}, {PartHostile, chainAttacks}, {PartSight, chainSight}} {
		for _, s := range part.steps {
			verdict, err := s.run(c)
			c.hostile.SetScript(c.pass)
			c.trace()
			saw := c.saw()
			if part.name == PartSight {
				saw = "" // theirs is the whole run
			}
			if err := r.row(part.name, s.name, verdict, saw, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// chainSight is what each hop could see in the whole run, and what became of it.
var chainSight = []step[*chain]{
	{"the hostile proxy", func(c *chain) (string, error) {
		s := look(c.hostile.Capture(), nil)
		return fmt.Sprintf("0 paths, 0 values in %d datagrams; %s", s.datagrams, s.outside()), s.blind()
	}},
	{"oscore-proxy, no key", func(c *chain) (string, error) {
		s := look(c.inner.Capture(), forgeries(c.hostile.Capture()))
		return fmt.Sprintf("0 paths, 0 values in %d datagrams; %s", s.datagrams, s.outside()), s.blind()
	}},
	{"oscored, the key", func(c *chain) (string, error) {
		if err := c.gatherEvents(); err != nil {
			return "", err
		}
		return fmt.Sprintf("everything: the seal ends here; %d requests up, %d down, %d notifications", c.events["up"], c.events["down"], c.events["notifications_total"]), nil
	}},
	{"the plain server", func(c *chain) (string, error) {
		s := look(c.plain.Capture(), nil)
		err := error(nil)
		if s.sealed > 0 {
			err = fmt.Errorf("%d sealed messages came to a server that has no OSCORE", s.sealed)
		}
		for _, w := range secrets {
			if !s.words[w] {
				// Then the rows before prove nothing.
				err = errors.Join(err, fmt.Errorf("%q was never sent", w))
			}
		}
		return fmt.Sprintf("everything: %d messages in clear, with %d of %d paths and values looked for", s.clear, len(s.words), len(secrets)), err
	}},
	{"nothing ran twice", func(c *chain) (string, error) {
		for n := range c.runs {
			if k := c.ran(runArgument(n + 1)); k != 1 {
				return "", fmt.Errorf("execute %d ran %d times", n+1, k)
			}
		}
		if n := c.sent(); n != c.sends {
			return "", fmt.Errorf("%d Sends arrived, of %d", n, c.sends)
		}
		return fmt.Sprintf("%d executes, %d Sends, once each", c.runs, c.sends), nil
	}},
	{"no nonce used twice", func(c *chain) (string, error) {
		n, err := nonces(c.hostile.Capture())
		return fmt.Sprintf("%d nonces, 1 message each", n), err
	}},
	{"the server noticed nothing", func(c *chain) (string, error) {
		// It resets what it does not wait for any more: late answers, and, when
		// the device has registered anew, what its old observations bring.
		resets := 0
		for _, x := range c.server.since(0) {
			switch x.Event {
			case "reset":
				resets++
			case "unexpected", "unknown", "refused", "expired", "deregistered":
				return "", fmt.Errorf("it saw %q of %s %s", x.Event, x.Addr, x.Path)
			}
		}
		n := c.server.count(named("registered"))
		if want := 1 + len(c.lives); n != want {
			return "", fmt.Errorf("%d registrations, %d by the device", n, want)
		}
		return fmt.Sprintf("%d kills of oscored, 0 failures, %d late answers", c.kills, resets), nil
	}},
}

// secrets are paths and values that nobody may read on the way; long enough not
// to come about by chance.
var secrets = []string{"3303", "5700", "ep=" + endpointName, "lwm2m=1.1", manufacturer, offset, "run-1"}

// inClear are the outer options of a sealed message (RFC 8613 §4.1), with what a
// proxy may add.
var inClear = []uint16{coap.OSCORE, coap.Observe, coap.URIHost, coap.URIPort, coap.HopLimit, coap.MaxAge, coap.NoResponse}

// sight is what a capture shows to whoever has no key.
type sight struct {
	datagrams, sealed, empty, refusals, clear int
	least, most                               int
	codes                                     map[string]bool // of sealed messages
	kids                                      map[string]bool
	options                                   map[string]bool // that should be inside
	words                                     map[string]bool // of secrets
}

// look looks at what the parties sent; bodies that mallory made are passed over.
func look(packets []mallory.Packet, forged map[string]bool) sight {
	s := sight{least: 1 << 16, codes: map[string]bool{}, kids: map[string]bool{}, options: map[string]bool{}, words: map[string]bool{}}
	for _, p := range packets {
		d, opts, _, ok := mallory.Parse(p.Data)
		if p.Forged || forged[withoutHops(p.Data)] {
			continue
		}
		s.datagrams++
		s.least, s.most = min(s.least, len(p.Data)), max(s.most, len(p.Data))
		for _, w := range secrets {
			if bytes.Contains(p.Data, []byte(w)) || ok && strings.Contains(pathOf(opts), w) {
				s.words[w] = true
			}
		}
		value, sealed := opts.Get(coap.OSCORE)
		switch {
		case !ok || d.Code == coap.Empty:
			s.empty++
		case sealed:
			s.sealed++
			s.codes[d.Code.String()] = true
			if o, err := oscore.ParseOption(value); err == nil && o.KID != nil {
				s.kids[fmt.Sprintf("%x", o.KID)] = true
			}
			for _, o := range opts {
				if !slices.Contains(inClear, o.Number) {
					s.options[coap.OptionName(o.Number)] = true
				}
			}
		case d.Code.IsResponse() && d.Code.Class() >= 4:
			s.refusals++
		default:
			s.clear++
		}
	}
	return s
}

// pathOf joins the Uri-Path options.
func pathOf(opts coap.Options) string {
	var b strings.Builder
	for _, o := range opts {
		if o.Number == coap.URIPath {
			b.WriteString("/" + string(o.Value))
		}
	}
	return b.String()
}

// forgeries are the messages that mallory made, as they pass a proxy that gives
// them a header of its own.
func forgeries(packets []mallory.Packet) map[string]bool {
	out := map[string]bool{}
	for _, p := range packets {
		if d, _, _, ok := mallory.Parse(p.Data); ok && p.Forged && len(d.Body) > 0 {
			out[withoutHops(p.Data)] = true
		}
	}
	for _, p := range packets {
		if !p.Forged { // a replay is what a party sent
			delete(out, withoutHops(p.Data))
		}
	}
	return out
}

// withoutHops is what a proxy leaves as it is.
func withoutHops(data []byte) string {
	d, opts, payload, _ := mallory.Parse(data)
	return string(coap.AppendBody([]byte{byte(d.Code)}, opts.Without(coap.HopLimit), payload))
}

// outside is what anybody can read: of the sealed messages code, kid and size,
// and the refusals.
func (s sight) outside() string {
	return fmt.Sprintf("%d sealed of %d-%d B: %s, kid %s; %d refusals", s.sealed, s.least, s.most,
		strings.Join(slices.Sorted(maps.Keys(s.codes)), " "), strings.Join(slices.Sorted(maps.Keys(s.kids)), " "), s.refusals)
}

// blind returns an error if more could be read than RFC 8613 leaves outside.
func (s sight) blind() error {
	var err error
	if len(s.words) > 0 {
		err = fmt.Errorf("readable: %q", slices.Sorted(maps.Keys(s.words)))
	}
	if len(s.options) > 0 {
		err = errors.Join(err, fmt.Errorf("outside a sealed message: %s", strings.Join(slices.Sorted(maps.Keys(s.options)), ", ")))
	}
	if s.clear > 0 {
		err = errors.Join(err, fmt.Errorf("%d messages in clear", s.clear))
	}
	return err
}

// nonces checks that no nonce seals two messages: those that carry a Partial IV
// by it, answers without one by their request's (RFC 8613 §5.2).
func nonces(packets []mallory.Packet) (n int, err error) {
	type nonce struct {
		d      mallory.Direction
		answer bool // under the request's Partial IV
		piv    string
	}
	sealed := map[nonce][]byte{}
	requests := map[mallory.Direction]map[string]string{mallory.ToServer: {}, mallory.ToClient: {}} // Partial IV by token
	for _, p := range packets {
		d, opts, payload, ok := mallory.Parse(p.Data)
		value, found := opts.Get(coap.OSCORE)
		if p.Forged || !ok || !found {
			continue
		}
		o, perr := oscore.ParseOption(value)
		if perr != nil {
			err = errors.Join(err, perr)
			continue
		}
		k := nonce{d: p.Direction, piv: string(o.PartialIV)}
		if d.Code.IsRequest() {
			requests[p.Direction][string(d.Token)] = k.piv
		} else if o.PartialIV == nil {
			k.answer = true
			if k.piv, ok = requests[1-p.Direction][string(d.Token)]; !ok {
				err = errors.Join(err, fmt.Errorf("an answer without a request: %x", p.Data))
				continue
			}
		}
		if before, ok := sealed[k]; ok && !bytes.Equal(before, payload) {
			err = errors.Join(err, fmt.Errorf("two messages %v under Partial IV %x", k.d, k.piv))
		}
		sealed[k] = payload
	}
	if len(sealed) == 0 {
		err = errors.Join(err, errors.New("nothing sealed was seen"))
	}
	return len(sealed), err
}

// saw says what the hostile proxy saw since the step before.
func (c *chain) saw() string {
	packets := c.hostile.Capture()
	s := look(packets[c.seen:], nil)
	c.seen = len(packets)
	if s.datagrams == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d-%d B", s.datagrams, s.least, s.most)
}

// trace tells of the step: the logs of the daemons, the datagrams.
func (c *chain) trace() {
	if c.cfg.Trace == nil {
		return
	}
	for _, p := range []*process{c.server, c.gateway, c.proxy, c.device} {
		from, known := c.told[p]
		if !known {
			c.cfg.Trace("$ " + strings.Join(p.cmd.Args, " "))
		}
		lines := p.since(from)
		for _, l := range lines {
			c.cfg.Trace(p.name + ": " + l.text())
		}
		c.told[p] = from + len(lines)
	}
	for _, p := range c.hostile.Capture()[c.seen:] {
		c.cfg.Trace(describe(p))
	}
}

// describe is a datagram as the hostile proxy sees it.
func describe(p mallory.Packet) string {
	d, opts, payload, ok := mallory.Parse(p.Data)
	what := "no CoAP"
	if ok {
		what = fmt.Sprintf("%v %v id %d token %x", d.Type, d.Code, d.MessageID, d.Token)
	}
	if value, found := opts.Get(coap.OSCORE); found {
		if o, err := oscore.ParseOption(value); err == nil {
			what += fmt.Sprintf(" kid %x number %x, %d B sealed", o.KID, o.PartialIV, len(payload))
		}
	}
	if p.Forged {
		what += " (its own)"
	}
	return fmt.Sprintf("%s %v %s, %d B", p.At.Format("05.000"), p.Direction, what, len(p.Data))
}
