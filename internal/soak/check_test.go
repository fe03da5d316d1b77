package soak

import (
	"bytes"
	"crypto/cipher"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/internal/capture"
	"github.com/oscorelay/oscorelay/testvectors"
)

var (
	deviceAddr = netip.MustParseAddrPort("127.0.0.1:40000")
	serverAddr = netip.MustParseAddrPort("127.0.0.1:5683")
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func packet(up bool, data []byte) capture.Packet {
	p := capture.Packet{At: time.Unix(1700000000, 0), From: deviceAddr, To: serverAddr, Data: data}
	if !up {
		p.From, p.To = p.To, p.From
	}
	return p
}

// vectors are the messages of RFC 8613 Appendix C, and their contexts.
func vectors(t *testing.T) (messages map[string][]byte, one, three Context) {
	t.Helper()
	raw, err := testvectors.FS.ReadFile("rfc8613.json")
	if err != nil {
		t.Fatal(err)
	}
	type side struct {
		Secret string `json:"master_secret"`
		Salt   string `json:"master_salt"`
		ID     string `json:"id_context"`
		Sender string `json:"sender_id"`
		Recip  string `json:"recipient_id"`
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	messages = map[string][]byte{}
	get := func(name string) (c Context) {
		var v struct {
			Client  side
			Message string `json:"oscore_message"`
		}
		if err := json.Unmarshal(all[name], &v); err != nil {
			t.Fatal(err)
		}
		messages[name] = unhex(t, v.Message)
		c = Context{Name: name, MasterSecret: unhex(t, v.Client.Secret), MasterSalt: unhex(t, v.Client.Salt), Device: unhex(t, v.Client.Sender), Server: unhex(t, v.Client.Recip)}
		if v.Client.ID != "" {
			c.IDContext = unhex(t, v.Client.ID)
		}
		return c
	}
	one, three = get("C.1"), get("C.3")
	for _, name := range []string{"C.4", "C.6", "C.7", "C.8"} {
		get(name)
	}
	return messages, one, three
}

// The witness reads what RFC 8613 printed, and its keys are those.
func TestWitnessReadsTheVectors(t *testing.T) {
	m, one, three := vectors(t)
	for _, c := range []struct {
		answer    string
		partialIV uint64
	}{{"C.7", 0}, {"C.8", 0}} {
		r, err := Check([]capture.Packet{packet(true, m["C.4"]), packet(false, m[c.answer]), packet(true, m["C.6"])}, serverAddr, one, three)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Faults) > 0 || r.Foreign+r.Unmatched > 0 || r.Sealed != 3 || r.Nonces != 3 || len(r.Messages) != 3 {
			t.Fatalf("%s: %+v", c.answer, r)
		}
		req, resp := r.Messages[0], r.Messages[1]
		if req.Path != "/tv1" || req.Code != 1 || req.PartialIV != 20 || !req.Request || !req.ToServer || req.Context != "C.1" ||
			resp.Code != 0x45 || string(resp.Payload) != "Hello World!" || resp.PartialIV != c.partialIV || r.Messages[2].Context != "C.3" {
			t.Errorf("%s: %+v", c.answer, r.Messages)
		}
	}
}

// sealer makes sealed messages, good and bad ones.
type sealer struct {
	t *testing.T
	m material
}

// seal returns a message; a response with nil as its Partial IV uses its request's.
func (s *sealer) seal(up, request bool, mid uint16, token string, kid, requestIV, partialIV []byte, observe bool, plain string) []byte {
	s.t.Helper()
	id, key := s.m.Device, s.m.up
	if !up {
		id, key = s.m.Server, s.m.down
	}
	nonce := s.m.nonce(kid, requestIV)
	value := []byte{}
	if partialIV != nil {
		nonce = s.m.nonce(id, partialIV)
		value = append([]byte{byte(len(partialIV))}, partialIV...)
		if request {
			value[0] |= 8
			value = append(value, kid...)
		}
	}
	code := byte(2)
	if !request {
		code = 0x44
	}
	b := append([]byte{0x40 | byte(len(token)), code, byte(mid >> 8), byte(mid)}, token...)
	delta := byte(9)
	if observe {
		b, delta = append(b, 0x60), 3
	}
	b = append(append(b, delta<<4|byte(len(value))), value...)
	return append(append(b, 0xff), sealCCM(key, nonce, aad(kid, requestIV), []byte(plain))...)
}

// sealCCM is open the other way round: what opens to the plaintext is found from
// the key stream, and the tag from the opening.
func sealCCM(key cipher.Block, nonce [nonceLen]byte, aad, plain []byte) []byte {
	zero := make([]byte, len(plain)+tagLen)
	stream, _ := open(key, nonce, aad, zero)
	for i := range plain {
		zero[i] = stream[i] ^ plain[i]
	}
	copy(zero[len(plain):], tag(key, nonce, aad, plain))
	return zero
}

func tag(key cipher.Block, nonce [nonceLen]byte, aad, plain []byte) []byte {
	b0 := append([]byte{0x59}, nonce[:]...)
	b0 = append(b0, byte(len(plain)>>8), byte(len(plain)))
	a := append([]byte{byte(len(aad) >> 8), byte(len(aad))}, aad...)
	pad := func(b []byte) []byte { return append(b, make([]byte, (16-len(b)%16)%16)...) }
	x := make([]byte, 16)
	all := append(append(b0, pad(a)...), pad(bytes.Clone(plain))...)
	out := make([]byte, len(all))
	cipher.NewCBCEncrypter(key, x).CryptBlocks(out, all)
	s0 := make([]byte, 16)
	key.Encrypt(s0, append(append([]byte{1}, nonce[:]...), 0, 0))
	mac := out[len(out)-16:]
	for i := range tagLen {
		mac[i] ^= s0[i]
	}
	return mac[:tagLen]
}

// Each rule that is broken is seen, and nothing else.
func TestWitnessSeesFaults(t *testing.T) {
	c := Context{Name: "dev", MasterSecret: bytes.Repeat([]byte{7}, 16), Device: []byte{0xd1}, Server: []byte{0x51}}
	m, err := derive(c)
	if err != nil {
		t.Fatal(err)
	}
	s := &sealer{t, m}
	request := func(mid uint16, token string, n byte, plain string) capture.Packet {
		return packet(true, s.seal(true, true, mid, token, c.Device, []byte{n}, []byte{n}, strings.HasPrefix(plain, "\x05"), plain))
	}
	answer := func(mid uint16, token string, n byte, own []byte, plain string) capture.Packet {
		return packet(false, s.seal(false, false, mid, token, c.Device, []byte{n}, own, false, plain))
	}
	const (
		post, changed = "\x02\xb1a\xff", "\x44"
		observe       = "\x05\x60\x51a" // FETCH with Observe 0
		notified      = "\x45\x60\xff"
		challenge     = "\x81\xd1\xefe" // 4.01 with Echo
	)
	for _, x := range []struct {
		name    string
		packets []capture.Packet
		want    string
	}{
		{"good", []capture.Packet{request(1, "t", 1, post+"x"), request(1, "t", 1, post+"x"), answer(9, "t", 1, nil, changed), request(2, "u", 2, post+"y")}, ""},
		{"challenge", []capture.Packet{request(1, "t", 1, post+"x"), answer(8, "t", 1, []byte{1}, challenge), request(2, "t", 2, post+"x"), answer(9, "t", 2, nil, changed)}, ""},
		{"observation", []capture.Packet{request(1, "t", 1, observe), answer(8, "t", 1, []byte{1}, notified+"1"), answer(9, "t", 1, []byte{2}, notified+"2"), answer(9, "t", 1, []byte{2}, notified+"2")}, ""},
		{"a number twice", []capture.Packet{request(1, "t", 1, post+"x"), request(2, "u", 1, post+"y")}, "NONCE used twice: context dev, toward the server: true, Partial IV 1"},
		{"two answers under one nonce", []capture.Packet{request(1, "t", 1, post+"x"), answer(8, "t", 1, nil, changed), answer(9, "t", 1, nil, "\x80")}, "NONCE used twice"},
		{"accepted twice", []capture.Packet{request(1, "t", 1, post+"x"), answer(8, "t", 1, nil, changed), answer(9, "t", 1, []byte{5}, changed)}, "ACCEPTED twice"},
		{"a challenge under the request's nonce, and an answer", []capture.Packet{request(1, "t", 1, post+"x"), answer(8, "t", 1, nil, challenge), answer(9, "t", 1, []byte{5}, changed)}, "ACCEPTED twice"},
		{"back in time", []capture.Packet{request(1, "t", 1, observe), answer(8, "t", 1, []byte{7}, notified+"7"), answer(9, "t", 1, []byte{6}, notified+"6")}, "notification 6 after 7"},
		{"plain request", []capture.Packet{packet(true, []byte("\x40\x01\x00\x01\xb1a"))}, `PLAIN: code 0.01, path "/a"`},
		{"plain answer", []capture.Packet{packet(false, []byte("\x40\x45\x00\x01\xffvalue"))}, `payload "value"`},
		{"plain error", []capture.Packet{packet(false, []byte("\x60\x81\x00\x01\xd0\x01\xffReplay detected"))}, ""},
		{"plain error that tells more", []capture.Packet{packet(false, []byte("\x60\x81\x00\x01\xffsecret"))}, "PLAIN"},
		{"message ID", []capture.Packet{request(1, "t", 1, post+"x"), request(1, "u", 2, post+"y")}, "message ID 1"},
		{"garbage", []capture.Packet{packet(true, []byte("\x00"))}, "not a CoAP message"},
	} {
		t.Run(x.name, func(t *testing.T) {
			r, err := Check(x.packets, serverAddr, c)
			if err != nil {
				t.Fatal(err)
			}
			if r.Foreign+r.Unmatched > 0 {
				t.Errorf("%d foreign, %d unmatched", r.Foreign, r.Unmatched)
			}
			if x.want == "" && len(r.Faults) > 0 {
				t.Errorf("%v", r.Faults)
			}
			if x.want != "" && (len(r.Faults) != 1 || !strings.Contains(r.Faults[0].Error(), x.want)) {
				t.Errorf("%v, want %s", r.Faults, x.want)
			}
		})
	}
}

// What belongs to no context is counted as that, not passed over.
func TestWitnessCountsForeign(t *testing.T) {
	m, one, three := vectors(t)
	one.MasterSecret = bytes.Repeat([]byte{1}, 16)
	r, err := Check([]capture.Packet{packet(true, m["C.4"]), packet(true, m["C.6"]), packet(false, m["C.7"])}, serverAddr, one, three)
	if err != nil {
		t.Fatal(err)
	}
	if r.Foreign != 1 || r.Unmatched != 1 || len(r.Messages) != 1 {
		t.Errorf("%+v", r)
	}
}

// FuzzCheck: no datagram makes the witness panic.
func FuzzCheck(f *testing.F) {
	f.Add([]byte("\x44\x02\x5d\x1f\x00\x00\x39\x74\x39localhost\x62\x09\x14\xff\x61\x2f\x10\x92\xf1\x77\x6f\x1c\x16\x68\xb3\x82\x5e"))
	f.Add([]byte("\x60\x81\x00\x01\xd0\x01\xffReplay detected"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := Context{MasterSecret: bytes.Repeat([]byte{7}, 16), Device: []byte{}, Server: []byte{1}}
		r, err := Check([]capture.Packet{packet(true, b), packet(false, b)}, serverAddr, c)
		if err != nil || r.Datagrams != 2 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}
