package endpoint

import (
	"time"
)

// transfers are the block-wise transfers under way with one peer, where this
// side is the server. peerState.mu guards them.
type transfers struct {
	uploads   map[string]*upload
	downloads map[string]*download
	held      int // bytes of bodies in both
}

// upload is a request body under assembly from inner Block1 options (RFC 7959
// §2.5), of one cache key and Request-Tag (RFC 9175 §3.3).
type upload struct {
	body    []byte
	at      time.Time
	onlyNew bool // the first block held If-None-Match
}

// download is a response body of which further blocks may be asked for. It
// does not change once it is kept, but for at.
type download struct {
	resp    request // whole, without Block2
	options string  // cache key without a FETCH's payload
	made    time.Time
	at      time.Time // of the last use
}

func (t *transfers) dropUpload(key string) {
	if u := t.uploads[key]; u != nil {
		t.held -= len(u.body)
		delete(t.uploads, key)
	}
}

func (t *transfers) dropDownload(key string) {
	if d := t.downloads[key]; d != nil {
		t.held -= len(d.resp.payload)
		delete(t.downloads, key)
	}
}

func (t *transfers) dropOldestDownload() {
	oldest, first := "", true
	for key, d := range t.downloads {
		if first || d.at.Before(t.downloads[oldest].at) {
			oldest, first = key, false
		}
	}
	t.dropDownload(oldest)
}

// newest returns the latest download with the cache key, whatever the payload.
func (t *transfers) newest(options string) (d *download) {
	for _, x := range t.downloads {
		if x.options == options && (d == nil || x.made.After(d.made)) {
			d = x
		}
	}
	return d
}

// expire drops transfers that were idle for longer than the lifetime.
func (t *transfers) expire(now time.Time, lifetime time.Duration) {
	for key, u := range t.uploads {
		if now.Sub(u.at) > lifetime {
			t.dropUpload(key)
		}
	}
	for key, d := range t.downloads {
		if now.Sub(d.at) > lifetime {
			t.dropDownload(key)
		}
	}
}
