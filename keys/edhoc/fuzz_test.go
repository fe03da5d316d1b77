package edhoc

import (
	"bytes"
	"runtime"
	"testing"
)

// again returns a copy of a waiting handshake, so that one costly beginning
// serves many messages.
func again(h *handshake) *handshake {
	c := *h
	for _, p := range []**prk{&c.prk2e, &c.prk3e2m, &c.prk4e3m} {
		if *p != nil {
			*p = (*p).clone()
		}
	}
	return &c
}

// seeds adds the messages of a few handshakes.
func seeds(f *testing.F, n int) {
	f.Helper()
	for _, kind := range credentialKinds {
		for m := SignatureSignature; m <= StaticStatic; m++ {
			x := newExchange(f, m, 2, kind, kind)
			x.ead = [5][]EAD{nil, {{Label: 1}}, {{Label: 2, Value: []byte{1}}}, {{}}, {{Label: 4, Value: []byte{}}}}
			x.mustRun(f)
			f.Add(x.messages[n])
		}
	}
	f.Add(ErrorMessage{Code: CodeUnspecified, Diagnostic: "x"}.Append(nil))
	f.Add([]byte{0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
}

// midway is an exchange of method 3 and suite 2, with its two waiting states.
func midway(t testing.TB) (x *exchange, hi, hr *handshake) {
	t.Helper()
	x = newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
	m1, wait2, err := must[*Initiator](t)(NewInitiator(x.i)).Message1(Start{ConnectionID: []byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	_, wait3, err := must[*ReceivedMessage1](t)(must[*Responder](t)(NewResponder(x.r)).Message1(m1)).Message2(Reply{ConnectionID: []byte{2}})
	if err != nil {
		t.Fatal(err)
	}
	return x, wait2.p.Load(), wait3.p.Load()
}

func FuzzMessage1(f *testing.F) {
	seeds(f, 1)
	for _, m := range []string{"0000582031f82c7b5b9cbbf0f194d913cc12ef1532d328ef32632a4881a1c0701e237f042d"} {
		f.Add(unhex(f, m))
	}
	x := newExchange(f, StaticStatic, 2, "ccs by kid", "ccs by kid")
	responder := must[*Responder](f)(NewResponder(x.r))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := ParseMessage1(data); err == nil {
			back, err := ParseMessage1(m.append(nil))
			if err != nil || !bytes.Equal(back.append(nil), m.append(nil)) {
				t.Fatalf("%x came back as %+v, %v", data, back, err)
			}
		}
		got, err := responder.Message1(data)
		if err != nil {
			if _, perr := ParseErrorMessage(AppendError(nil, err)); perr != nil {
				t.Fatalf("error message for %v: %v", err, perr)
			}
			return
		}
		if _, _, err := got.Message2(Reply{ConnectionID: []byte{0x17, 0x17}}); err != nil {
			t.Logf("refused late: %v", err)
		}
	})
}

func FuzzMessage2(f *testing.F) {
	seeds(f, 2)
	x, hi, _ := midway(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		wait2 := new(WaitMessage2)
		wait2.put(again(hi))
		if got, err := wait2.Message2(data); err == nil {
			if _, err := got.Authenticate(x.trustI); err == nil {
				t.Fatalf("%x passed for message_2", data)
			}
		}
	})
}

// FuzzPlaintext2 is what a stranger can have us decrypt.
func FuzzPlaintext2(f *testing.F) {
	x, hi, _ := midway(f)
	for _, kind := range credentialKinds {
		p := newParty(f, newAuthority(f, "A"), "responder", 2, true, kind)
		id, err := p.Identity.checked()
		if err != nil {
			f.Fatal(err)
		}
		f.Add((&plaintext{idCred: id.ID, sigMAC: make([]byte, 8), rawEAD: []byte{1, 0x41, 2}}).appendRest([]byte{0x27}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 || len(data) > MaxMessage-100 {
			return
		}
		if p, err := parsePlaintext2(data); err == nil {
			back := p.appendRest(AppendConnectionID(nil, p.cr))
			if !bytes.Equal(back, data) {
				t.Fatalf("%x came back as %x", data, back)
			}
		}
		h := again(hi)
		h.gPeer = nil
		wait2 := new(WaitMessage2)
		wait2.put(h)
		if got, err := wait2.Message2(sealPlaintext2(t, hi, data)); err == nil {
			_ = got.CredentialID().String()
			if _, err := got.Authenticate(x.trustI); err == nil {
				t.Fatalf("%x passed for PLAINTEXT_2", data)
			}
		}
	})
}

func FuzzMessage3(f *testing.F) {
	seeds(f, 3)
	x, _, hr := midway(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		// As it is: what comes from the network.
		wait3 := new(WaitMessage3)
		wait3.put(again(hr))
		if _, err := wait3.Message3(data); err == nil {
			t.Fatalf("%x passed for message_3", data)
		}
		// Sealed: what the Initiator may put into it.
		if len(data) > MaxMessage-100 {
			return
		}
		sealed := must[[]byte](t)(hr.seal(hr.prk3e2m, labelK3, labelIV3, hr.th3, data))
		wait3.put(again(hr))
		if got, err := wait3.Message3(must[[]byte](t)(message(sealed))); err == nil {
			_ = got.CredentialID().String()
			if _, err := got.Authenticate(x.trustR); err == nil {
				t.Fatalf("%x passed for PLAINTEXT_3", data)
			}
		}
	})
}

func FuzzMessage4(f *testing.F) {
	seeds(f, 4)
	f.Add([]byte{})
	x := newExchange(f, StaticStatic, 2, "ccs by kid", "ccs by kid")
	x.mustRun(f)
	h := &handshake{endpoint: must[*Initiator](f)(NewInitiator(x.i)).e, suite: suites[2], prk4e3m: newPRK(hashSHA256, make([]byte, 32)), th4: make([]byte, 32)}
	f.Fuzz(func(t *testing.T, data []byte) {
		done := &InitiatorDone{session: new(Session)}
		done.put(again(h))
		if _, err := done.Message4(data); err == nil {
			t.Fatalf("%x passed for message_4", data)
		}
		if len(data) > MaxMessage-100 {
			return
		}
		sealed := must[[]byte](t)(h.seal(h.prk4e3m, labelK4, labelIV4, h.th4, data))
		done.put(again(h))
		ead, err := done.Message4(must[[]byte](t)(message(sealed)))
		if want, perr := parsePlaintext4(data); (perr == nil && checkCritical(want, nil) == nil) != (err == nil) || len(ead) > maxEADs {
			t.Fatalf("%x: %d items, %v", data, len(ead), err)
		}
	})
}

func FuzzErrorMessage(f *testing.F) {
	for _, m := range []ErrorMessage{
		{Code: CodeUnspecified, Diagnostic: "text"}, {Code: CodeWrongSuite, Suites: []Suite{2, 3}}, {Code: CodeUnknownCredential}, {Code: 99, Info: []byte{0xa0}},
	} {
		f.Add(m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseErrorMessage(data)
		if err != nil {
			return
		}
		if len(m.Diagnostic) < maxDiagnostic && !bytes.Equal(m.Append(nil), data) {
			t.Fatalf("%x came back as %x", data, m.Append(nil))
		}
		_ = (&PeerError{m, nil}).Error()
	})
}

func FuzzCredential(f *testing.F) {
	a := newAuthority(f, "A")
	for _, kind := range credentialKinds {
		f.Add(newParty(f, a, "x", 2, true, kind).Credential.Bytes())
		f.Add(newParty(f, a, "x", 0, false, kind).Credential.Bytes())
	}
	store := newTestStore(a)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, parse := range parsers {
			c, err := parse(data)
			if err != nil {
				continue
			}
			back, err := parse(c.Bytes())
			if err != nil || !back.Equal(c) {
				t.Fatalf("%x came back as %v, %v", data, back, err)
			}
			id, err := ByValue(c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseCredentialID(id.item)
			if err != nil || got.String() != id.String() {
				t.Fatalf("%x named as %v, %v", data, got, err)
			}
			_, _ = store.Anyone().Candidates(RoleInitiator, id, nil)
			_, _ = c.String(), c.Subject()
		}
	})
}

