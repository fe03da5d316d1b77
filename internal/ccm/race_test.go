//go:build race && (!amd64 || purego)

package ccm

const raceEnabled = true
