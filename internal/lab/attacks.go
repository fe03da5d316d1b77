package lab

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/mallory"
)

// attacks is what must not work.
var attacks = []step[*Lab]{
	{"flip every byte", flip},
	{"forged before genuine", forge},
	{"replay", replay},
	{"replay after kill -9", replayAfterKill},
	{"delay", delay},
	{"swap of two answers", swap},
	{"strip of option 9", strip},
	{"what the relay could read", func(l *Lab) (string, error) { return "no path, no payload", l.leaks() }},
}

const hello = "/oscore/hello/1"

// hold makes the relay keep back the first protected request that comes.
func (l *Lab) hold(toClient mallory.Script) <-chan []byte {
	return keep(l.relay, mallory.ToServer, toClient)
}

var errNothingHeld = errors.New("the device sent nothing")

func take(held <-chan []byte) ([]byte, error) {
	select {
	case b := <-held:
		return b, nil
	case <-time.After(10 * time.Second):
		return nil, errNothingHeld
	}
}

// flip changes every byte that OSCORE protects of a request, and of a response,
// and then lets the genuine one through.
func flip(l *Lab) (string, error) {
	before := l.handledCount(hello)
	var mu sync.Mutex
	var codes []coap.Code
	flippedAnswers := false
	held := l.hold(func(p mallory.Packet) [][]byte {
		if !mallory.Protected(p.Data) {
			d, _, _, _ := mallory.Parse(p.Data)
			mu.Lock()
			codes = append(codes, d.Code)
			mu.Unlock()
			return nil // the device must not need to see the refusals
		}
		mu.Lock()
		defer mu.Unlock()
		if flippedAnswers {
			return [][]byte{p.Data}
		}
		flippedAnswers = true
		var out [][]byte
		for i := protectedFrom(p.Data); i < len(p.Data); i++ {
			out = append(out, mallory.Flip(p.Data, i*8+i%8))
		}
		return append(out, p.Data)
	})
	wait := l.begin(request{Method: "GET", Path: hello})
	genuine, err := take(held)
	if err != nil {
		return "", err
	}
	n := 0
	for i := protectedFrom(genuine); i < len(genuine); i++ {
		if err := l.relay.Inject(mallory.ToServer, mallory.Flip(genuine, i*8+i%8)); err != nil {
			return "", err
		}
		n++
	}
	if err := l.relay.Inject(mallory.ToServer, genuine); err != nil {
		return "", err
	}
	x, err := wait()
	if err != nil {
		return "", fmt.Errorf("the genuine message did not get through: %w", err)
	}
	if err := x.is("2.05", []byte("Hello World!")); err != nil {
		return "", err
	}
	if err := l.once(hello, before+1); err != nil {
		return "", err
	}
	mu.Lock()
	defer mu.Unlock()
	for _, c := range codes {
		// Empty: the flip broke the framing of CoAP itself, which is answered
		// with a Reset (RFC 7252 §4.2).
		if c != coap.BadRequest && c != coap.Unauthorized && c != coap.BadOption && c != coap.Empty {
			return "", fmt.Errorf("a flipped request was answered %v", c)
		}
	}
	return fmt.Sprintf("%d flips refused, 1 served", n), nil
}

// protectedFrom returns where the options of a datagram begin.
func protectedFrom(data []byte) int {
	d, _, _, _ := mallory.Parse(data)
	return len(data) - len(d.Body)
}

// forge sends three forged answers with the genuine token and message ID ahead
// of the genuine one.
func forge(l *Lab) (string, error) {
	var once sync.Once
	l.relay.SetScript(func(p mallory.Packet) [][]byte {
		out := [][]byte{p.Data}
		if p.Direction == mallory.ToClient && mallory.Protected(p.Data) {
			once.Do(func() {
				plain := func(code coap.Code, payload string) []byte {
					return mallory.Edit(p.Data, func(d *coap.Datagram, opts *coap.Options, body *[]byte) {
						d.Code, *opts, *body = code, nil, []byte(payload)
					})
				}
				out = [][]byte{mallory.Flip(p.Data, len(p.Data)*8-1), plain(coap.Content, "forged"), plain(coap.Unauthorized, "Security context not found"), p.Data}
			})
		}
		return out
	})
	return "3 forgeries ignored", l.expect("GET", hello, nil, "2.05", []byte("Hello World!"))
}

// lastRequest returns the latest protected request of the capture.
func (l *Lab) lastRequest() []byte {
	packets := l.relay.Capture()
	for i := len(packets) - 1; i >= 0; i-- {
		if p := packets[i]; p.Direction == mallory.ToServer && !p.Forged && mallory.Protected(p.Data) {
			d, _, _, _ := mallory.Parse(p.Data)
			if d.Code.IsRequest() {
				return p.Data
			}
		}
	}
	return nil
}

// newMessageID makes a datagram a new one for the message layer.
func newMessageID(data []byte) []byte {
	return mallory.Edit(data, func(d *coap.Datagram, _ *coap.Options, _ *[]byte) { d.MessageID += 0x5a5a })
}

