package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// newLogger returns the daemon's logger. Under a service manager that has the
// time already (journald) it is left out.
func newLogger(w io.Writer, format string, level *slog.LevelVar, timeless bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if timeless {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		}
	}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// A limiter is a handler that lets a few records of one kind through in each
// interval and counts the rest, so that a flood at night leaves a log that can be
// read. One kind is one message with one reason.
type limiter struct {
	slog.Handler
	reason string // of the attributes that With gave
	state  *limiterState
}

type limiterState struct {
	burst int
	every time.Duration

	mu    sync.Mutex
	kinds map[kind]*count
}

type kind struct{ message, reason string }

type count struct {
	begun   time.Time
	seen    int
	level   slog.Level
	dropped int
}

// Records of one kind in one interval, and the kinds that are told apart.
const (
	limitBurst = 10
	limitEvery = 10 * time.Second
	limitKinds = 1024
)

func newLimiter(h slog.Handler) *limiter {
	return &limiter{Handler: h, state: &limiterState{burst: limitBurst, every: limitEvery, kinds: map[kind]*count{}}}
}

// Handle implements slog.Handler.
func (l *limiter) Handle(ctx context.Context, r slog.Record) error {
	reason := l.reason
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "reason" {
			reason = a.Value.String()
		}
		return a.Key != "reason"
	})
	if !l.state.pass(kind{r.Message, reason}, r.Level, r.Time) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l *limiter) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := &limiter{Handler: l.Handler.WithAttrs(attrs), reason: l.reason, state: l.state}
	for _, a := range attrs {
		if a.Key == "reason" {
			out.reason = a.Value.String()
		}
	}
	return out
}

// WithGroup implements slog.Handler.
func (l *limiter) WithGroup(name string) slog.Handler {
	return &limiter{Handler: l.Handler.WithGroup(name), reason: l.reason, state: l.state}
}

func (s *limiterState) pass(k kind, level slog.Level, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.kinds[k]
	if c == nil {
		if len(s.kinds) >= limitKinds {
			k = kind{"other messages", ""}
			if c = s.kinds[k]; c == nil {
				c = &count{begun: now}
				s.kinds[k] = c
			}
		} else {
			c = &count{begun: now}
			s.kinds[k] = c
		}
	}
	c.level = level
	if c.seen >= s.burst {
		c.dropped++
		return false
	}
	c.seen++
	return true
}

// flush says what was left out and begins the next interval. It is called every
// interval.
func (l *limiter) flush(ctx context.Context, now time.Time) {
	type left struct {
		kind
		level slog.Level
		n     int
	}
	var out []left
	s := l.state
	s.mu.Lock()
	for k, c := range s.kinds {
		if now.Sub(c.begun) < s.every {
			continue
		}
		if c.dropped > 0 {
			out = append(out, left{k, c.level, c.dropped})
		}
		delete(s.kinds, k)
	}
	s.mu.Unlock()
	for _, x := range out {
		r := slog.NewRecord(now, x.level, "repeated: "+x.message, 0)
		r.Add("times", x.n)
		if x.reason != "" {
			r.Add("reason", x.reason)
		}
		_ = l.Handler.Handle(ctx, r) // there is nowhere to say that the log fails
	}
}
