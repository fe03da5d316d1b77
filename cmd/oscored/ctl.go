package main

import (
	"context"
	"fmt"
	"io"
)

func runCtl(_ context.Context, _ []string, _ io.Reader, _, stderr io.Writer) int {
	fmt.Fprintln(stderr, "oscored ctl: not there yet")
	return exitFailed
}
