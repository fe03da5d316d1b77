package edhoc

import (
	"bytes"
	"crypto/ecdh"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
)

// TestFlips flips one bit of every byte of every message, one at a time: no
// handshake must come to an end that both sides take for good.
func TestFlips(t *testing.T) {
	for m := SignatureSignature; m <= StaticStatic; m++ {
		for _, s := range []Suite{0, 2, 24} {
			t.Run(fmt.Sprintf("method %d suite %d", m, s), func(t *testing.T) {
				x := newExchange(t, m, s, "kccs", "ccs by kid")
				x.ead = [5][]EAD{{}, {{Label: 1}}, {{Label: 2, Value: []byte{1}}}, {{Label: 3}}, {{Label: 4}}}
				x.mustRun(t)
				for n := 1; n <= 4; n++ {
					for i := range x.messages[n] {
						y := &exchange{i: x.i, r: x.r, trustI: x.trustI, trustR: x.trustR, ead: x.ead}
						y.tamper = func(k int, m []byte) []byte {
							if k == n && i < len(m) {
								m[i] ^= 1 << (i % 8)
							}
							return m
						}
						y.run(t)
						if i >= len(y.messages[n]) {
							continue // lengths do not vary, but be sure not to count it
						}
						if y.errI == nil && y.errR == nil {
							t.Fatalf("message_%d byte %d: nobody noticed", n, i)
						}
						if n < 4 && y.sessionR != nil {
							t.Fatalf("message_%d byte %d: the Responder has a session", n, i)
						}
						if y.sessionI != nil && y.sessionI.Confirmed() {
							t.Fatalf("message_%d byte %d: the Initiator's session is confirmed", n, i)
						}
						if n == 4 {
							if _, err := y.sessionI.Exported(); !errors.Is(err, ErrWiped) {
								t.Fatalf("message_4 byte %d: the session lives on: %v", i, err)
							}
						}
					}
				}
			})
		}
	}
}

// steps is a handshake taken step by step.
type steps struct {
	m1, m2, m3 []byte
	wait2      *WaitMessage2
	wait3      *WaitMessage3
}

// half runs a handshake until message_2 is made.
func half(t *testing.T, x *exchange, ci, cr []byte) steps {
	t.Helper()
	var s steps
	var err error
	if s.m1, s.wait2, err = must[*Initiator](t)(NewInitiator(x.i)).Message1(Start{ConnectionID: ci}); err != nil {
		t.Fatal(err)
	}
	got1 := must[*ReceivedMessage1](t)(must[*Responder](t)(NewResponder(x.r)).Message1(s.m1))
	if s.m2, s.wait3, err = got1.Message2(Reply{ConnectionID: cr}); err != nil {
		t.Fatal(err)
	}
	return s
}

// third goes on until message_3 is made.
func (s *steps) third(t *testing.T, x *exchange) *InitiatorDone {
	t.Helper()
	verified := must[*VerifiedMessage2](t)(must[*ReceivedMessage2](t)(s.wait2.Message2(s.m2)).Authenticate(x.trustI))
	m3, done, err := verified.Message3()
	if err != nil {
		t.Fatal(err)
	}
	s.m3 = m3
	return done
}

// TestReflection sends each message back to who made it.
func TestReflection(t *testing.T) {
	for m := SignatureSignature; m <= StaticStatic; m++ {
		x := newExchange(t, m, 2, "ccs by kid", "ccs by kid")
		t.Run(fmt.Sprintf("method %d", m), func(t *testing.T) {
			s := half(t, x, []byte{1}, []byte{2})
			if _, err := s.wait2.Message2(s.m1); !errors.Is(err, ErrMalformed) {
				t.Errorf("message_1 as message_2: %v", err)
			}
			s = half(t, x, []byte{1}, []byte{2})
			own := must[[]byte](t)(message(append(bytes.Clone(peek(t, &s.wait2.once).gx), make([]byte, 40)...)))
			if _, err := s.wait2.Message2(own); !errors.Is(err, ErrReflected) {
				t.Errorf("G_X as G_Y: %v", err)
			}
			s = half(t, x, []byte{1}, []byte{2})
			if _, err := s.wait3.Message3(s.m2); !errors.Is(err, ErrDecrypt) {
				t.Errorf("message_2 as message_3: %v", err)
			}
			s = half(t, x, []byte{1}, []byte{2})
			done := s.third(t, x)
			if _, err := done.Message4(s.m3); !errors.Is(err, ErrDecrypt) {
				t.Errorf("message_3 as message_4: %v", err)
			}
		})
		// An endpoint with both roles must not authenticate to itself.
		t.Run(fmt.Sprintf("method %d, own identity", m), func(t *testing.T) {
			a := newAuthority(t, "Authority")
			store := newTestStore(a)
			var both []Identity
			for _, static := range []bool{true, false} {
				p := newParty(t, a, fmt.Sprintf("%v", static), 2, static, "ccs by kid")
				p.pin(store)
				both = append(both, p.Identity)
			}
			x := &exchange{
				i:      Config{Identities: both, Methods: []Method{m}, Suites: []Suite{2}},
				r:      Config{Identities: both, Suites: []Suite{2}},
				trustI: store.Anyone(), trustR: store.Anyone(),
			}
			x.run(t)
			if !errors.Is(x.errI, ErrReflected) {
				t.Errorf("Initiator met itself: %v", x.errI)
			}
		})
	}
}

