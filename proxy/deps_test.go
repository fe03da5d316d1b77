package proxy

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./internal/coap", "./internal/coap/message", "./internal/udp")
}

// TestKeyless: neither the package nor the program holds any code that knows
// keys: what a proxy cannot do is a fact of the build.
func TestKeyless(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", floors.Module+"/proxy", floors.Module+"/cmd/oscore-proxy").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{
		"internal/coap": true, "internal/coap/message": true, "internal/udp": true, "proxy": true, "cmd/oscore-proxy": true,
	}
	random := map[string]bool{"crypto": true, "crypto/rand": true, "crypto/subtle": true, "crypto/cipher": true, "crypto/fips140": true} // what crypto/rand takes in
	for p := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(p, "crypto") && !strings.HasPrefix(p, "crypto/internal/") && !random[p] || strings.Contains(p, "x/crypto") {
			t.Errorf("the keyless proxy takes in %s", p)
		}
		if own, ok := strings.CutPrefix(p, floors.Module+"/"); ok && !allowed[own] {
			t.Errorf("the keyless proxy takes in %s", own)
		}
	}
}
