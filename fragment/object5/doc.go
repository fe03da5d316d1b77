// Package object5 is the state machine of LwM2M's Firmware Update object
// (urn:oma:lwm2m:oma:5:1.2) for signed, separately verifiable images.
//
//	           manifest verifies        every unit verified,         /5/0/2
//	           and is for this device   flash read back              executed
//	┌──────┐ ─────────────────────▶ ┌─────────────┐ ───────▶ ┌────────────┐ ─────▶ ┌──────────┐
//	│ Idle │                        │ Downloading │          │ Downloaded │        │ Updating │
//	└──────┘ ◀───────────────────── └─────────────┘ ◀─────── └────────────┘        └──────────┘
//	    ▲      result 2 … 10                          cancel, reset                     │
//	    └───────────────────────────────────────────────────────────────────────────────┘
//	                                result 1: the stored sequence rises; 8: it does not
//
// It speaks no CoAP and opens no socket: a device feeds it writes, executes
// and the outcome of what it asked its [Device] to do. Pull is a write to
// /5/0/1 of a URI whose name pins the manifest; push is /5/0/0 by Block1.
//
// It stands beside package fragment, and is public, because whoever builds a
// device links it; package fetch, which opens sockets, is not imported here.
//
//	machine.go  the machine: writes, executes, outcomes
//	push.go     /5/0/0 by Block1
//	result.go   states, results, which error gives which
//
// Limits: one instance; no multi-instance bearers; resource 12 has seconds.
package object5