// TestMisbinding has an attacker register somebody else's public key as its
// own: the key proves right, the credential does not.
func TestMisbinding(t *testing.T) {
	// stolen is a store that knows the victim's key as mallory's.
	stolen := func(t *testing.T, victim *Credential) Trust {
		public := any(victim.key.ecdh)
		if victim.key.ecdh == nil {
			public = victim.key.ed
		}
		store := NewStore(StoreConfig{})
		cred := must[*Credential](t)(NewCCS(CCSParams{Subject: "mallory", KID: victim.kid, Public: public}))
		if err := store.Pin("mallory", cred); err != nil {
			t.Fatal(err)
		}
		return store.Anyone()
	}
	for m := SignatureSignature; m <= StaticStatic; m++ {
		for _, s := range []Suite{0, 2, 24} {
			t.Run(fmt.Sprintf("method %d suite %d Responder", m, s), func(t *testing.T) {
				x := newExchange(t, m, s, "ccs by kid", "ccs by kid")
				x.trustI = stolen(t, x.r.Identities[0].Credential)
				if x.run(t); !errors.Is(x.errI, ErrAuthentication) {
					t.Errorf("%v", x.errI)
				}
			})
			t.Run(fmt.Sprintf("method %d suite %d Initiator", m, s), func(t *testing.T) {
				x := newExchange(t, m, s, "ccs by kid", "ccs by kid")
				x.trustR = stolen(t, x.i.Identities[0].Credential)
				if x.run(t); !errors.Is(x.errR, ErrAuthentication) {
					t.Errorf("%v", x.errR)
				}
			})
		}
	}
}

