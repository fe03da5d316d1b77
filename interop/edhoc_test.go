//go:build interop

package interop

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
	"github.com/oscorelay/oscorelay/interop/peer"
	"github.com/oscorelay/oscorelay/keys/edhoc"
)

// edhocPeers are the two lakers: the crate, and PyPI's, which comes with
// aiocoap and takes EAD items.
var edhocPeers = []struct {
	name, component string
	start           func(testing.TB, peer.EDHOCSide) *peer.Lakers
	ead             bool
}{
	{"lakers (Rust)", "lakers", peer.LakersRust, false},
	{"lakers-python", "aiocoap", peer.LakersPython, true},
}

// edhocParty makes a P-256 key in a CCS.
func edhocParty(t testing.TB, subject string, kid byte) (edhoc.Identity, []byte) {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := edhoc.NewCCS(edhoc.CCSParams{Subject: subject, KID: []byte{kid}, Public: key.PublicKey()})
	if err != nil {
		t.Fatal(err)
	}
	return edhoc.Identity{Credential: cred, Exchanger: key}, key.Bytes()
}

// edhocCase is a handshake between us and lakers.
type edhocCase struct {
	ownByValue, theirsByValue, message4 bool
	own, theirs                         []byte // connection identifiers
	ead                                 bool
}

func (c edhocCase) String() string {
	style := func(v bool) string { return map[bool]string{true: "value", false: "kid"}[v] }
	s := fmt.Sprintf("our credential by %s, theirs by %s, C %x and %x", style(c.ownByValue), style(c.theirsByValue), c.own, c.theirs)
	if c.message4 {
		s += ", message_4"
	}
	if c.ead {
		s += ", EAD"
	}
	return s
}

var edhocCases = []edhocCase{
	{own: []byte{0x05}, theirs: []byte{0x27}, message4: true},
	{own: []byte{0x05}, theirs: []byte{0x27}},
	{own: []byte{0x05}, theirs: []byte{0x27}, ownByValue: true, message4: true},
	{own: []byte{0x05}, theirs: []byte{0x27}, theirsByValue: true, message4: true},
	{own: []byte{0x05}, theirs: []byte{0x27}, ownByValue: true, theirsByValue: true},
	{own: []byte{0x18}, theirs: []byte{0xff}, message4: true},
	{own: []byte{}, theirs: []byte{0xab, 0xcd, 0xef, 0, 1, 2, 3}, message4: true},
	{own: []byte{0xab, 0xcd, 0xef, 0, 1, 2, 3}, theirs: []byte{0x37}, message4: true},
	{own: []byte{0x05}, theirs: []byte{0x27}, message4: true, ead: true},
}

// TestEDHOCLakers runs handshakes of method 3, suite 2, in both roles.
func TestEDHOCLakers(t *testing.T) {
	for _, p := range edhocPeers {
		t.Run(p.name, func(t *testing.T) {
			version := p.name + " of " + peer.Version(t, p.component)
			for _, c := range edhocCases {
				if c.ead && !p.ead {
					continue
				}
				t.Run("we initiate: "+c.String(), func(t *testing.T) {
					proof.Interop(t, version, "our Initiator → its Responder", "EDHOC method 3, suite 2")
					c.initiate(t, p.start)
				})
				t.Run("it initiates: "+c.String(), func(t *testing.T) {
					proof.Interop(t, version, "its Initiator → our Responder", "EDHOC method 3, suite 2")
					c.respond(t, p.start)
				})
			}
		})
	}
}

// our items: one with a value, one without, padding.
var ourEAD = []edhoc.EAD{{Label: 7, Value: []byte{1, 2, 3}}}

func (c edhocCase) set(t *testing.T, own *edhoc.Identity) (ead []edhoc.EAD) {
	t.Helper()
	if c.ownByValue {
		var err error
		if own.ID, err = edhoc.ByValue(own.Credential); err != nil {
			t.Fatal(err)
		}
	}
	if c.ead {
		return ourEAD
	}
	return nil
}

func (c edhocCase) side(role string, key []byte, own, other *edhoc.Credential) peer.EDHOCSide {
	s := peer.EDHOCSide{
		Role: role, Key: key, Credential: own.Bytes(), Peer: other.Bytes(),
		ConnectionID: c.theirs, ByValue: c.theirsByValue, Message4: c.message4,
	}
	if c.ead {
		s.EAD = []string{"9:0a0b"}
	}
	return s
}

