package peer

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// aiocoapEnv keeps aiocoap from its two silent traps: plain text when one of
// its modules is missing, and two servers sharing one port.
var aiocoapEnv = []string{
	"AIOCOAP_CLIENT_TRANSPORT=oscore:udp6",
	"AIOCOAP_SERVER_TRANSPORT=oscore:udp6",
	"AIOCOAP_REUSE_PORT=0",
	"PYTHONDONTWRITEBYTECODE=1",
	"PYTHONUNBUFFERED=1",
}

// AiocoapTCP makes aiocoap's client and server speak CoAP over TCP.
var AiocoapTCP = []string{"AIOCOAP_CLIENT_TRANSPORT=oscore:tcpclient", "AIOCOAP_SERVER_TRANSPORT=oscore:tcpserver"}

func aiocoapPython(t testing.TB) string {
	t.Helper()
	return filepath.Join(Component(t, "aiocoap"), "venv", "bin", "python")
}

// AiocoapServer starts aiocoap's server. state is its context directory; one
// that exists is taken up again. env holds further settings.
func AiocoapServer(t testing.TB, port uint16, c Context, state string, env ...string) *Process {
	t.Helper()
	c.WriteAiocoap(t, state, false)
	creds := filepath.Join(t.TempDir(), "server.json")
	writeJSON(t, creds, map[string]any{":client": map[string]any{"oscore": map[string]string{"basedir": state}}})
	p := Start(t, Spec{
		Name: "aiocoap server", Path: aiocoapPython(t), Env: slices.Concat(aiocoapEnv, env),
		Args: []string{source(t, "aiocoap", "server.py"), Loopback(port).String(), creds},
	})
	p.AwaitLine("READY")
	return p
}

// AiocoapClient starts aiocoap's client for the server at the URI. env holds
// further settings, such as PEER_TIMEOUT=seconds.
func AiocoapClient(t testing.TB, uri string, c Context, state string, env ...string) *Client {
	t.Helper()
	c.WriteAiocoap(t, state, true)
	creds := filepath.Join(t.TempDir(), "client.json")
	writeJSON(t, creds, map[string]any{uri + "/*": map[string]any{"oscore": map[string]string{"basedir": state}}})
	return (&Client{Process: Start(t, Spec{
		Name: "aiocoap client", Path: aiocoapPython(t), Env: slices.Concat(aiocoapEnv, env),
		Args: []string{source(t, "aiocoap", "client.py"), uri, creds},
	})}).ready()
}

// AiocoapEDHOCServer starts aiocoap's server with credentials in CBOR diagnostic
// notation: its own under "coap://127.0.0.1:PORT/*", the client's under ":name".
func AiocoapEDHOCServer(t testing.TB, port uint16, credentials string) *Process {
	t.Helper()
	p := Start(t, Spec{
		Name: "aiocoap server", Path: aiocoapPython(t), Env: aiocoapEnv,
		Args: []string{source(t, "aiocoap", "server.py"), Loopback(port).String(), writeDiag(t, credentials)},
	})
	p.AwaitLine("READY")
	return p
}

// AiocoapEDHOCClient starts aiocoap's client likewise, with credentials for the
// server at the URI.
func AiocoapEDHOCClient(t testing.TB, uri, credentials string) *Client {
	t.Helper()
	return (&Client{Process: Start(t, Spec{
		Name: "aiocoap client", Path: aiocoapPython(t), Env: aiocoapEnv,
		Args: []string{source(t, "aiocoap", "client.py"), uri, writeDiag(t, credentials)},
	})}).ready()
}

func writeDiag(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "credentials.diag")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// AiocoapPlugtestServer starts the plug test server of aiocoap's own source
// package. lost makes it forget its replay window.
func AiocoapPlugtestServer(t testing.TB, port uint16, state string, lost bool) *Process {
	t.Helper()
	args := []string{filepath.Join(Component(t, "aiocoap"), "plugtest", "plugtest-server"), state, "--bind", Loopback(port).String()}
	if lost {
		args = append(args, "--state-was-lost")
	}
	p := Start(t, Spec{Name: "aiocoap plug test server", Path: aiocoapPython(t), Env: aiocoapEnv, Args: args})
	p.AwaitLine("Plugtest server ready.")
	return p
}

// AiocoapPlugtestClient runs one case of the plug test client to its end.
// Its exit status says nothing, so the caller must read the output.
func AiocoapPlugtestClient(t testing.TB, hostport, state, number string) string {
	t.Helper()
	p := Start(t, Spec{
		Name: "aiocoap plug test client", Path: aiocoapPython(t), Env: aiocoapEnv,
		Args: []string{filepath.Join(Component(t, "aiocoap"), "plugtest", "plugtest-client"), hostport, state, number},
	})
	if err := p.Wait(exchangePatience); err != nil {
		t.Errorf("plug test %s: %v", number, err)
	}
	return p.Output()
}

// AiocoapFileserver serves a directory's files over plain CoAP with aiocoap's
// own file server.
func AiocoapFileserver(t testing.TB, port uint16, dir string) *Process {
	t.Helper()
	p := Start(t, Spec{
		Name: "aiocoap file server", Path: aiocoapPython(t), Dir: dir,
		Env:  []string{"AIOCOAP_SERVER_TRANSPORT=udp6", "AIOCOAP_REUSE_PORT=0", "PYTHONDONTWRITEBYTECODE=1"},
		Args: []string{"-m", "aiocoap.cli.fileserver", "--bind", Loopback(port).String(), "."},
	})
	p.AwaitPing(port)
	return p
}

// AiocoapGet reads a resource, block by block, with aiocoap's plain client.
func AiocoapGet(t testing.TB, uri string) []byte {
	t.Helper()
	cmd := exec.Command(aiocoapPython(t), "-m", "aiocoap.cli.client", "--quiet", uri)
	cmd.Env = append(os.Environ(), "AIOCOAP_CLIENT_TRANSPORT=udp6", "PYTHONDONTWRITEBYTECODE=1")
	body, err := cmd.Output()
	if err != nil {
		t.Fatalf("aiocoap's client: %v", err)
	}
	return body
}
