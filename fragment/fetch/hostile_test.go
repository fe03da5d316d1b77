package fetch

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/fragment"
	"github.com/oscorelay/oscorelay/internal/coap"
	fileserver "github.com/oscorelay/oscorelay/internal/mirror"
	"github.com/oscorelay/oscorelay/internal/proof"
)

var kilo = fragment.Layout{Unit: 10, Page: 10}

// A forged block arrives before each genuine one, from the mirror's own
// address and with the right token and message ID. The genuine answer still
// counts, and nothing has to be asked for twice.
func TestForgedBeforeGenuine(t *testing.T) {
	proof.Requirement(t, "direct, hostile relay", "E2E-13")
	for name, l := range map[string]fragment.Layout{"one block": kilo, "item of four blocks": {Unit: 8, Page: 10}} {
		t.Run(name, func(t *testing.T) {
			r := newRelease(t, 60_000, 8, l)
			r.timing.AckTimeout = time.Second // patience on a busy machine
			addr := newRelay(t, r.serve(t), nil, func(_ *relay, b []byte, send func([]byte)) {
				send(forge(b))
				send(b)
			})
			c, flash := r.job(t, r.uri(addr, l))
			res := complete(t, c, flash, r.image)
			if res.Forged == 0 {
				t.Fatal("nothing forged came through: the case shows nothing")
			}
			if res.Retries > res.Requests/20 {
				t.Fatalf("%d of %d requests were retries", res.Retries, res.Requests)
			}
			t.Logf("%+v", res)
		})
	}
}

// One mirror forges everything, the other is good: the download completes, and
// most is soon asked of the good one.
func TestHostileMirrorBesideAGoodOne(t *testing.T) {
	r := newRelease(t, 300_000, 8, kilo)
	bad := r.serve(t, func(s *fileserver.Server) {
		s.Forge = func(_ string, _ int64, block []byte) { block[len(block)/2] ^= 1 }
	})
	c, flash := r.job(t, r.uri(bad, kilo), r.uri(r.serve(t), kilo))
	res := complete(t, c, flash, r.image)
	hostile, good := res.Mirrors[0], res.Mirrors[1]
	if hostile.Good != 0 || hostile.Bad == 0 || hostile.Dropped {
		t.Fatalf("the hostile mirror: %+v", hostile)
	}
	if hostile.Bad*10 > good.Good {
		t.Fatalf("the hostile mirror was asked %d times, the good one %d", hostile.Bad, good.Good)
	}
	t.Logf("%+v", res)
}

// Someone forges the good mirror's address, again and again. It is never
// dropped, whether alone or beside another.
func TestInjectorDoesNotEvictTheGoodMirror(t *testing.T) {
	r := newRelease(t, 200_000, 8, kilo)
	forgeAll := func(_ *relay, b []byte, send func([]byte)) {
		for range 3 {
			send(forge(b))
		}
		send(b)
	}
	for name, beside := range map[string]bool{"alone": false, "beside a dead one": true} {
		t.Run(name, func(t *testing.T) {
			uris := []string{r.uri(newRelay(t, r.serve(t), nil, forgeAll), kilo)}
			r.timing.MaxRetransmit = 2 // the dead one costs timeouts
			if beside {
				dead := listen(t)
				t.Cleanup(func() { _ = dead.Close() })
				uris = append(uris, r.uri(dead.LocalAddr().String(), kilo))
			}
			c, flash := r.job(t, uris...)
			res := complete(t, c, flash, r.image)
			for _, m := range res.Mirrors {
				if m.Dropped {
					t.Fatalf("dropped: %+v", m)
				}
			}
			if res.Forged == 0 || res.Mirrors[0].Good == 0 {
				t.Fatalf("the case shows nothing: %+v", res)
			}
		})
	}
}

// ETag, M and Size2 lie in every answer, and the code of a first answer too:
// they are hints.
func TestHintsEndNothing(t *testing.T) {
	r := newRelease(t, 100_000, 8, kilo)
	n := byte(0)
	addr := newRelay(t, r.serve(t), nil, func(_ *relay, b []byte, send func([]byte)) {
		n++
		send(edit(t, b, func(_ *coap.Datagram, o coap.Options) coap.Options {
			block, _ := o.Get(coap.Block2)
			v, err := coap.ParseBlock(block)
			if err != nil {
				t.Error(err)
			}
			v.More = !v.More
			return coap.Options{}.Add(coap.ETag, []byte{n}).Add(coap.Block2, v.Append(nil)).AddUint(coap.Size2, uint32(n))
		}))
	})
	c, flash := r.job(t, r.uri(addr, kilo))
	if res := complete(t, c, flash, r.image); res.Retries != 0 {
		t.Fatalf("retries: %+v", res)
	}
}

