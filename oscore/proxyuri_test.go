package oscore

import (
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/coap"
	"github.com/oscorelay/oscorelay/internal/proof"
)

// sealedProxyURI seals a request with a Proxy-Uri and returns the outer body
// without OSCORE option and ciphertext, and the plaintext.
func sealedProxyURI(t *testing.T, uri string, more ...option) (outer coap.Options, plaintext []byte) {
	t.Helper()
	client, server := testPair(t)
	var p Pending
	sealed := must(client.SealRequest(nil, &p, msg(coap.GET, "", append(more, option{coap.ProxyURI, uri})...)))(t)
	return options(t, sealed.Body).Without(coap.OSCORE), server.plaintext(t, sealed, p.nonceBytes(), p.aadBytes())
}

// TestProxyURIExample is the example of §4.1.3.3.
func TestProxyURIExample(t *testing.T) {
	proof.Checklist(t, "O-4.1.3.3-1", "O-4.1.3.3-2", "O-4.1.3.3-3")
	outer, plaintext := sealedProxyURI(t, "coap://example.com/resource?q=1")
	equal(t, "plaintext", plaintext, []byte("\x01\xb8resource\x43q=1"))
	equal(t, "outer", coap.AppendBody(nil, outer, nil), []byte("\xdd\x16\x05coap://example.com"))
}

func TestProxyURI(t *testing.T) {
	for uri, c := range map[string]struct {
		origin, path, query string // parts joined by |
	}{
		"coap://example.com":               {"coap://example.com", "-", "-"},
		"coap://example.com/":              {"coap://example.com", "-", "-"},
		"COAP://Example.COM:5683/A/b":      {"coap://example.com:5683", "A|b", "-"},
		"coap+tcp://[2001:db8::1]:61616/a": {"coap+tcp://[2001:db8::1]:61616", "a", "-"},
		"coap://h/a%2fb/%20/%C3%a4":        {"coap://h", "a/b| |\u00e4", "-"},
		"coap://h//a/":                     {"coap://h", "|a|", "-"},
		"coap://h?q":                       {"coap://h", "-", "q"},
		"coap://h/?":                       {"coap://h", "-", ""},
		"coap://h/a?b=c&d=%26&":            {"coap://h", "a", "b=c|d=&|"},
		"http://h/a?b?c/d":                 {"http://h", "a", "b?c/d"},
		"coap://h/:@!$'()*,;=~._-":         {"coap://h", ":@!$'()*,;=~._-", "-"},
		"coap://h%41/a":                    {"coap://h%41", "a", "-"},
	} {
		outer, plaintext := sealedProxyURI(t, uri)
		origin, _ := outer.Get(coap.ProxyURI)
		if string(origin) != c.origin || len(outer) != 1 {
			t.Errorf("%s: outer %v, want Proxy-Uri %q alone", uri, outer, c.origin)
		}
		path, query := "-", "-"
		for _, o := range options(t, plaintext[1:]) {
			at := &path
			if o.Number == coap.URIQuery {
				at = &query
			}
			if *at == "-" {
				*at = string(o.Value)
			} else {
				*at += "|" + string(o.Value)
			}
		}
		if path != c.path || query != c.query {
			t.Errorf("%s: path %q query %q, want %q %q", uri, path, query, c.path, c.query)
		}
	}
}

func TestProxyURIRefused(t *testing.T) {
	client, _ := testPair(t)
	var p Pending
	for _, uri := range []string{
		"", "/a", "h/a", "coap:a", "coap:///a", "coap://", "coap://:5683/", "://h/a", "1coap://h/a", "co ap://h", "coap://user@h/a", "coap://user:pass@h",
		"coap://h/a#f", "coap://h#f", "coap://h\\secret", "coap://h secret", "coap://h/%", "coap://h/%4", "coap://h/%4g", "coap://h/%g4", "coap://h?%",
		"coap://h/" + strings.Repeat("a", 256), "coap://h\x00/a", "coap://h\xff",
	} {
		_, err := client.SealRequest(nil, &p, msg(coap.GET, "", option{coap.ProxyURI, uri}))
		wantNamed(t, uri, err, coap.ErrFormat)
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the URI: %v", uri, err)
		}
	}
	// A second one is no way to smuggle a path outside.
	_, err := client.SealRequest(nil, &p, msg(coap.GET, "", option{coap.ProxyURI, "coap://h/secret"}, option{coap.ProxyURI, "coap://h"}))
	want(t, err, coap.ErrFormat)
	if client.NextSequence() != 0 {
		t.Error("a refused message spent a number")
	}
}

// TestProxyURIPrecedence: a Proxy-Uri that is whole takes the place of Uri-*
// options (RFC 7252 §5.10.2); one that is only the origin stands beside them.
func TestProxyURIPrecedence(t *testing.T) {
	outer, plaintext := sealedProxyURI(t, "coap://h/real", option{coap.URIHost, "x"}, option{coap.URIPort, "\x01"}, option{coap.URIPath, "x"}, option{coap.URIQuery, "x"})
	equal(t, "plaintext", plaintext, []byte("\x01\xb4real"))
	if len(outer) != 1 {
		t.Errorf("outer %v", outer)
	}
	_, plaintext = sealedProxyURI(t, "coap://h", option{coap.URIPath, "real"})
	equal(t, "plaintext", plaintext, []byte("\x01\xb4real"))
}
