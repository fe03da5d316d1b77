package mallory

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
)

const actionNames = "drop, delay, duplicate, reorder, again, hold, swap, splice, flip, set, add, remove, code, type, token, id and payload"

const (
	// maxCopies bounds what one datagram becomes.
	maxCopies = 1000
	// maxHeld bounds what a rule keeps back, in datagrams.
	maxHeld = 10000
	// patience is how long reorder and swap wait for company.
	patience = time.Second
)

func (r *rule) parseAction(p *words) error {
	w, err := p.want(actionNames, "do")
	if err != nil {
		return err
	}
	edit := func(f func(d *coap.Datagram, opts *coap.Options, payload *[]byte)) {
		r.do = func(o Out) []Out {
			o.Data = Edit(o.Data, f)
			return []Out{o}
		}
	}
	switch w.text {
	case "drop":
		r.do = func(Out) []Out { return nil }
	case "delay":
		d, err := p.duration("delay")
		r.do = func(o Out) []Out {
			o.After += d
			return []Out{o}
		}
		return err
	case "duplicate":
		n := 1
		if len(p.all) > 0 {
			if n, err = p.number("duplicate", 1, maxCopies); err != nil {
				return err
			}
		}
		r.do = func(o Out) []Out { return slices.Repeat([]Out{o}, n+1) }
	case "again":
		d, err := p.duration("again")
		fresh := p.optional("fresh")
		r.do = func(o Out) []Out {
			copied := o
			copied.After += d
			if fresh {
				copied.Data = r.r.fresh(copied.Data)
			}
			return []Out{o, copied}
		}
		return err
	case "hold":
		name, err := p.want("a name, to release it by", "hold")
		r.do = func(o Out) []Out {
			if held := r.r.held[name.text]; len(held) < maxHeld {
				r.r.held[name.text] = append(held, o)
			}
			return nil
		}
		return err
	case "reorder":
		n, err := p.number("reorder", 2, 64)
		r.do = r.gather(n, func(outs []Out) []Out {
			slices.Reverse(outs)
			return outs
		})
		return err
	case "swap":
		r.do = r.gather(2, func(outs []Out) []Out {
			if len(outs) == 2 {
				outs[0].Data, outs[1].Data = graft(outs[0].Data, outs[1].Data), graft(outs[1].Data, outs[0].Data)
			}
			return outs
		})
	case "splice":
		var before []byte
		r.do = func(o Out) []Out {
			own := o.Data
			if before != nil {
				o.Data = graft(o.Data, before)
			}
			before = own
			return []Out{o}
		}
	case "flip":
		return r.parseFlip(p)
	case "set", "add":
		n, err := p.option(w.text)
		if err != nil {
			return err
		}
		v, err := p.value(w.text)
		edit(func(_ *coap.Datagram, opts *coap.Options, _ *[]byte) {
			if w.text == "set" {
				*opts = opts.Without(n)
			}
			*opts = opts.Add(n, v)
		})
		return err
	case "remove":
		n, err := p.option("remove")
		edit(func(_ *coap.Datagram, opts *coap.Options, _ *[]byte) { *opts = opts.Without(n) })
		return err
	case "code":
		c, err := p.code("code")
		edit(func(d *coap.Datagram, _ *coap.Options, _ *[]byte) { d.Code = c })
		return err
	case "type":
		t, err := p.messageType("type")
		edit(func(d *coap.Datagram, _ *coap.Options, _ *[]byte) { d.Type = t })
		return err
	case "token":
		b, err := p.hex("token")
		edit(func(d *coap.Datagram, _ *coap.Options, _ *[]byte) { d.Token = b })
		return err
	case "id":
		n, err := p.number("id", 0, 1<<16-1)
		edit(func(d *coap.Datagram, _ *coap.Options, _ *[]byte) { d.MessageID = uint16(n) })
		return err
	case "payload":
		b, err := p.value("payload")
		edit(func(_ *coap.Datagram, _ *coap.Options, payload *[]byte) { *payload = b })
		return err
	default:
		return fmt.Errorf("unknown action %q: there are %s", w.text, actionNames)
	}
	return nil
}

