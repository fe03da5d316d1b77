package main

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "./proxy", "github.com/pelletier/go-toml/v2")
}
