// Command snippets runs what the documents show: the ```sh blocks of each file,
// in their order, as one script in an empty directory with an empty home and
// the built programs on the path; and each ```go block that is a program,
// which must build. A document that shows what does not work fails.
//
//	go run ./tools/snippets README.md docs/tasks/*.md
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "snippets:", err)
		os.Exit(1)
	}
}

func run(files []string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		scripts, programs := blocks(string(text))
		began := time.Now()
		if err := runScript(root, name, strings.Join(scripts, "\n")); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for i, p := range programs {
			if err := build(root, p); err != nil {
				return fmt.Errorf("%s: Go program %d: %w", name, i+1, err)
			}
		}
		fmt.Printf("%s: %d shell blocks, %d Go programs, %.1f s\n", name, len(scripts), len(programs), time.Since(began).Seconds())
	}
	return nil
}

// blocks returns the fenced blocks marked sh, and those marked go that are
// whole programs. A block under an HTML comment "<!-- not run: why -->" is left out.
func blocks(text string) (scripts, programs []string) {
	skip := false
	var kind string
	var body []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case kind == "" && strings.HasPrefix(line, "<!-- not run:"):
			skip = true
		case kind == "" && fence:
			if kind, body = language, nil; kind == "" {
				kind = "text"
			}
		case kind != "" && line == "```":
			switch {
			case skip:
			case kind == "sh":
				scripts = append(scripts, strings.Join(body, "\n"))
			case kind == "go" && len(body) > 0 && strings.HasPrefix(body[0], "package "):
				programs = append(programs, strings.Join(body, "\n")+"\n")
			}
			kind, skip = "", false
		case kind != "":
			body = append(body, line)
		}
	}
	return scripts, programs
}

// runScript runs a document's shell blocks; background processes that they
// start are ended with them.
func runScript(root, name, script string) error {
	if script == "" {
		return nil
	}
	home, err := os.MkdirTemp("", "snippets-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	work := filepath.Join(home, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"+script)
	cmd.Dir = work
	cmd.Env = append(environment(), "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"),
		"OSCORELAY="+root, "PATH="+filepath.Join(root, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%w\n--- script of %s ---\n%s\n--- output ---\n%s", err, name, script, out.String())
	}
	return nil
}

// environment is this process's, with the caches where they are although the
// home is another.
func environment() []string {
	env := os.Environ()
	for _, name := range []string{"GOMODCACHE", "GOCACHE", "GOPATH"} {
		if out, err := exec.Command("go", "env", name).Output(); err == nil {
			env = append(env, name+"="+strings.TrimSpace(string(out)))
		}
	}
	return env
}

// build vets a program inside this module.
func build(root, program string) error {
	dir, err := os.MkdirTemp(root, ".snippet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o644); err != nil {
		return err
	}
	cmd := exec.Command("go", "vet", "./"+filepath.Base(dir))
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}