// checkEAD checks what either side made of the other's items.
func (c edhocCase) checkEAD(t *testing.T, message int, theirs []edhoc.EAD) {
	t.Helper()
	if !c.ead {
		return
	}
	if len(theirs) != 1 || theirs[0].Label != 9 || theirs[0].Critical || !bytes.Equal(theirs[0].Value, []byte{0x0a, 0x0b}) {
		t.Errorf("EAD_%d: %+v", message, theirs)
	}
}

func (c edhocCase) heardEAD(t *testing.T, message int, heard []string) {
	t.Helper()
	if c.ead && !slices.Equal(heard, []string{"7 010203"}) {
		t.Errorf("it made of EAD_%d %q", message, heard)
	}
}

func (c edhocCase) initiate(t *testing.T, start func(testing.TB, peer.EDHOCSide) *peer.Lakers) {
	own, _ := edhocParty(t, "device", 0x2b)
	other, otherKey := edhocParty(t, "server", 0x0a)
	ead := c.set(t, &own)
	initiator, err := edhoc.NewInitiator(edhoc.Config{Identities: []edhoc.Identity{own}, Suites: []edhoc.Suite{2}})
	if err != nil {
		t.Fatal(err)
	}
	store := edhoc.NewStore(edhoc.StoreConfig{})
	if err := store.Pin("server", other.Credential); err != nil {
		t.Fatal(err)
	}
	lakers := start(t, c.side("responder", otherKey, other.Credential, own.Credential))

	m1, wait2, err := initiator.Message1(edhoc.Start{ConnectionID: c.own, EAD: ead})
	if err != nil {
		t.Fatal(err)
	}
	lakers.Send(m1)
	heard := lakers.Hear()
	c.heardEAD(t, 1, heard.EAD)
	got2, err := wait2.Message2(heard.Message)
	if err != nil {
		t.Fatalf("message_2 (%s): %v", heard.Err, err)
	}
	c.checkEAD(t, 2, got2.EAD())
	verified, err := got2.Authenticate(store.Expect("server"))
	if err != nil {
		t.Fatal(err)
	}
	m3, done, err := verified.Message3(ead...)
	if err != nil {
		t.Fatal(err)
	}
	lakers.Send(m3)
	heard = lakers.Hear()
	c.heardEAD(t, 3, heard.EAD)
	if c.message4 {
		got4, err := done.Message4(heard.Message)
		if err != nil {
			t.Fatalf("message_4 (%s): %v", heard.Err, err)
		}
		c.checkEAD(t, 4, got4)
		heard = lakers.Hear()
	}
	c.agree(t, done.Session(), heard)
}

func (c edhocCase) respond(t *testing.T, start func(testing.TB, peer.EDHOCSide) *peer.Lakers) {
	own, _ := edhocParty(t, "server", 0x0a)
	other, otherKey := edhocParty(t, "device", 0x2b)
	ead := c.set(t, &own)
	responder, err := edhoc.NewResponder(edhoc.Config{Identities: []edhoc.Identity{own}})
	if err != nil {
		t.Fatal(err)
	}
	store := edhoc.NewStore(edhoc.StoreConfig{})
	if err := store.Pin("device", other.Credential); err != nil {
		t.Fatal(err)
	}
	lakers := start(t, c.side("initiator", otherKey, other.Credential, own.Credential))

	heard := lakers.Hear()
	got1, err := responder.Message1(heard.Message)
	if err != nil {
		t.Fatalf("message_1 (%s): %v", heard.Err, err)
	}
	c.checkEAD(t, 1, got1.Message().EAD)
	m2, wait3, err := got1.Message2(edhoc.Reply{ConnectionID: c.own, EAD: ead})
	if err != nil {
		t.Fatal(err)
	}
	lakers.Send(m2)
	heard = lakers.Hear()
	c.heardEAD(t, 2, heard.EAD)
	got3, err := wait3.Message3(heard.Message)
	if err != nil {
		t.Fatalf("message_3 (%s): %v", heard.Err, err)
	}
	c.checkEAD(t, 3, got3.EAD())
	done, err := got3.Authenticate(store.Anyone())
	if err != nil {
		t.Fatal(err)
	}
	if c.message4 {
		m4, err := done.Message4(ead...)
		if err != nil {
			t.Fatal(err)
		}
		lakers.Send(m4)
	}
	heard = lakers.Hear()
	if c.message4 {
		c.heardEAD(t, 4, heard.EAD)
	}
	c.agree(t, done.Session(), heard)
}