// answerTo injects a request and returns what the server says to it.
func (l *Lab) answerTo(data []byte) (mallory.Packet, error) {
	want, _, _, _ := mallory.Parse(data)
	answers := make(chan mallory.Packet, 1)
	l.relay.SetScript(func(p mallory.Packet) [][]byte {
		if d, _, _, ok := mallory.Parse(p.Data); ok && p.Direction == mallory.ToClient && d.MessageID == want.MessageID {
			select {
			case answers <- p:
			default:
			}
			return nil
		}
		return mallory.Pass(p)
	})
	// The server limits its refusals a second, so the first may be left out.
	for range 10 {
		if err := l.relay.Inject(mallory.ToServer, data); err != nil {
			return mallory.Packet{}, err
		}
		select {
		case p := <-answers:
			return p, nil
		case <-time.After(500 * time.Millisecond):
		}
	}
	return mallory.Packet{}, errors.New("the server says nothing")
}

// refusedAsReplay checks for the plain 4.01 with Max-Age 0 of RFC 8613 §7.4.
func refusedAsReplay(p mallory.Packet) error {
	d, opts, _, _ := mallory.Parse(p.Data)
	age, ok := opts.Uint(coap.MaxAge)
	if mallory.Protected(p.Data) || d.Code != coap.Unauthorized || !ok || age != 0 {
		return fmt.Errorf("the replay was answered %v", d.Code)
	}
	return nil
}

func replay(l *Lab) (string, error) {
	if err := l.expect("POST", "/counter", nil, "2.04", nil); err != nil {
		return "", err
	}
	count := l.handledCount("/counter")
	p, err := l.answerTo(newMessageID(l.lastRequest()))
	if err != nil {
		return "", err
	}
	return "4.01, handler ran once", errors.Join(refusedAsReplay(p), l.once("/counter", count))
}

func replayAfterKill(l *Lab) (string, error) {
	if err := l.expect("POST", "/counter", nil, "2.04", nil); err != nil {
		return "", err
	}
	old := l.lastRequest()
	if err := l.killServer(); err != nil {
		return "", err
	}
	count := l.handledCount("/counter")
	// The window is lost: the server may only challenge, and the relay cannot
	// answer a challenge.
	p, err := l.answerTo(newMessageID(old))
	if err != nil {
		return "", err
	}
	if !mallory.Protected(p.Data) {
		return "", errors.New("the answer is not the sealed challenge")
	}
	l.relay.SetScript(nil)
	if err := l.expect("GET", hello, nil, "2.05", nil); err != nil {
		return "", err
	}
	if p, err = l.answerTo(newMessageID(newMessageID(old))); err != nil {
		return "", err
	}
	return "challenged, then 4.01", errors.Join(refusedAsReplay(p), l.once("/counter", count))
}

// delay keeps a write back until its Echo is too old, and delivers it then.
func delay(l *Lab) (string, error) {
	if err := l.expect("PUT", "/value", []byte("on time"), "2.04", nil); err != nil {
		return "", err
	}
	count := l.handledCount("/value")
	held := l.hold(mallory.Pass)
	wait := l.begin(request{Method: "PUT", Path: "/value", Payload: []byte("too late"), Timeout: 1000})
	late, err := take(held)
	if err != nil {
		return "", err
	}
	if _, err := wait(); err == nil {
		return "", errors.New("the device got an answer to a request that was held back")
	}
	old := time.NewTimer(echoLifetime)
	<-old.C
	p, err := l.answerTo(late)
	if err != nil {
		return "", err
	}
	if !mallory.Protected(p.Data) {
		return "", errors.New("the answer is not a sealed challenge")
	}
	l.relay.SetScript(nil)
	return "challenged, not applied", errors.Join(l.once("/value", count), l.expect("GET", "/value", nil, "2.05", []byte("on time")))
}

// swap exchanges the answers of two requests, under rewritten tokens.
func swap(l *Lab) (string, error) {
	var mu sync.Mutex
	var answers [][]byte
	l.relay.SetScript(func(p mallory.Packet) [][]byte {
		if p.Direction != mallory.ToClient || !mallory.Protected(p.Data) {
			return mallory.Pass(p)
		}
		mu.Lock()
		defer mu.Unlock()
		answers = append(answers, bytes.Clone(p.Data))
		if len(answers) < 2 {
			return nil
		}
		a, b := answers[0], answers[1]
		answers = nil
		return [][]byte{mallory.Retoken(a, b), mallory.Retoken(b, a), a, b}
	})
	first := l.begin(request{Method: "GET", Path: "/value", NON: true})
	second := l.begin(request{Method: "GET", Path: hello, NON: true})
	x, err := first()
	if err != nil {
		return "", err
	}
	y, err := second()
	if err != nil {
		return "", err
	}
	return "both refused, genuine taken", errors.Join(x.is("2.05", []byte("on time")), y.is("2.05", []byte("Hello World!")))
}

// strip takes the OSCORE option off a request and off its answer.
func strip(l *Lab) (string, error) {
	before := l.handledCount(hello)
	l.relay.SetScript(func(p mallory.Packet) [][]byte {
		if !mallory.Protected(p.Data) {
			d, _, _, ok := mallory.Parse(p.Data)
			if ok && d.Code != coap.Empty && p.Direction == mallory.ToClient {
				return nil // the refusal of the stripped request
			}
			return mallory.Pass(p)
		}
		return [][]byte{mallory.Strip(p.Data, coap.OSCORE), p.Data}
	})
	if err := l.expect("GET", hello, nil, "2.05", []byte("Hello World!")); err != nil {
		return "", err
	}
	if err := l.once(hello, before+1); err != nil {
		return "", err
	}
	return "refused both ways", nil
}
