package fragment

import "errors"

// What can be wrong with a header, a manifest or an update. docs/LWF.md maps
// them to the results of LwM2M's Object 5.
var (
	ErrHeader      = errors.New("fragment: malformed header")
	ErrVersion     = errors.New("fragment: manifest version is not 1")
	ErrAlgorithm   = errors.New("fragment: algorithm is not supported")
	ErrKey         = errors.New("fragment: signed by a key that is not trusted")
	ErrSignature   = errors.New("fragment: signature does not verify")
	ErrManifest    = errors.New("fragment: malformed manifest")
	ErrVendor      = errors.New("fragment: image is for another vendor")
	ErrClass       = errors.New("fragment: image is for another device class")
	ErrDevice      = errors.New("fragment: image is for other devices")
	ErrRollback    = errors.New("fragment: sequence number is not above the installed one")
	ErrExpired     = errors.New("fragment: manifest has expired")
	ErrTooLarge    = errors.New("fragment: image is larger than the flash")
	ErrUnsupported = errors.New("fragment: image needs a feature this device lacks")
	ErrGeometry    = errors.New("fragment: impossible layout")
	ErrName        = errors.New("fragment: name does not pin a manifest")
)

// What can be wrong with one item, and with the image as a whole.
var (
	// ErrForged means: as if the packet had not been received.
	ErrForged = errors.New("fragment: item does not match its verified hash")
	// ErrEarly means that the item's page has not been verified yet.
	ErrEarly = errors.New("fragment: item came before the page that holds its hash")
	// ErrFlash wraps what the flash said, or says that it does not read back
	// what was written.
	ErrFlash = errors.New("fragment: flash failed")
	// ErrJournal wraps what the journal's store said.
	ErrJournal = errors.New("fragment: journal failed")
	// ErrIncomplete means that units are missing.
	ErrIncomplete = errors.New("fragment: image is not complete")
	// ErrDigest means that the whole image read back from flash does not have
	// the manifest's digest: cells have changed since they were verified.
	ErrDigest = errors.New("fragment: flash does not hold the signed image")
)