// agree checks that both ends hold the same keys and identifiers.
func (c edhocCase) agree(t *testing.T, s *edhoc.Session, heard peer.Heard) {
	t.Helper()
	if !heard.Done {
		t.Fatalf("it did not finish: %+v", heard)
	}
	e, err := s.Exported()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(e.MasterSecret, heard.Secret) || !bytes.Equal(e.MasterSalt, heard.Salt) {
		t.Error("the OSCORE secrets differ")
	}
	if !bytes.Equal(e.SenderID, c.theirs) || !bytes.Equal(e.RecipientID, c.own) || !bytes.Equal(heard.PeerID, c.own) {
		t.Errorf("Sender ID %x, Recipient ID %x, it knows us as %x", e.SenderID, e.RecipientID, heard.PeerID)
	}
}

// TestEDHOCLakersRefuses has lakers judge what we make when something is
// wrong, and us what it makes.
func TestEDHOCLakersRefuses(t *testing.T) {
	for _, p := range edhocPeers {
		t.Run(p.name, func(t *testing.T) {
			peer.Component(t, p.component)
			c := edhocCase{own: []byte{0x05}, theirs: []byte{0x27}, message4: true}
			t.Run("it does not know us", func(t *testing.T) {
				own, _ := edhocParty(t, "device", 0x2b)
				stranger, _ := edhocParty(t, "stranger", 0x2b)
				other, otherKey := edhocParty(t, "server", 0x0a)
				initiator, err := edhoc.NewInitiator(edhoc.Config{Identities: []edhoc.Identity{own}, Suites: []edhoc.Suite{2}})
				if err != nil {
					t.Fatal(err)
				}
				lakers := p.start(t, c.side("responder", otherKey, other.Credential, stranger.Credential))
				m1, wait2, err := initiator.Message1(edhoc.Start{ConnectionID: c.own})
				if err != nil {
					t.Fatal(err)
				}
				lakers.Send(m1)
				got2, err := wait2.Message2(lakers.Hear().Message)
				if err != nil {
					t.Fatal(err)
				}
				verified, err := got2.Verify(other.Credential)
				if err != nil {
					t.Fatal(err)
				}
				m3, _, err := verified.Message3()
				if err != nil {
					t.Fatal(err)
				}
				lakers.Send(m3)
				if heard := lakers.Hear(); heard.Err == "" {
					t.Errorf("it takes a stranger: %+v", heard)
				}
			})
			t.Run("we do not know it", func(t *testing.T) {
				own, _ := edhocParty(t, "server", 0x0a)
				stranger, _ := edhocParty(t, "device", 0x2b)
				other, otherKey := edhocParty(t, "device", 0x2b)
				responder, err := edhoc.NewResponder(edhoc.Config{Identities: []edhoc.Identity{own}})
				if err != nil {
					t.Fatal(err)
				}
				lakers := p.start(t, c.side("initiator", otherKey, other.Credential, own.Credential))
				got1, err := responder.Message1(lakers.Hear().Message)
				if err != nil {
					t.Fatal(err)
				}
				m2, wait3, err := got1.Message2(edhoc.Reply{ConnectionID: c.own})
				if err != nil {
					t.Fatal(err)
				}
				lakers.Send(m2)
				got3, err := wait3.Message3(lakers.Hear().Message)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := got3.Verify(stranger.Credential); !errors.Is(err, edhoc.ErrAuthentication) {
					t.Errorf("we take a stranger: %v", err)
				}
			})
			t.Run("critical EAD item", func(t *testing.T) {
				if !p.ead {
					t.Skip("this lakers program sends no EAD items")
				}
				own, _ := edhocParty(t, "server", 0x0a)
				other, otherKey := edhocParty(t, "device", 0x2b)
				responder, err := edhoc.NewResponder(edhoc.Config{Identities: []edhoc.Identity{own}})
				if err != nil {
					t.Fatal(err)
				}
				side := c.side("initiator", otherKey, other.Credential, own.Credential)
				side.EAD = []string{"-9:0a0b"}
				if _, err := responder.Message1(p.start(t, side).Hear().Message); !errors.Is(err, edhoc.ErrCriticalEAD) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}