// Resets, empty acknowledgements, error codes, shifted block numbers and
// garbage, all with the right message ID and token, come before every genuine
// answer. None kills the exchange.
func TestForgedMessagesDoNotKillTheExchange(t *testing.T) {
	r := newRelease(t, 50_000, 8, kilo)
	r.timing.AckTimeout = time.Second // patience on a busy machine
	for name, forgery := range map[string]func(d coap.Datagram) []byte{
		"reset": func(d coap.Datagram) []byte {
			return coap.Datagram{Type: coap.Reset, MessageID: d.MessageID}.Append(nil)
		},
		"empty ack": func(d coap.Datagram) []byte {
			return coap.Datagram{Type: coap.Acknowledgement, MessageID: d.MessageID}.Append(nil)
		},
		"4.04": func(d coap.Datagram) []byte {
			d.Code, d.Body = coap.NotFound, nil
			return d.Append(nil)
		},
		"separate 5.00": func(d coap.Datagram) []byte {
			d.Type, d.MessageID, d.Code, d.Body = coap.Confirmable, 7, coap.InternalServerError, nil
			return d.Append(nil)
		},
		"other block": func(d coap.Datagram) []byte {
			d.Body = coap.AppendBody(nil, coap.Options{}.Add(coap.Block2, coap.Block{Num: 777, SZX: 6}.Append(nil)), make([]byte, 1024))
			return d.Append(nil)
		},
		"empty content":  func(d coap.Datagram) []byte { d.Body = nil; return d.Append(nil) },
		"wrong token":    func(d coap.Datagram) []byte { d.Token = []byte{1, 2, 3, 4, 5, 6, 7, 8}; return d.Append(nil) },
		"unknown option": func(d coap.Datagram) []byte { d.Body = []byte{0xe1, 0xff, 0x00, 1, 0xff, 1}; return d.Append(nil) },
		"garbage":        func(coap.Datagram) []byte { return []byte{0xff, 0xff} },
	} {
		t.Run(name, func(t *testing.T) {
			addr := newRelay(t, r.serve(t), nil, func(_ *relay, b []byte, send func([]byte)) {
				d, err := coap.ParseDatagram(b)
				if err != nil {
					t.Error(err)
				}
				send(forgery(d))
				send(b)
			})
			c, flash := r.job(t, r.uri(addr, kilo))
			res := complete(t, c, flash, r.image)
			if res.Retries != 0 {
				t.Fatalf("%d retries", res.Retries)
			}
		})
	}
}

// A fifth of all datagrams is lost, others are doubled or late.
func TestLossReorderDuplicates(t *testing.T) {
	r := newRelease(t, 100_000, 8, kilo)
	var (
		mu   sync.Mutex
		rng  = rand.New(rand.NewPCG(4, 4))
		kept []byte
	)
	mess := func(_ *relay, b []byte, send func([]byte)) {
		mu.Lock()
		defer mu.Unlock()
		switch x := rng.IntN(100); {
		case x < 10: // lost
		case x < 20:
			send(b)
			send(b)
		case x < 30 && kept == nil:
			kept = b
		default:
			send(b)
			if kept != nil {
				send(kept)
				kept = nil
			}
		}
	}
	addr := newRelay(t, r.serve(t), nil, mess)
	c, flash := r.job(t, r.uri(addr, kilo))
	res := complete(t, c, flash, r.image)
	if res.Forged != 0 {
		t.Fatalf("loss was taken for forgery: %+v", res)
	}
	t.Logf("%+v", res)
}

