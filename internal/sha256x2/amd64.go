//go:build amd64 && !purego

package sha256x2

// The bits of CPUID that Blocks needs.
const (
	ssse3 = 1 << 9  // leaf 1, ECX
	sse41 = 1 << 19 // leaf 1, ECX
	sha   = 1 << 29 // leaf 7, EBX
)

var available = detect()

func detect() bool {
	most, _, _ := cpuid(0)
	if most < 7 {
		return false
	}
	_, _, ecx := cpuid(1)
	_, ebx, _ := cpuid(7)
	return ecx&ssse3 != 0 && ecx&sse41 != 0 && ebx&sha != 0
}

//go:noescape
func blocks(a, b *State, p, q *byte, n int)

//go:noescape
func alone(a *State, p *byte, n int)

func cpuid(leaf uint32) (eax, ebx, ecx uint32)
