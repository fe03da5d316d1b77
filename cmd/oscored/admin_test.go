package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oscorelay/oscorelay/keys"
)

// TestAdminAuth: who may read, who may change, and from where.
func TestAdminAuth(t *testing.T) {
	_, entry := pair(t, "boiler", 1)
	p := newProcess(t, "127.0.0.1:9", []keys.Entry{entry}, "")
	p.start(nil, "-init", "-fresh")
	defer p.end(syscall.SIGTERM)
	b, err := os.ReadFile(filepath.Join(p.dir, "store", "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(string(b))
	base := fmt.Sprintf("http://127.0.0.1:%d", p.ports["admin"])
	for _, c := range []struct {
		name, method, path string
		auth               func(*http.Request)
		status             int
		says               string
	}{
		{"health needs none", "GET", "/healthz", nil, 200, "ok"},
		{"style needs none", "GET", "/style.css", nil, 200, "font"},
		{"nothing without a token", "GET", "/api/devices", nil, 401, "token is missing or wrong"},
		{"page without", "GET", "/", nil, 401, "token is missing or wrong"},
		{"metrics without", "GET", "/metrics", nil, 401, ""},
		{"bearer", "GET", "/api/status", bearer(token), 200, "serving"},
		{"wrong bearer", "GET", "/api/status", bearer(token + "x"), 401, ""},
		{"token cut short", "GET", "/api/status", bearer(token[:20]), 401, ""},
		{"a browser reads", "GET", "/", basic(token), 200, "<h1>oscored</h1>"},
		{"a browser reads the API", "GET", "/api/contexts", basic(token), 200, "boiler"},
		{"a browser changes nothing", "POST", "/api/drain", basic(token), 403, "Bearer"},
		{"nor deletes", "DELETE", "/api/contexts/boiler", basic(token), 403, ""},
		{"another host's name", "GET", "/api/status", func(r *http.Request) { bearer(token)(r); r.Host = "rebound.example" }, 421, "this machine alone"},
		{"a key file's context stays", "DELETE", "/api/contexts/boiler", bearer(token), 409, "keys.toml"},
		{"no such context", "DELETE", "/api/contexts/nobody", bearer(token), 404, ""},
		{"no such thing", "GET", "/api/secrets", bearer(token), 404, "/api/secrets"},
		{"a page too long", "GET", "/api/devices?limit=5000", bearer(token), 400, "1 to 1000"},
		{"keys that are none", "POST", "/api/contexts?format=toml", bearer(token), 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), c.method, base+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.auth != nil {
				c.auth(req)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status || !strings.Contains(string(body), c.says) {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if bytes.Contains(body, []byte(token)) || bytes.Contains(body, []byte(fmt.Sprintf("%x", entry.Params.MasterSecret))) {
				t.Error("it tells a secret")
			}
			if c.path == "/" && c.status == 200 && !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Error("no content security policy")
			}
		})
	}
	if strings.Contains(p.said(), token) {
		t.Error("the log shows the token")
	}
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func basic(token string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth("anybody", token) }
}

// TestAdminTLS: beyond loopback there is TLS, and ctl speaks it.
func TestAdminTLS(t *testing.T) {
	_, entry := pair(t, "boiler", 1)
	p := newProcess(t, "127.0.0.1:9", []keys.Entry{entry}, "")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "oscored"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	p.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	b, err := os.ReadFile(filepath.Join(p.dir, "oscored.toml"))
	if err != nil {
		t.Fatal(err)
	}
	p.write("oscored.toml", strings.Replace(string(b), "[admin]\n", "[admin]\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n", 1))
	p.start(nil, "-init", "-fresh")
	defer p.end(syscall.SIGTERM)
	out, err := exec.Command("oscored", "ctl", "-config", filepath.Join(p.dir, "oscored.toml"), "contexts").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "boiler") {
		t.Errorf("%v: %s", err, out)
	}
	out, err = exec.Command("oscored", "ctl", "-url", fmt.Sprintf("https://127.0.0.1:%d", p.ports["admin"]), "-token-file", filepath.Join(p.dir, "store", "admin.token"), "contexts").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "certificate") {
		t.Errorf("a certificate that nobody vouches for is taken: %s", out)
	}
}