// TestWrongCredential has the wrong peer answer, or the right one with a
// credential that the other cannot or will not take.
func TestWrongCredential(t *testing.T) {
	a := newAuthority(t, "Authority")
	other := newAuthority(t, "Other")
	tests := []struct {
		name string
		make func() (*exchange, *Store)
		want error
		code int
	}{
		{"kid not known", func() (*exchange, *Store) {
			x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
			return x, newTestStore(a)
		}, ErrUnknownCredential, CodeUnknownCredential},
		{"x5t not known", func() (*exchange, *Store) {
			x := newExchange(t, SignatureSignature, 2, "ccs by kid", "x5t")
			return x, newTestStore(a)
		}, ErrUnknownCredential, CodeUnknownCredential},
		{"CCS by value not pinned", func() (*exchange, *Store) {
			x := newExchange(t, StaticStatic, 2, "ccs by kid", "kccs")
			return x, newTestStore(a)
		}, ErrUntrusted, CodeUnspecified},
		{"chain to a root not ours", func() (*exchange, *Store) {
			x := newExchange(t, SignatureSignature, 2, "ccs by kid", "x5chain")
			return x, newTestStore(other)
		}, ErrUntrusted, CodeUnspecified},
		{"CWT of another issuer", func() (*exchange, *Store) {
			x := newExchange(t, SignatureSignature, 2, "ccs by kid", "kcwt")
			return x, newTestStore(other)
		}, ErrUntrusted, CodeUnspecified},
		{"same kid, another key", func() (*exchange, *Store) {
			x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
			store := newTestStore(a)
			newParty(t, a, "responder", 2, true, "ccs by kid").pin(store)
			return x, store
		}, ErrAuthentication, CodeUnspecified},
		{"key on another curve", func() (*exchange, *Store) {
			x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
			store := newTestStore(a)
			newParty(t, a, "responder", 0, true, "ccs by kid").pin(store)
			return x, store
		}, ErrCredentialKey, CodeUnspecified},
		{"signature key where a static one is due", func() (*exchange, *Store) {
			x := newExchange(t, StaticStatic, 0, "ccs by kid", "ccs by kid")
			store := newTestStore(a)
			newParty(t, a, "responder", 0, false, "ccs by kid").pin(store)
			return x, store
		}, ErrCredentialKey, CodeUnspecified},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x, store := tt.make()
			x.trustI = store.Anyone()
			x.run(t)
			if !errors.Is(x.errI, tt.want) {
				t.Fatalf("got %v, want %v", x.errI, tt.want)
			}
			if m, err := ParseErrorMessage(AppendError(nil, x.errI)); err != nil || m.Code != tt.code {
				t.Errorf("error message %+v, %v; want code %d", m, err, tt.code)
			}
		})
	}

	// A trusted peer in the place of the one that was meant.
	store := newTestStore(a)
	for _, kind := range credentialKinds {
		t.Run("trusted, but not who was meant: "+kind, func(t *testing.T) {
			wrong := newParty(t, a, "someone", 2, true, kind)
			right := newParty(t, a, "meant", 2, true, kind)
			wrong.pin(store)
			right.pin(store)
			x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
			x.r = Config{Identities: []Identity{wrong.Identity}}
			x.trustI = store.Expect("meant")
			x.run(t)
			if !errors.Is(x.errI, ErrUnknownCredential) && !errors.Is(x.errI, ErrUntrusted) {
				t.Errorf("got %v", x.errI)
			}
		})
	}
}

// TestSharedKID lets three keys go by one kid; the right one is found.
func TestSharedKID(t *testing.T) {
	a := newAuthority(t, "Authority")
	x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
	store := newTestStore(a)
	pin := func(p party) { p.pin(store) }
	pin(newParty(t, a, "rabbit", 2, true, "ccs by kid"))
	pin(newParty(t, a, "raven", 0, true, "ccs by kid"))
	if err := store.Pin("responder", x.r.Identities[0].Credential); err != nil {
		t.Fatal(err)
	}
	x.trustI = store.Anyone()
	x.mustRun(t)
	if got := store.Name(x.sessionI.Peer()); got != "responder" {
		t.Errorf("peer is %q", got)
	}
}

// TestSwap gives a message of one session to another between the same two.
func TestSwap(t *testing.T) {
	for m := SignatureSignature; m <= StaticStatic; m++ {
		x := newExchange(t, m, 2, "ccs by kid", "ccs by kid")
		a := half(t, x, []byte{1}, []byte{2})
		b := half(t, x, []byte{1}, []byte{2})
		if got, err := a.wait2.Message2(b.m2); err == nil {
			if _, err = got.Authenticate(x.trustI); err == nil {
				t.Errorf("method %d: message_2 of another session passed", m)
			}
		}
		c := half(t, x, []byte{1}, []byte{2})
		b.third(t, x)
		if _, err := c.wait3.Message3(b.m3); !errors.Is(err, ErrDecrypt) {
			t.Errorf("method %d: message_3 of another session: %v", m, err)
		}
		// And the same message_3 again in its own session.
		if _, err := b.wait3.Message3(b.m3); err != nil {
			t.Errorf("method %d: %v", m, err)
		}
		if _, err := b.wait3.Message3(b.m3); !errors.Is(err, ErrConsumed) {
			t.Errorf("method %d: message_3 replayed: %v", m, err)
		}
	}
}