// parseFlip reads a place: a byte and a bit in it ("12.7", the least is 0), any,
// or sealed for a bit of what OSCORE protects.
func (r *rule) parseFlip(p *words) error {
	w, err := p.want("a place: BYTE.BIT, any or sealed", "flip")
	if err != nil {
		return err
	}
	var place func(data []byte) int
	switch w.text {
	case "any":
		place = func(data []byte) int { return r.r.rand.IntN(len(data) * 8) }
	case "sealed":
		place = func(data []byte) int {
			at := protected(data)
			if len(at) == 0 {
				return -1
			}
			return at[r.r.rand.IntN(len(at))]*8 + r.r.rand.IntN(8)
		}
	default:
		at, bit, ok := strings.Cut(w.text, ".")
		b, err1 := strconv.ParseUint(at, 10, 16)
		n, err2 := strconv.ParseUint(bit, 10, 3)
		if !ok || err1 != nil || err2 != nil {
			return fmt.Errorf("flip: %q is no place: write BYTE.BIT such as 12.7, any, or sealed", w.text)
		}
		place = func([]byte) int { return int(b*8 + n) }
	}
	r.do = func(o Out) []Out {
		if len(o.Data) > 0 {
			if bit := place(o.Data); bit >= 0 && bit < len(o.Data)*8 {
				o.Data = Flip(o.Data, bit)
			}
		}
		return []Out{o}
	}
	return nil
}

// protected gives the places of the OSCORE option's value and of the payload.
func protected(data []byte) (at []int) {
	d, _, payload, ok := Parse(data)
	if !ok {
		return nil
	}
	w := coap.Walk(d.Body)
	for w.Next() {
		if w.Number == coap.OSCORE {
			end := len(data) - len(w.Rest())
			for i := end - len(w.Value); i < end; i++ {
				at = append(at, i)
			}
			for i := len(data) - len(payload); i < len(data); i++ {
				at = append(at, i)
			}
		}
	}
	return at
}

// gather keeps datagrams back until there are n of one direction, and lets go
// what f makes of them; after a while, what there is, as it came.
func (r *rule) gather(n int, f func([]Out) []Out) func(o Out) []Out {
	var waiting [2][]Out
	var round [2]int
	return func(o Out) []Out {
		w := &waiting[o.Direction]
		o.Data = bytes.Clone(o.Data)
		*w = append(*w, o)
		if len(*w) == n {
			outs := *w
			*w = nil
			round[o.Direction]++
			return f(outs)
		}
		this := round[o.Direction]
		if len(*w) == 1 {
			time.AfterFunc(patience, func() {
				r.r.mu.Lock()
				outs := *w
				if this == round[o.Direction] {
					*w = nil
					round[o.Direction]++
				} else {
					outs = nil
				}
				late := r.r.late
				r.r.mu.Unlock()
				for _, o := range outs {
					late(o)
				}
			})
		}
		return nil
	}
}

// graft gives a message's header and token to another one's code, options and
// payload.
func graft(header, other []byte) []byte {
	d, _, _, ok := Parse(header)
	o, _, _, ok2 := Parse(other)
	if !ok || !ok2 {
		return header
	}
	d.Code, d.Body = o.Code, o.Body
	return d.Append(nil)
}

// fresh gives a message another message ID, and a request another token, so
// that it is a new one to who receives it.
func (r *Rules) fresh(data []byte) []byte { return freshen(data, r.rand.Uint64()) }

func freshen(data []byte, random uint64) []byte {
	return Edit(data, func(d *coap.Datagram, _ *coap.Options, _ *[]byte) {
		d.MessageID = uint16(random)
		if d.Code.IsRequest() {
			d.Token = binary.BigEndian.AppendUint64(nil, random)
		}
	})
}
