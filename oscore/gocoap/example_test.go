package gocoap_test

import (
	"context"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
	"github.com/oscorelay/oscorelay/oscore/gocoap"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// exampleKeys returns keyrings of a client and a server that know each other. A
// program that lives longer than its process keeps them in files: keys/file.
func exampleKeys() (client, server *keys.Keyring) {
	ctx := context.Background()
	secret := oscore.Secret("replace these 16")
	client, server = keys.New(keys.NewMemory()), keys.New(keys.NewMemory())
	_, err := client.AddNew(ctx, keys.Entry{Name: "server", Params: oscore.Params{MasterSecret: secret, SenderID: []byte{1}, RecipientID: []byte{2}}})
	if err != nil {
		log.Fatal(err)
	}
	_, err = server.AddNew(ctx, keys.Entry{Name: "device-7", Params: oscore.Params{MasterSecret: secret, SenderID: []byte{2}, RecipientID: []byte{1}}})
	if err != nil {
		log.Fatal(err)
	}
	return client, server
}

// exampleServer serves h on a port of this host and returns its address.
func exampleServer(ep *gocoap.Endpoint, h mux.Handler) (addr string, stop func()) {
	l, err := coapnet.NewListenUDP("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := udp.NewServer(ep.UDPServer(h)...)
	go func() { _ = server.Serve(l) }()
	return l.LocalAddr().String(), func() {
		server.Stop()
		l.Close()
	}
}

// A server and a client.
func Example() {
	clientKeys, serverKeys := exampleKeys()

	router := mux.NewRouter()
	_ = router.Handle("/temperature", mux.HandlerFunc(func(w mux.ResponseWriter, r *mux.Message) {
		_ = w.SetResponse(codes.Content, message.TextPlain, strings.NewReader("21.5"))
	}))
	server := gocoap.New(gocoap.Config{Keyring: serverKeys})
	l, err := coapnet.NewListenUDP("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	s := udp.NewServer(server.UDPServer(router)...)
	defer s.Stop()
	go func() { _ = s.Serve(l) }()

	client := gocoap.New(gocoap.Config{Keyring: clientKeys})
	c, err := client.DialUDP(l.LocalAddr().String(), "server", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := c.Get(ctx, "/temperature")
	if err != nil {
		log.Fatal(err)
	}
	body, _ := resp.ReadBody()
	fmt.Println(resp.Code(), string(body))
	// Output: Content 21.5
}

// A handler learns who sent a request.
func ExamplePeer() {
	clientKeys, serverKeys := exampleKeys()
	addr, stop := exampleServer(gocoap.New(gocoap.Config{Keyring: serverKeys}), mux.HandlerFunc(func(w mux.ResponseWriter, r *mux.Message) {
		name, _ := gocoap.Peer(r.Context())
		_ = w.SetResponse(codes.Content, message.TextPlain, strings.NewReader("hello, "+name))
	}))
	defer stop()
	c, err := gocoap.New(gocoap.Config{Keyring: clientKeys}).DialUDP(addr, "server", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	resp, err := c.Get(context.Background(), "/")
	if err != nil {
		log.Fatal(err)
	}
	body, _ := resp.ReadBody()
	fmt.Println(string(body))
	// Output: hello, device-7
}

// An access list: who may do what on which path.
func ExampleConfig_allow() {
	clientKeys, serverKeys := exampleKeys()
	server := gocoap.New(gocoap.Config{
		Keyring: serverKeys,
		Allow: func(peer string, method codes.Code, path string) bool {
			return method == codes.GET || peer == "admin"
		},
	})
	addr, stop := exampleServer(server, mux.HandlerFunc(func(w mux.ResponseWriter, _ *mux.Message) {
		_ = w.SetResponse(codes.Content, message.TextPlain, nil)
	}))
	defer stop()
	c, err := gocoap.New(gocoap.Config{Keyring: clientKeys}).DialUDP(addr, "server", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for _, request := range []func() (*pool.Message, error){
		func() (*pool.Message, error) { return c.Get(context.Background(), "/config") },
		func() (*pool.Message, error) { return c.Delete(context.Background(), "/config") },
	} {
		resp, err := request()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(resp.Code())
	}
	// Output:
	// Content
	// Forbidden
}

// Both sides send requests on one connection, as a device and its management
// server do: the device registers, the server reads from it.
func Example_bothRoles() {
	deviceKeys, serverKeys := exampleKeys()
	addr, stop := exampleServer(gocoap.New(gocoap.Config{Keyring: serverKeys}), mux.HandlerFunc(func(w mux.ResponseWriter, r *mux.Message) {
		resp, err := w.Conn().Get(r.Context(), "/3/0/0") // sealed, back to the device
		if err != nil {
			log.Print(err)
			return
		}
		body, _ := resp.ReadBody()
		fmt.Println("server reads", string(body))
		_ = w.SetResponse(codes.Created, message.TextPlain, nil)
	}))
	defer stop()

	objects := mux.HandlerFunc(func(w mux.ResponseWriter, _ *mux.Message) {
		_ = w.SetResponse(codes.Content, message.TextPlain, strings.NewReader("Open Mobile Alliance"))
	})
	device, err := gocoap.New(gocoap.Config{Keyring: deviceKeys}).DialUDP(addr, "server", objects)
	if err != nil {
		log.Fatal(err)
	}
	defer device.Close()
	resp, err := device.Post(context.Background(), "/rd", message.AppLinkFormat, strings.NewReader("</3/0>"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("device is", resp.Code())
	// Output:
	// server reads Open Mobile Alliance
	// device is Created
}

// An observation. A handler notifies by w.Conn().WriteMessage under the token
// of the request.
func ExampleClient_Observe() {
	clientKeys, serverKeys := exampleKeys()
	addr, stop := exampleServer(gocoap.New(gocoap.Config{Keyring: serverKeys}), mux.HandlerFunc(func(w mux.ResponseWriter, r *mux.Message) {
		if observe, err := r.Observe(); err != nil || observe != 0 {
			_ = w.SetResponse(codes.Content, message.TextPlain, strings.NewReader("21.5"))
			return
		}
		_ = w.SetResponse(codes.Content, message.TextPlain, strings.NewReader("21.5"), message.Option{ID: message.Observe})
		conn, token := w.Conn(), append(message.Token{}, r.Token()...)
		time.AfterFunc(10*time.Millisecond, func() {
			n := conn.AcquireMessage(conn.Context())
			defer conn.ReleaseMessage(n)
			n.SetCode(codes.Content)
			n.SetToken(token)
			n.SetObserve(1)
			n.SetBody(strings.NewReader("22.0"))
			if err := conn.WriteMessage(n); err != nil {
				log.Print(err)
			}
		})
	}))
	defer stop()
	c, err := gocoap.New(gocoap.Config{Keyring: clientKeys}).DialUDP(addr, "server", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	readings := make(chan string)
	observation, err := c.Observe(context.Background(), "/temperature", func(m *pool.Message) {
		body, _ := m.ReadBody()
		readings <- string(body)
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-readings)
	fmt.Println(<-readings)
	_ = observation.Cancel(context.Background())
	// Output:
	// 21.5
	// 22.0
}
