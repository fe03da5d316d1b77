package fragment

import (
	"bytes"
	"fmt"
)

// Policy is what a device accepts. Its zero value accepts no vendor.
type Policy struct {
	Vendor    [16]byte
	Class     [16]byte
	Device    []byte // this device's id; only asked for when the manifest lists devices
	Installed uint64 // sequence of what is installed; the manifest's must be higher
	Flash     uint64 // bytes available for the image; 0: no limit
	Now       uint64 // seconds since 1970; 0: the device has no clock, expiry is not checked
	Delta     bool   // can apply a delta; Base is the installed image's digest
	Base      Digest
	SUIT      bool // can hand a payload to a SUIT processor
	Encrypted bool // can decrypt A128CTR
}

// Check refuses a manifest that is not for this device, not newer than what is
// installed, or beyond its means.
func (p Policy) Check(s *Signed) error {
	m := &s.manifest
	switch {
	case m.Vendor != p.Vendor:
		return ErrVendor
	case m.Class != p.Class:
		return ErrClass
	case len(m.Devices) > 0 && !p.listed(m.Devices):
		return ErrDevice
	case m.Sequence <= p.Installed:
		return fmt.Errorf("%w: %d, installed is %d", ErrRollback, m.Sequence, p.Installed)
	case m.Expiry != 0 && p.Now > m.Expiry:
		return ErrExpired
	case p.Flash != 0 && uint64(m.Size) > p.Flash:
		return fmt.Errorf("%w: %d bytes into %d", ErrTooLarge, m.Size, p.Flash)
	case m.Type == Delta && !p.Delta:
		return fmt.Errorf("%w: deltas", ErrUnsupported)
	case m.Type == SUIT && !p.SUIT:
		return fmt.Errorf("%w: SUIT", ErrUnsupported)
	case m.Encryption != nil && !p.Encrypted:
		return fmt.Errorf("%w: encryption", ErrUnsupported)
	case m.Type == Delta && (m.Base.Alg != p.Base.Alg || !bytes.Equal(m.Base.Value, p.Base.Value)):
		return fmt.Errorf("%w: the delta's base is not what is installed", ErrUnsupported)
	}
	return nil
}

func (p Policy) listed(devices [][]byte) bool {
	for _, id := range devices {
		if bytes.Equal(id, p.Device) {
			return true
		}
	}
	return false
}