// TestDowngrade strips the preferred suite from SUITES_I under way.
func TestDowngrade(t *testing.T) {
	a := newAuthority(t, "Authority")
	store := newTestStore(a)
	var i, r []Identity
	for n, s := range []Suite{2, 0} {
		pi := newParty(t, a, fmt.Sprintf("%d initiator", n), s, true, "kccs")
		pr := newParty(t, a, fmt.Sprintf("%d responder", n), s, true, "kccs")
		pi.pin(store)
		pr.pin(store)
		i, r = append(i, pi.Identity), append(r, pr.Identity)
	}
	x := &exchange{i: Config{Identities: i, Suites: []Suite{0, 2}}, r: Config{Identities: r}, trustI: store.Anyone(), trustR: store.Anyone()}
	// A forged error message makes the Initiator select suite 2 …
	forged := ErrorMessage{Code: CodeWrongSuite, Suites: []Suite{2}}.Append(nil)
	_, wait2, err := must[*Initiator](t)(NewInitiator(x.i)).Message1(Start{ConnectionID: []byte{5}})
	if err != nil {
		t.Fatal(err)
	}
	var peer *PeerError
	if _, err := wait2.Message2(forged); !errors.As(err, &peer) {
		t.Fatal(err)
	}
	m1, wait2, err := must[*Initiator](t)(NewInitiator(x.i)).Message1(Start{ConnectionID: []byte{5}, PeerSuites: peer.Message.Suites})
	if err != nil {
		t.Fatal(err)
	}
	responder := must[*Responder](t)(NewResponder(x.r))
	// … which the Responder sees in SUITES_I …
	_, err = responder.Message1(m1)
	var suite *SuiteError
	if !errors.As(err, &suite) || len(suite.SuitesR) != 1 || suite.SuitesR[0] != 0 {
		t.Fatalf("got %v", err)
	}
	// … unless that is changed too, which the Initiator finds in message_2.
	stripped := bytes.Replace(m1, []byte{0x82, 0x00, 0x02}, []byte{0x02}, 1)
	got1 := must[*ReceivedMessage1](t)(responder.Message1(stripped))
	m2, _, err := got1.Message2(Reply{ConnectionID: []byte{6}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := wait2.Message2(m2); err == nil {
		if _, err := got.Authenticate(x.trustI); err == nil {
			t.Error("a stripped SUITES_I went unnoticed")
		}
	}
}

// TestOnce takes each step twice, and once more from many goroutines.
func TestOnce(t *testing.T) {
	x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
	m1, wait2, err := must[*Initiator](t)(NewInitiator(x.i)).Message1(Start{ConnectionID: []byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	twice := func(name string, step func() error) {
		t.Helper()
		if err := step(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := step(); !errors.Is(err, ErrConsumed) {
					t.Errorf("%s again: %v", name, err)
				}
			})
		}
		wg.Wait()
	}
	var once sync.Mutex // guards what the first call of each step sets
	got1 := must[*ReceivedMessage1](t)(must[*Responder](t)(NewResponder(x.r)).Message1(m1))
	var m2, m3, m4 []byte
	var wait3 *WaitMessage3
	var got2 *ReceivedMessage2
	var verified *VerifiedMessage2
	var doneI *InitiatorDone
	var got3 *ReceivedMessage3
	var doneR *ResponderDone
	keep := func(err error, set func()) error {
		if err == nil {
			once.Lock()
			defer once.Unlock()
			set()
		}
		return err
	}
	twice("ReceivedMessage1.Message2", func() error {
		m, next, err := got1.Message2(Reply{ConnectionID: []byte{2}})
		return keep(err, func() { m2, wait3 = m, next })
	})
	twice("WaitMessage2.Message2", func() error {
		next, err := wait2.Message2(m2)
		return keep(err, func() { got2 = next })
	})
	twice("ReceivedMessage2.Authenticate", func() error {
		next, err := got2.Authenticate(x.trustI)
		return keep(err, func() { verified = next })
	})
	twice("VerifiedMessage2.Message3", func() error {
		m, next, err := verified.Message3()
		return keep(err, func() { m3, doneI = m, next })
	})
	twice("WaitMessage3.Message3", func() error {
		next, err := wait3.Message3(m3)
		return keep(err, func() { got3 = next })
	})
	twice("ReceivedMessage3.Authenticate", func() error {
		next, err := got3.Authenticate(x.trustR)
		return keep(err, func() { doneR = next })
	})
	twice("ResponderDone.Message4", func() error {
		m, err := doneR.Message4()
		return keep(err, func() { m4 = m })
	})
	twice("InitiatorDone.Message4", func() error {
		_, err := doneI.Message4(m4)
		return err
	})
	if len(AppendError(nil, ErrConsumed)) != 0 {
		t.Error("the peer is told of a step taken twice")
	}
}

// TestForgeries puts forged messages 3 and 4 aside, as many as are allowed.
func TestForgeries(t *testing.T) {
	x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
	x.i.Forgeries, x.r.Forgeries = 3, 3
	s := half(t, x, []byte{1}, []byte{2})
	doneI := s.third(t, x)
	forged := [][]byte{
		must[[]byte](t)(message(make([]byte, 20))),
		{0xff, 0xff},
		ErrorMessage{Code: CodeUnspecified, Diagnostic: "forged"}.Append(nil),
	}
	for _, f := range forged {
		_, err := s.wait3.Message3(f)
		if !errors.Is(err, ErrIgnored) || len(AppendError(nil, err)) != 0 {
			t.Fatalf("message_3 %x: %v", f, err)
		}
	}
	doneR := must[*ResponderDone](t)(must[*ReceivedMessage3](t)(s.wait3.Message3(s.m3)).Authenticate(x.trustR))
	m4 := must[[]byte](t)(doneR.Message4())
	for _, f := range forged {
		if _, err := doneI.Message4(f); !errors.Is(err, ErrIgnored) {
			t.Fatalf("message_4 %x: %v", f, err)
		}
	}
	if _, err := doneI.Message4(m4); err != nil || !doneI.Session().Confirmed() {
		t.Fatalf("the genuine message_4: %v", err)
	}

	s = half(t, x, []byte{1}, []byte{2})
	for range 3 {
		if _, err := s.wait3.Message3(forged[0]); !errors.Is(err, ErrIgnored) {
			t.Fatal(err)
		}
	}
	if _, err := s.wait3.Message3(forged[0]); errors.Is(err, ErrIgnored) || !errors.Is(err, ErrDecrypt) {
		t.Fatalf("one more than allowed: %v", err)
	}
	if _, err := s.wait3.Message3(forged[0]); !errors.Is(err, ErrConsumed) {
		t.Fatalf("after the end: %v", err)
	}
}

// TestEqualIdentifiers: OSCORE cannot have them (RFC 9668 §4.1).
func TestEqualIdentifiers(t *testing.T) {
	proof.Checklist(t, "C-14")
	wait2 := startInitiator(t, newAuthority(t, "Authority")) // with C_I 0e
	_, err := wait2.Message2(sealPlaintext2(t, peek(t, &wait2.once), unhex(t, "0e3248fa5efa2ebf920bf3")))
	if m, perr := ParseErrorMessage(AppendError(nil, err)); !errors.Is(err, ErrConnectionID) || perr != nil || m.Code != CodeUnspecified {
		t.Errorf("C_R = C_I in message_2: %v, answered by %+v, %v", err, m, perr)
	}
	x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
	m1, _, err := must[*Initiator](t)(NewInitiator(x.i)).Message1(Start{ConnectionID: []byte{5}})
	if err != nil {
		t.Fatal(err)
	}
	got1 := must[*ReceivedMessage1](t)(must[*Responder](t)(NewResponder(x.r)).Message1(m1))
	if _, _, err := got1.Message2(Reply{ConnectionID: []byte{5}}); !errors.Is(err, ErrConnectionID) {
		t.Errorf("C_R = C_I: %v", err)
	}
	for _, id := range [][]byte{nil, {}, {0x18}, {0x37}, {0xab, 0xcd}, make([]byte, 7)} {
		s := half(t, x, id, []byte{9})
		done := s.third(t, x)
		if ci, cr := done.Session().ConnectionIDs(); !bytes.Equal(ci, id) || !bytes.Equal(cr, []byte{9}) {
			t.Errorf("C_I %x: got %x, %x", id, ci, cr)
		}
	}
}

// TestPublicKeyOfCredential: a static key that is no point, or of low order.
func TestPublicKeyOfCredential(t *testing.T) {
	x := newExchange(t, StaticStatic, 0, "ccs by kid", "ccs by kid")
	low := must[*ecdh.PublicKey](t)(ecdh.X25519().NewPublicKey(make([]byte, 32)))
	cred := must[*Credential](t)(NewCCS(CCSParams{Subject: "low", KID: x.r.Identities[0].Credential.kid, Public: low}))
	store := NewStore(StoreConfig{})
	if err := store.Pin("low", cred); err != nil {
		t.Fatal(err)
	}
	x.trustI = store.Anyone()
	x.run(t)
	if !errors.Is(x.errI, ErrPublicKey) {
		t.Errorf("static key of low order: %v", x.errI)
	}
}
