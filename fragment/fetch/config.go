package fetch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oscorelay/oscorelay/fragment"
)

// Errors of a download. Those of package fragment come through as well.
var (
	// ErrSuspended means that the budget for retries is spent, or that nothing
	// has come for long. Nothing is lost: run again later with the same flash
	// and journal.
	ErrSuspended = errors.New("fetch: suspended")
	// ErrURI is a source that cannot be asked.
	ErrURI = errors.New("fetch: unusable URI")
	// ErrScheme is a URI of a protocol this package does not speak.
	ErrScheme = errors.New("fetch: unsupported scheme")
	// ErrSources means that the sources do not belong to one manifest.
	ErrSources = errors.New("fetch: sources name different manifests")
)

// errBudget and errSilent are the two ways to be suspended.
var (
	errBudget = fmt.Errorf("%w: the budget for retries is spent", ErrSuspended)
	errSilent = fmt.Errorf("%w: no mirror sends anything that verifies", ErrSuspended)
)

// Config is one download.
type Config struct {
	// Sources are the mirrors. All names must pin the same manifest.
	Sources []Source
	// Manifest fetches the manifest over a sealed path. nil: it is read from
	// the mirrors' headers and held against the hash in the name.
	Manifest ManifestSource
	// Keys are the authors this device trusts.
	Keys []fragment.PublicKey
	// Policy is what the device accepts.
	Policy fragment.Policy
	// Flash takes the image; Journal, optional, makes it resumable.
	Flash, Journal fragment.Store
	// Open makes Flash and Journal once the manifest is known, for callers
	// that name files after it. It is used where Flash is nil.
	Open func(*fragment.Signed) (flash, journal fragment.Store, err error)
	// Window is how many requests are in flight, 1 to 4. 0: 4.
	Window int
	// Pages is how many of the lowest hash pages are held. 0: 2.
	Pages int
	// Timing is RFC 7252's; zero fields take its defaults.
	Timing Timing
	// Patience is how long nothing may verify before the download is suspended.
	// 0: RFC 7252's EXCHANGE_LIFETIME, 247 s.
	Patience time.Duration
	// Progress, optional, is told the verified and the whole size in bytes.
	Progress func(verified, size int64)
}

// ManifestSource fetches the COSE_Sign1 that a name pins, over a path that is
// sealed end to end. What it returns is held against the name all the same.
type ManifestSource func(ctx context.Context, name fragment.Name) (sign1 []byte, err error)

// Timing holds the transmission parameters of RFC 7252 §4.8.
type Timing struct {
	AckTimeout    time.Duration // 0: 2 s
	MaxRetransmit int           // 0: 4
}

// defaultPatience is EXCHANGE_LIFETIME (RFC 7252 §4.8.2).
const defaultPatience = 247 * time.Second

func (t Timing) orDefault() Timing {
	if t.AckTimeout == 0 {
		t.AckTimeout = 2 * time.Second
	}
	if t.MaxRetransmit == 0 {
		t.MaxRetransmit = 4
	}
	return t
}

// Source is one mirror's copy.
type Source struct {
	// Label names the mirror in errors and statistics.
	Label string
	// Name pins the manifest and the copy's layout.
	Name fragment.Name
	// Authenticated says that nobody can forge this source's answers: TCP, TLS,
	// OSCORE. Only such a source is ever dropped.
	Authenticated bool
	// Start sends a request and calls answer for everything that claims to
	// answer it, until stop is called. answer returns true when the bytes can
	// be used, so that the request need not be sent again. An error, at most
	// one and last, means that no more transmissions are made.
	Start func(req Request, answer func(Answer, error) bool) (stop func())
}

// Request asks for one block.
type Request struct {
	Num   uint32 // block number
	SZX   uint8  // its size is 2^(SZX+4)
	Image bool   // of the image beside an outboard file, not of the file
	Tag   []byte // a fresh Request-Tag, nil for none
}

// Answer is what claims to answer a request. Payload is only valid during the
// call.
type Answer struct {
	Content bool // 2.05; anything else carries no bytes
	Offset  int64
	SZX     uint8
	Payload []byte
}

// Result tells how a download went.
type Result struct {
	Signed   *fragment.Signed
	Resumed  int64 // bytes that flash held already
	Requests int64 // sent, without retransmissions
	Retries  int64 // of the requests, those that repeat one
	Forged   int64 // pieces that failed their check
	Received int64 // payload bytes that came in
	Needed   int64 // payload bytes of pieces that verified
	Peak     int   // most bytes held unverified at once
	Mirrors  []MirrorResult
}

// MirrorResult is one mirror's account.
type MirrorResult struct {
	Label   string
	Good    int64 // pieces verified
	Bad     int64 // tries that brought nothing that verified
	Weight  float64
	Dropped bool
}
