//go:build !linux

package main

func monotonicMicros() int64 { return 0 }
