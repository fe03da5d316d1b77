package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress is a line that shows how far a transfer is, on a terminal only.
type progress struct {
	w     io.Writer
	shown bool
	last  time.Time
}

// newProgress returns a progress line on w, silent if w is no terminal.
func newProgress(w io.Writer, quiet bool) *progress {
	f, ok := w.(*os.File)
	if !ok || quiet {
		return &progress{}
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return &progress{}
	}
	return &progress{w: w}
}

func (p *progress) update(done, total int) {
	if p.w == nil || time.Since(p.last) < 100*time.Millisecond && done != total {
		return
	}
	p.last, p.shown = time.Now(), true
	if total <= 0 {
		fmt.Fprintf(p.w, "\r%d bytes ", done)
		return
	}
	const width = 40
	n := min(done*width/total, width)
	fmt.Fprintf(p.w, "\r[%s%s] %3d %% of %d bytes ", strings.Repeat("#", n), strings.Repeat(".", width-n), done*100/total, total)
}

// done takes the line away.
func (p *progress) done() {
	if p.shown {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", 78))
	}
}
