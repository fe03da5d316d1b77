package main

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./proxy", "./oscore", "./keys", "./keys/bolt", "./keys/keyfile", "./internal/terminate", "./internal/demo", "./internal/endpoint",
		"github.com/pelletier/go-toml/v2", "github.com/pelletier/go-toml/v2/unstable", "golang.org/x/sys/unix",
		"github.com/prometheus/client_golang/prometheus", "github.com/prometheus/client_golang/prometheus/collectors", "github.com/prometheus/client_golang/prometheus/promhttp",
		"github.com/plgd-dev/go-coap/v3/net", "github.com/plgd-dev/go-coap/v3/options", "github.com/plgd-dev/go-coap/v3/udp", "github.com/plgd-dev/go-coap/v3/udp/server")
}
