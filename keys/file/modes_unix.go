//go:build !windows

package file

// checkModes: permission bits mean something here.
const checkModes = true
