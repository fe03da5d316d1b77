//go:build !amd64 || purego

package ccm

func runBatch(msgs []Message, seal bool) { runSingly(msgs, seal) }
