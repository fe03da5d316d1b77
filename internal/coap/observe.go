package coap

// NextObserve returns what follows seq in the values that order notifications;
// the option carries its lowest 24 bits (RFC 7641 §4.4). It goes by the clock, a
// step a millisecond, so that the values grow over restarts too, for as long as
// fewer than 1000 notifications a second were sent: a client drops what looks
// older than what it has for 128 s (RFC 7641 §3.4), and a daemon is back within
// a fraction of one. At that pace half of the values last 2.3 hours.
func NextObserve(seq uint64, unixMilli int64) uint64 {
	return max(seq+1, uint64(max(unixMilli, 0)))
}

// AddObserve appends the Observe option of a notification with that number.
func (o Options) AddObserve(seq uint64) Options { return o.AddUint(Observe, uint32(seq&0xffffff)) }
