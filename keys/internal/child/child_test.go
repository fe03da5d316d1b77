package child

import (
	"fmt"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Main(m, func(string, string) error {
		for n := uint64(time.Now().UnixNano()); ; n++ {
			if err := Say("n", n); err != nil {
				return err
			}
		}
	})
}

// A child is killed as often as is asked, and what it did is counted.
func TestKill(t *testing.T) {
	asked := 0
	n := Kill(t, "count", t.TempDir(), 3, func(line string) bool {
		var number uint64
		if _, err := fmt.Sscanf(line, "n %d\n", &number); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		asked++
		return true
	})
	if n != asked || n < 3 {
		t.Errorf("%d things, %d lines", n, asked)
	}
}