// poisonedCache is a caching reverse proxy that keys on every option that RFC
// 7252 §5.4.6 says is part of the cache key, and in which a share of the
// blocks has been replaced.
func poisonedCache(t *testing.T, origin string, percent float64) string {
	t.Helper()
	var (
		mu      sync.Mutex
		cache   = map[string][]byte{}
		pending = map[string]string{} // token to key
		rng     = rand.New(rand.NewPCG(1, 1))
	)
	key := func(d coap.Datagram) string {
		o, _, err := coap.Split(d.Body)
		if err != nil {
			t.Error(err)
		}
		var kept coap.Options
		for _, x := range o {
			if !coap.NoCacheKey(x.Number) {
				kept = append(kept, x)
			}
		}
		return string(coap.AppendBody(nil, kept, nil))
	}
	return newRelay(t, origin, func(r *relay, b []byte, send func([]byte)) {
		d, err := coap.ParseDatagram(b)
		if err != nil {
			t.Error(err)
			return
		}
		k := key(d)
		mu.Lock()
		hit, ok := cache[k]
		pending[string(d.Token)] = k
		mu.Unlock()
		if !ok {
			send(b)
			return
		}
		a, err := coap.ParseDatagram(hit)
		if err != nil {
			t.Error(err)
			return
		}
		a.MessageID, a.Token = d.MessageID, d.Token
		r.reply(a.Append(nil))
	}, func(_ *relay, b []byte, send func([]byte)) {
		d, err := coap.ParseDatagram(b)
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		k := pending[string(d.Token)]
		_, again := cache[k]
		o, _, _ := coap.Split([]byte(k))
		_, fresh := o.Get(coap.RequestTag)
		if !fresh && !again && rng.Float64() < percent {
			b = forge(b) // what the attacker planted
		}
		cache[k] = b
		mu.Unlock()
		send(b)
	})
}

// 4 MiB through a cache in which 1 % of the blocks is poisoned: at most 5 %
// more traffic than the file, and no unverified byte in flash at any step (the
// store itself checks each write).
func TestFourMiBThroughAPoisonedCache(t *testing.T) {
	r := newRelease(t, 4<<20, 8, kilo)
	c, flash := r.job(t, r.uri(poisonedCache(t, r.serve(t), 0.01), kilo))
	res := complete(t, c, flash, r.image)
	file := int64(len(r.files["/fw/"+r.signed.Name(kilo).String()]))
	excess := float64(res.Received-file) / float64(file) * 100
	t.Logf("file %d bytes, received %d (%.2f %% more), %d of %d requests were retries, %d forged, peak unverified memory %d bytes",
		file, res.Received, excess, res.Retries, res.Requests, res.Forged, res.Peak)
	if res.Forged < 20 {
		t.Fatalf("only %d forged blocks: the case shows nothing", res.Forged)
	}
	if excess > 5 {
		t.Fatalf("%.2f %% more traffic", excess)
	}
	if most := 2048 + 4*1024; res.Peak > most {
		t.Fatalf("%d bytes unverified in memory, at most %d", res.Peak, most)
	}
}