func FuzzStoreState(f *testing.F) {
	a := newAuthority(f, "A")
	store := newTestStore(a)
	for _, kind := range []string{"kccs", "kcwt", "x5chain"} {
		if err := store.Pin(kind, newParty(f, a, kind, 2, true, kind).Credential, []byte{1}); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(must[[]byte](f)(store.Export()))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := NewStore(StoreConfig{})
		if s.Import(data) != nil {
			return
		}
		again := NewStore(StoreConfig{})
		out := must[[]byte](t)(s.Export())
		if err := again.Import(out); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	})
}

// TestMemory gives each parser what claims to be large: it must not believe it.
func TestMemory(t *testing.T) {
	x, hi, hr := midway(t)
	responder := must[*Responder](t)(NewResponder(x.r))
	huge := []string{"9bffffffffffffffff", "bbffffffffffffffff", "5bffffffffffffffff", "7bffffffffffffffff", "9a7fffffff", "ba7fffffff", "5a7fffffff", "99ffff", "b9ffff"}
	for _, h := range huge {
		item := unhex(t, h)
		for name, parse := range map[string]func(){
			"message_1 SUITES_I": func() { _, _ = responder.Message1(append([]byte{3}, item...)) },
			"message_1 G_X":      func() { _, _ = responder.Message1(append([]byte{3, 2}, item...)) },
			"message_2": func() {
				w := new(WaitMessage2)
				w.put(again(hi))
				_, _ = w.Message2(item)
			},
			"PLAINTEXT_2": func() { _, _ = parsePlaintext2(append([]byte{0x27}, item...)) },
			"x5chain":     func() { _, _ = parsePlaintext2(append([]byte{0x27, 0xa1, 0x18, 33}, item...)) },
			"message_3": func() {
				w := new(WaitMessage3)
				w.put(again(hr))
				_, _ = w.Message3(item)
			},
			"error":    func() { _, _ = ParseErrorMessage(append([]byte{2}, item...)) },
			"CCS":      func() { _, _ = ParseCCS(append([]byte{0xa1, 8}, item...)) },
			"COSE_Key": func() { _, _ = ParseCCS(append([]byte{0xa1, 8, 0xa1, 1}, item...)) },
			"CWT":      func() { _, _ = ParseCWT(append([]byte{0x84}, item...)) },
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			parse()
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
				t.Errorf("%s with %s took %d bytes", name, h, n)
			}
		}
	}
}
