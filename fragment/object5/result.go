package object5

import (
	"errors"
	"fmt"

	"github.com/oscorelay/oscorelay/fragment"
)

// State is /5/0/3.
type State uint8

// The states.
const (
	Idle        State = 0
	Downloading State = 1
	Downloaded  State = 2
	Updating    State = 3
)

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

var stateNames = [...]string{"idle", "downloading", "downloaded", "updating"}

// Result is /5/0/5.
type Result uint8

// The results.
const (
	Initial             Result = 0
	Success             Result = 1
	NoFlash             Result = 2
	NoMemory            Result = 3
	ConnectionLost      Result = 4
	IntegrityFailure    Result = 5
	UnsupportedPackage  Result = 6
	InvalidURI          Result = 7
	UpdateFailed        Result = 8
	UnsupportedProtocol Result = 9
	Cancelled           Result = 10
	Deferred            Result = 11
)

// Errors that a [Device] may report and that package fragment does not have.
var (
	ErrMemory  = errors.New("object5: out of memory")
	ErrTimeout = errors.New("object5: connection lost")
)

// ResultOf says which result an error of a download stands for. What it does
// not know is a lost connection.
func ResultOf(err error) Result {
	if err == nil {
		return Initial
	}
	for _, c := range resultOf {
		if errors.Is(err, c.err) {
			return c.result
		}
	}
	return ConnectionLost
}

var resultOf = []struct {
	err    error
	result Result
}{
	{fragment.ErrAlgorithm, UnsupportedPackage},
	{fragment.ErrVersion, UnsupportedPackage},
	{fragment.ErrUnsupported, UnsupportedPackage},
	{fragment.ErrTooLarge, NoFlash},
	{fragment.ErrFlash, NoFlash},
	{fragment.ErrJournal, NoFlash},
	{ErrMemory, NoMemory},
	{fragment.ErrName, InvalidURI},
	{fragment.ErrHeader, IntegrityFailure},
	{fragment.ErrManifest, IntegrityFailure},
	{fragment.ErrKey, IntegrityFailure},
	{fragment.ErrSignature, IntegrityFailure},
	{fragment.ErrVendor, IntegrityFailure},
	{fragment.ErrClass, IntegrityFailure},
	{fragment.ErrDevice, IntegrityFailure},
	{fragment.ErrRollback, IntegrityFailure},
	{fragment.ErrExpired, IntegrityFailure},
	{fragment.ErrGeometry, IntegrityFailure},
	{fragment.ErrForged, IntegrityFailure},
	{fragment.ErrIncomplete, IntegrityFailure},
	{fragment.ErrDigest, IntegrityFailure},
}

// Code is a CoAP response code, class in the upper three bits.
type Code uint8

// The codes that the machine answers with.
const (
	Changed          Code = 2<<5 | 4
	Continue         Code = 2<<5 | 31
	BadRequest       Code = 4 << 5
	MethodNotAllowed Code = 4<<5 | 5
	Incomplete       Code = 4<<5 | 8
	InternalError    Code = 5 << 5
	// NoAnswer means that the request is to be treated as if it had not been
	// received: no answer, and its message ID stays free for the genuine one.
	NoAnswer Code = 0
)

func (c Code) String() string {
	if c == NoAnswer {
		return "no answer"
	}
	return fmt.Sprintf("%d.%02d", uint8(c)>>5, uint8(c)&0x1f)
}