// An authenticated mirror that lies is dropped after three bad pages, or when
// more than 1 % of its answers is bad; the last one never is.
func TestAuthenticatedLiarIsDropped(t *testing.T) {
	// Units of 64 bytes: many pages, so that three bad ones come early.
	small := fragment.Layout{Unit: 6, Page: 6}
	for name, c := range map[string]struct {
		layout fragment.Layout
		forge  func(g fragment.Geometry) func(string, int64, []byte)
	}{
		"pages": {small, func(g fragment.Geometry) func(string, int64, []byte) {
			return func(_ string, offset int64, b []byte) {
				if it, _, ok := g.Find(offset); ok && it.Level > 0 {
					b[0] ^= 1
				}
			}
		}},
		"units": {small, func(g fragment.Geometry) func(string, int64, []byte) {
			return func(_ string, offset int64, b []byte) {
				if it, _, ok := g.Find(offset); ok && it.Level == 0 && it.Index%10 == 0 {
					b[0] ^= 1
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelease(t, 30_000, 6, c.layout)
			g, err := r.signed.Pinned(r.signed.Name(c.layout))
			if err != nil {
				t.Fatal(err)
			}
			liar := r.serve(t, func(s *fileserver.Server) { s.Forge = c.forge(g) })
			conf, flash := r.job(t, r.uri(liar, c.layout), r.uri(r.serve(t), c.layout))
			for i := range conf.Sources {
				conf.Sources[i].Authenticated = true
			}
			res := complete(t, conf, flash, r.image)
			if !res.Mirrors[0].Dropped || res.Mirrors[1].Dropped {
				t.Fatalf("%+v", res.Mirrors)
			}
		})
	}
	t.Run("the last one stays", func(t *testing.T) {
		r := newRelease(t, 30_000, 6, kilo)
		liar := r.serve(t, func(s *fileserver.Server) {
			s.Forge = func(_ string, _ int64, b []byte) { b[0] ^= 1 }
		})
		r.timing.AckTimeout /= 6 // the bucket's trickle is waited for
		c, _ := r.job(t, r.uri(liar, kilo))
		c.Sources[0].Authenticated = true
		c.Manifest = func(context.Context, fragment.Name) ([]byte, error) { return r.signed.Bytes(), nil }
		res, err := Run(t.Context(), c)
		if !errors.Is(err, ErrSuspended) || res.Mirrors[0].Dropped {
			t.Fatalf("%v, %+v", err, res.Mirrors)
		}
	})
}

// An attacker who forges everything cannot make the device fail the update or
// send without end: the budget is spent, the download suspends, and later it
// goes on where it was.
func TestExhaustedBudgetSuspendsAndResumes(t *testing.T) {
	r := newRelease(t, 200_000, 8, kilo)
	var mu sync.Mutex
	hostile := true
	g, err := r.signed.Pinned(r.signed.Name(kilo))
	if err != nil {
		t.Fatal(err)
	}
	addr := r.serve(t, func(s *fileserver.Server) {
		s.Forge = func(_ string, offset int64, b []byte) {
			mu.Lock()
			defer mu.Unlock()
			if it, _, ok := g.Find(offset); hostile && ok && it.Level == 0 && it.Index > 100 {
				b[0] ^= 1
			}
		}
	})
	c, flash := r.job(t, r.uri(addr, kilo))
	res, err := Run(t.Context(), c)
	if !errors.Is(err, ErrSuspended) {
		t.Fatalf("%v %+v", err, res)
	}
	if most := int64(budgetBase + g.Units()/budgetPart); res.Retries > most {
		t.Fatalf("%d retries, at most %d are in the budget", res.Retries, most)
	}
	mu.Lock()
	hostile = false
	mu.Unlock()
	again := complete(t, c, flash, r.image)
	if again.Resumed < 90<<10 {
		t.Fatalf("resumed with %d bytes", again.Resumed)
	}
}

// A mirror that is silent suspends the download, in bounded time.
func TestSilenceSuspends(t *testing.T) {
	r := newRelease(t, 5000, 8, kilo)
	dead := listen(t)
	t.Cleanup(func() { _ = dead.Close() })
	c, flash := r.job(t, r.uri(dead.LocalAddr().String(), kilo))
	c.Patience = 300 * time.Millisecond
	_, err := Run(t.Context(), c)
	if !errors.Is(err, ErrSuspended) || !strings.Contains(err.Error(), "no mirror sends") {
		t.Fatalf("%v", err)
	}
	if len(flash.B) != 0 {
		t.Fatal("something was written")
	}
}

// Mirrors of different layouts: when the first layout's mirrors bring nothing,
// the other's are asked, into the same image.
func TestOtherLayoutTakesOver(t *testing.T) {
	lpwan := fragment.Layout{Unit: 8, Page: 8}
	r := newRelease(t, 60_000, 6, kilo, lpwan)
	liar := r.serve(t, func(s *fileserver.Server) {
		s.Forge = func(_ string, offset int64, b []byte) {
			if offset > 20_000 {
				b[0] ^= 1
			}
		}
	})
	c, flash := r.job(t, r.uri(liar, kilo), r.uri(r.serve(t), lpwan))
	res := complete(t, c, flash, r.image)
	if res.Mirrors[0].Good == 0 || res.Mirrors[1].Good == 0 {
		t.Fatalf("%+v", res.Mirrors)
	}
}

// What the manifest or the names get wrong is final, and says so.
func TestRunRefuses(t *testing.T) {
	r := newRelease(t, 5000, 8, kilo)
	addr := r.serve(t)
	good := r.uri(addr, kilo)
	other := newRelease(t, 6000, 8, kilo)
	for name, c := range map[string]struct {
		change func(c *Config)
		want   error
	}{
		"no source":       {func(c *Config) { c.Sources = nil }, ErrURI},
		"two manifests":   {func(c *Config) { c.Sources = append(c.Sources, Source{Name: other.signed.Name(kilo)}) }, ErrSources},
		"stranger's key":  {func(c *Config) { c.Keys = nil }, fragment.ErrKey},
		"installed":       {func(c *Config) { c.Policy.Installed = 1 }, fragment.ErrRollback},
		"vendor":          {func(c *Config) { c.Policy.Vendor[0] = 1 }, fragment.ErrVendor},
		"flash too small": {func(c *Config) { c.Policy.Flash = 4999 }, fragment.ErrTooLarge},
		"sealed path lies": {func(c *Config) {
			c.Manifest = func(context.Context, fragment.Name) ([]byte, error) { return other.signed.Bytes(), nil }
		}, fragment.ErrName},
	} {
		t.Run(name, func(t *testing.T) {
			conf, flash := r.job(t, good)
			c.change(&conf)
			_, err := Run(t.Context(), conf)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if len(flash.B) != 0 {
				t.Fatal("something was written")
			}
		})
	}
	u, err := ListenUDP(quick)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for uri, want := range map[string]error{
		"coap://127.0.0.1/fw/firmware.lwf":                       fragment.ErrName,
		"http://127.0.0.1/fw/x.lwf":                              ErrScheme,
		"/fw/x.lwf":                                              ErrURI,
		"coap:///x.lwf":                                          ErrURI,
		"coap://u@h/" + r.signed.Name(kilo).String():             ErrURI,
		"coap://127.0.0.1:port/" + r.signed.Name(kilo).String():  ErrURI,
		"coap://host.invalid./" + r.signed.Name(kilo).String():   ErrURI,
		"coap://127.0.0.1:99999/" + r.signed.Name(kilo).String(): ErrURI,
	} {
		if _, err := u.Source(t.Context(), uri); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", uri, err, want)
		}
	}
}

// A context's end keeps what was verified.
func TestCancelAndResume(t *testing.T) {
	r := newRelease(t, 200_000, 8, kilo)
	c, flash := r.job(t, r.uri(r.serve(t), kilo))
	ctx, cancel := context.WithCancel(t.Context())
	c.Progress = func(verified, _ int64) {
		if verified > 50_000 {
			cancel()
		}
	}
	if _, err := Run(ctx, c); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	c.Progress = nil
	res := complete(t, c, flash, r.image)
	if res.Resumed < 50_000 {
		t.Fatalf("resumed with %d bytes", res.Resumed)
	}
}

// The store fails at every write in turn; each time the download is resumed.
func TestPowerCutAtEveryWriteOfADownload(t *testing.T) {
	r := newRelease(t, 20_000, 8, kilo)
	addr := r.serve(t)
	for at := 0; ; at++ {
		c, flash := r.job(t, r.uri(addr, kilo))
		p := &power{left: at}
		journal := c.Journal
		c.Flash, c.Journal = &cutStore{flash, p}, &cutStore{journal, p}
		_, err := Run(t.Context(), c)
		if err == nil {
			t.Logf("%d cuts", at)
			if at < 20 {
				t.Fatal("too few writes for the case to show anything")
			}
			return
		}
		if !errors.Is(err, errCut) {
			t.Fatalf("cut %d: %v", at, err)
		}
		c.Flash, c.Journal = flash, journal
		complete(t, c, flash, r.image)
	}
}

var errCut = errors.New("power cut")

type power struct {
	mu   sync.Mutex
	left int
}

// cutStore tears the write at which the power goes, and is dead from then on.
type cutStore struct {
	fragment.Store
	p *power
}

func (s *cutStore) alive() (alive, last bool) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.left--
	return s.p.left >= 0, s.p.left == -1
}

