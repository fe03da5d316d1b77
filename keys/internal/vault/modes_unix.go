//go:build !windows

package vault

// checkModes: permission bits mean something here.
const checkModes = true
