package bolt

import (
	"testing"

	"github.com/oscorelay/oscorelay/internal/floors"
)

func TestImports(t *testing.T) {
	floors.Imports(t, "std", "go.etcd.io/bbolt", "./keys", "./keys/internal/anchor", "./keys/internal/disk", "./keys/internal/record",
		"./keys/internal/vault", "./oscore")
	floors.Never(t, "net", "log", "database/sql")
}