func (s *cutStore) WriteAt(b []byte, off int64) (int, error) {
	alive, last := s.alive()
	if last {
		n, _ := s.Store.WriteAt(b[:len(b)/2], off)
		return n, errCut
	}
	if !alive {
		return 0, errCut
	}
	return s.Store.WriteAt(b, off)
}

func (s *cutStore) Sync() error {
	if alive, _ := s.alive(); !alive {
		return errCut
	}
	return s.Store.Sync()
}

func FuzzParseAnswer(f *testing.F) {
	f.Add(byte(coap.Content), []byte{0xd1, 10, 0x0e, 0xff, 1, 2})
	f.Fuzz(func(t *testing.T, code byte, body []byte) {
		a, ok := parseAnswer(coap.Code(code), body)
		if ok && len(a.Payload) > 0 && !bytes.HasSuffix(body, a.Payload) {
			t.Fatal("payload is not the body's end")
		}
	})
}

func TestBudget(t *testing.T) {
	b := newBudget(time.Hour)
	for range budgetBurst {
		if err := b.take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.take(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("an empty bucket gave a token: %v", err)
	}
	for range 11 {
		b.earn()
	}
	if err := b.take(ctx); err != nil {
		t.Fatalf("eleven verified pieces earn a retry: %v", err)
	}
	for b.left > 0 {
		b.tokens = 1
		if err := b.take(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.take(ctx); !errors.Is(err, ErrSuspended) {
		t.Fatalf("%v", err)
	}
}
