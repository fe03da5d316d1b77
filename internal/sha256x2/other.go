//go:build !amd64 || purego

package sha256x2

const available = false

func blocks(_, _ *State, _, _ *byte, _ int) {
	panic("sha256x2: not available on this machine") // the caller did not ask Available
}

func alone(_ *State, _ *byte, _ int) {
	panic("sha256x2: not available on this machine") // the caller did not ask Available
}
