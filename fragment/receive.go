package fragment

import "fmt"

// Receiver takes a combined file as it is pushed, in order and in pieces of
// any size: first the header, then items, each verified when it is whole. It
// holds the header, or one item, unverified; no more.
type Receiver struct {
	open     func(Header) (*Verifier, error)
	verifier *Verifier
	buf      []byte
	at       int64 // bytes taken, all of them verified but those in buf
}

// NewReceiver prepares for a push. open is called once with the header; it
// verifies the signature and the policy, and returns the verifier.
func NewReceiver(open func(Header) (*Verifier, error)) *Receiver {
	return &Receiver{open: open, buf: make([]byte, 0, MaxHeader)}
}

// Offset returns how many bytes have been taken: where the next piece starts.
func (r *Receiver) Offset() int64 { return r.at }

// Verifier returns the verifier once the header has been opened, else nil.
func (r *Receiver) Verifier() *Verifier { return r.verifier }

// Complete reports whether the whole file has been taken.
func (r *Receiver) Complete() bool {
	return r.verifier != nil && r.at == r.verifier.geo.FileSize()
}

// Write takes the next piece. On [ErrForged] the receiver stands again before
// the first byte of the item that did not verify, as if none of it had come:
// Offset tells. Every other error of the header's or of the device's is final.
func (r *Receiver) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		var took int
		if r.verifier == nil {
			took, err = r.header(b)
		} else {
			took, err = r.item(b)
		}
		n += took
		b = b[took:]
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (r *Receiver) header(b []byte) (int, error) {
	before := len(r.buf)
	r.buf = append(r.buf, b[:min(len(b), MaxHeader-before)]...)
	size, err := HeaderSize(r.buf)
	if err != nil {
		return 0, err
	}
	took := len(r.buf) - before
	if size == 0 || size > len(r.buf) {
		if len(r.buf) == MaxHeader {
			return 0, fmt.Errorf("%w: no end within %d bytes", ErrHeader, MaxHeader)
		}
		r.at += int64(took)
		return took, nil
	}
	took = size - before
	h, err := ParseHeader(r.buf[:size])
	if err != nil {
		return 0, err
	}
	if h.Outboard {
		return 0, fmt.Errorf("%w: an outboard file cannot be pushed", ErrHeader)
	}
	if r.verifier, err = r.open(h); err != nil {
		return 0, err
	}
	r.at = int64(size)
	r.buf = make([]byte, 0, max(r.verifier.geo.unitSize(), r.verifier.geo.pageSize()))
	return took, nil
}

func (r *Receiver) item(b []byte) (int, error) {
	start := r.at - int64(len(r.buf))
	it, _, ok := r.verifier.geo.Find(start)
	if !ok {
		return 0, fmt.Errorf("%w: %d bytes after the end of the file", ErrForged, len(b))
	}
	size := r.verifier.geo.Len(it)
	took := min(len(b), size-len(r.buf))
	r.buf = append(r.buf, b[:took]...)
	r.at += int64(took)
	if len(r.buf) < size {
		return took, nil
	}
	err := r.verifier.Offer(it, r.buf)
	r.buf = r.buf[:0]
	if err != nil {
		r.at = start
	}
	return took, err
}
