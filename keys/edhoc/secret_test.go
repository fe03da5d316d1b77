package edhoc

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

// TestRedaction prints every state in every way and looks for its secrets.
func TestRedaction(t *testing.T) {
	x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
	s := half(t, x, []byte{1}, []byte{2})
	hi, hr := peek(t, &s.wait2.once), peek(t, &s.wait3.once)
	received := must[*ReceivedMessage2](t)(s.wait2.Message2(s.m2))
	show := func(name string, v any, secrets ...[]byte) {
		t.Helper()
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		asJSON, _ := json.Marshal(v)
		shown := log.String() + string(asJSON)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
			shown += fmt.Sprintf(verb, v)
		}
		for _, secret := range secrets {
			if len(secret) == 0 {
				t.Fatalf("%s: nothing to look for", name)
			}
			for _, form := range []string{string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)), strings.Trim(fmt.Sprint(secret), "[]")} {
				if strings.Contains(shown, form) {
					t.Errorf("%s shows a secret: %s", name, shown)
				}
			}
		}
	}
	show("ReceivedMessage2", received, hi.prk2e.key, hi.receivedPlain)
	show("WaitMessage3", s.wait3, hr.prk3e2m.key)
	show("Initiator", must[*Initiator](t)(NewInitiator(x.i)))
	verified := must[*VerifiedMessage2](t)(received.Authenticate(x.trustI))
	show("VerifiedMessage2", verified, hi.prk3e2m.key)
	_, done, err := verified.Message3()
	if err != nil {
		t.Fatal(err)
	}
	show("InitiatorDone", done, hi.prk4e3m.key, done.session.prkOut.key)
	show("Session", done.Session(), done.session.prkOut.key, done.session.prkExporter.key)
	e := must[Exported](t)(done.Session().Exported())
	show("Exported", e, e.MasterSecret)
	show("Exported", &e, e.MasterSecret)
}

func zero(b []byte) bool { return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }) }

func wiped(p *prk) bool { return p == nil || zero(p.key) && p.mac == nil }

// TestWipe looks at the secrets after failures and after the end.
func TestWipe(t *testing.T) {
	x := newExchange(t, StaticStatic, 2, "ccs by kid", "ccs by kid")
	check := func(when string, h *handshake) {
		t.Helper()
		if h.ephemeral != nil || !wiped(h.prk2e) || !wiped(h.prk3e2m) || !wiped(h.prk4e3m) || !zero(h.receivedPlain) {
			t.Errorf("%s: secrets are left", when)
		}
	}
	s := half(t, x, []byte{1}, []byte{2})
	h := peek(t, &s.wait3.once)
	if wiped(h.prk3e2m) {
		t.Fatal("nothing to wipe")
	}
	if _, err := s.wait3.Message3([]byte{0x40}); err == nil {
		t.Fatal("empty message_3 passed")
	}
	check("message_3 fails", h)

	s = half(t, x, []byte{1}, []byte{2})
	h = peek(t, &s.wait3.once)
	s.wait3.Abort()
	check("Abort", h)
	s.wait3.Abort()

	s = half(t, x, []byte{1}, []byte{2})
	h = peek(t, &s.wait2.once)
	if _, err := must[*ReceivedMessage2](t)(s.wait2.Message2(s.m2)).Verify(); err == nil {
		t.Fatal("no candidate passed")
	}
	check("Verify fails", h)

	s = half(t, x, []byte{1}, []byte{2})
	hi, hr := peek(t, &s.wait2.once), peek(t, &s.wait3.once)
	doneI := s.third(t, x)
	doneR := must[*ResponderDone](t)(must[*ReceivedMessage3](t)(s.wait3.Message3(s.m3)).Authenticate(x.trustR))
	m4 := must[[]byte](t)(doneR.Message4())
	if _, err := doneI.Message4(m4); err != nil {
		t.Fatal(err)
	}
	check("Initiator after message_4", hi)
	check("Responder after message_4", hr)

	session := doneI.Session()
	out, exporter := session.prkOut.key, session.prkExporter.key
	if err := session.KeyUpdate([]byte("again")); err != nil {
		t.Fatal(err)
	}
	if !zero(out) || !zero(exporter) {
		t.Error("KeyUpdate leaves the old keys")
	}
	out, exporter = session.prkOut.key, session.prkExporter.key
	session.Wipe()
	if !zero(out) || !zero(exporter) {
		t.Error("Wipe leaves keys")
	}
	if _, err := session.Exporter(32768, nil, 16); err != ErrWiped {
		t.Errorf("Exporter after Wipe: %v", err)
	}
	if err := session.KeyUpdate(nil); err != ErrWiped {
		t.Errorf("KeyUpdate after Wipe: %v", err)
	}
}

func TestExporter(t *testing.T) {
	x := newExchange(t, StaticStatic, 24, "ccs by kid", "ccs by kid")
	x.mustRun(t)
	a := must[[]byte](t)(asBytes(x.sessionI.Exporter(40000, []byte("ctx"), 100)))
	b := must[[]byte](t)(asBytes(x.sessionR.Exporter(40000, []byte("ctx"), 100)))
	c := must[[]byte](t)(asBytes(x.sessionR.Exporter(40000, []byte("other"), 100)))
	if !bytes.Equal(a, b) || bytes.Equal(a, c) {
		t.Error("Exporter")
	}
	if _, err := x.sessionI.Exporter(1, nil, 255*48+1); err == nil {
		t.Error("Exporter gave more than HKDF can")
	}
	salt := 16
	e := must[Exported](t)(x.sessionI.ExportedLengths(Lengths{Key: 48, Salt: &salt}))
	if len(e.MasterSecret) != 48 || len(e.MasterSalt) != 16 || e.Hash != algSHA384 {
		t.Errorf("lengths %d, %d, hash %d", len(e.MasterSecret), len(e.MasterSalt), e.Hash)
	}
	if _, err := x.sessionI.ExportedLengths(Lengths{Key: 16}); err == nil {
		t.Error("a key shorter than the AEAD's")
	}
	e.Wipe()
	if !zero(e.MasterSecret) || !zero(e.MasterSalt) {
		t.Error("Exported.Wipe leaves secrets")
	}
}

func asBytes[T ~[]byte](b T, err error) ([]byte, error) { return b, err }
