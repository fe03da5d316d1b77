package main

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if os.Getenv(asTool) != "" {
		os.Exit(run(context.Background(), append([]string{"oscore"}, os.Args[1:]...), os.Stdin, os.Stdout, os.Stderr))
	}
	testscript.Main(m, map[string]func(){
		"oscore": main,
	})
}

// TestScripts runs the tool as a person does.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir+"/home")
			e.Setenv("XDG_CONFIG_HOME", e.WorkDir+"/home/.config")
			return errors.Join(os.MkdirAll(e.WorkDir+"/home/.config", 0o700), writeCapture(e.WorkDir+"/rfc8613.pcap"))
		},
	})
}
