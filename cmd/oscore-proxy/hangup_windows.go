package main

import "os"

// hangup does not exist here: a change takes a restart. The list must not be
// empty, which would mean every signal; a signal that is never sent stands in.
var hangup = []os.Signal{never{}}

type never struct{}

func (never) String() string { return "never" }
func (never) Signal()        {}
