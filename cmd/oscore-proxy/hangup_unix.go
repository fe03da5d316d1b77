//go:build !windows

package main

import (
	"os"
	"syscall"
)

// hangup has the configuration read anew.
var hangup = []os.Signal{syscall.SIGHUP}
