package edhoc_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"log"

	"github.com/oscorelay/oscorelay/keys/edhoc"
)

// Two parties with raw public keys, each knowing the other's beforehand, come
// to share an OSCORE context.
func Example() {
	device := newIdentity("device-17", 0x11)
	server := newIdentity("server", 0x0a)

	// The device runs the Initiator and wants nobody but the server.
	deviceKnows := edhoc.NewStore(edhoc.StoreConfig{})
	check(deviceKnows.Pin("server", server.Credential))
	initiator, err := edhoc.NewInitiator(edhoc.Config{Identities: []edhoc.Identity{device}})
	check(err)
	message1, wait2, err := initiator.Message1(edhoc.Start{ConnectionID: []byte{0x01}})
	check(err)

	// The server runs the Responder and takes whomever it knows.
	serverKnows := edhoc.NewStore(edhoc.StoreConfig{})
	check(serverKnows.Pin("device-17", device.Credential))
	responder, err := edhoc.NewResponder(edhoc.Config{Identities: []edhoc.Identity{server}})
	check(err)
	got1, err := responder.Message1(message1)
	check(err)
	message2, wait3, err := got1.Message2(edhoc.Reply{ConnectionID: []byte{0x02}})
	check(err)

	got2, err := wait2.Message2(message2)
	check(err)
	verified, err := got2.Authenticate(deviceKnows.Expect("server"))
	check(err)
	message3, deviceDone, err := verified.Message3()
	check(err)

	got3, err := wait3.Message3(message3)
	check(err)
	serverDone, err := got3.Authenticate(serverKnows.Anyone())
	check(err)
	fmt.Println("server talks to", serverKnows.Name(serverDone.Session().Peer()))

	exported, err := deviceDone.Session().Exported()
	check(err)
	params, err := exported.Params()
	check(err)
	fmt.Printf("%d, %d and %d bytes\n", len(message1), len(message2), len(message3))
	fmt.Printf("device: Sender ID %x, Recipient ID %x, %v, secret %v\n", params.SenderID, params.RecipientID, params.AEAD, params.MasterSecret)
	// Output:
	// server talks to device-17
	// 37, 45 and 19 bytes
	// device: Sender ID 02, Recipient ID 01, AES-CCM-16-64-128, secret [redacted]
}

// newIdentity makes a static Diffie-Hellman key in a CWT Claims Set.
func newIdentity(name string, kid byte) edhoc.Identity {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	check(err)
	credential, err := edhoc.NewCCS(edhoc.CCSParams{Subject: name, KID: []byte{kid}, Public: key.PublicKey()})
	check(err)
	return edhoc.Identity{Credential: credential, Exchanger: key}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
