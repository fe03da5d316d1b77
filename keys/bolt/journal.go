package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/oscorelay/oscorelay/keys"
)

// Exchange names an unsafe request as its sender repeats it: the same message ID
// and token from the same peer (RFC 7252 §4.5).
type Exchange struct {
	Peer      string // who asks
	MessageID uint16
	Token     []byte // at most 8 bytes
}

// Outcome is what the journal knows of an exchange.
type Outcome struct {
	// Done says that Response is the answer. Without it the request went on, or
	// was about to, and whether it ran is not known: it must not go on again but
	// as the same message, which its receiver can tell.
	Done     bool
	Begun    time.Time // in whole nanoseconds since 1970
	Request  []byte    // what was about to be sent, until it is done; sealed at rest
	Response []byte    // likewise
}

// journalKey is the length of the peer's name and the name, the message ID, and
// the token.
func journalKey(x Exchange) ([]byte, error) {
	if len(x.Peer) > keys.MaxName || len(x.Token) > 8 {
		return nil, fmt.Errorf("%w: peer of %d bytes, token of %d bytes", ErrTooLong, len(x.Peer), len(x.Token))
	}
	b := append([]byte{byte(len(x.Peer))}, x.Peer...)
	b = binary.BigEndian.AppendUint16(b, x.MessageID)
	return append(b, x.Token...), nil
}

func parseJournalKey(b []byte) (x Exchange, err error) {
	if len(b) < 3 || len(b) < 3+int(b[0]) {
		return x, fmt.Errorf("keys/bolt: the journal: %w", errDamaged)
	}
	n := 1 + int(b[0])
	return Exchange{string(b[1:n]), binary.BigEndian.Uint16(b[n:]), bytes.Clone(b[n+2:])}, nil
}

// A value is the time (8), whether it is done (1), and the request or the
// response, sealed.
func (st *Store) outcome(key, b []byte) (o Outcome, err error) {
	if len(b) < 9 {
		return o, fmt.Errorf("keys/bolt: the journal: %w", errDamaged)
	}
	o.Begun = time.Unix(0, int64(binary.BigEndian.Uint64(b)))
	data, err := st.open(bucketJournal, key, b[9:])
	if err != nil {
		return o, fmt.Errorf("keys/bolt: the journal: %w", err)
	}
	if o.Done = b[8] == journalDone; o.Done {
		o.Response = data
	} else {
		o.Request = data
	}
	return o, nil
}

const (
	journalBegun = 0
	journalDone  = 1
)

// Begin enters an exchange before its request goes on. If it is in the journal
// already that is left as it is, and Begin returns it: a repetition, whose
// request must not go on again.
func (tx *Tx) Begin(x Exchange, request []byte, now time.Time) (earlier Outcome, repeated bool, err error) {
	key, err := journalKey(x)
	if err != nil {
		return earlier, false, err
	}
	b, err := tx.bucket(bucketJournal)
	if err != nil {
		return earlier, false, err
	}
	if v := b.Get(key); v != nil {
		earlier, err = tx.st.outcome(key, v)
		return earlier, err == nil, err
	}
	at := binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano()))
	if err := b.Put(key, tx.journalled(at, journalBegun, key, request)); err != nil {
		return earlier, false, err
	}
	return earlier, false, tx.tx.Bucket(bucketTimes).Put(append(at, key...), nil)
}

func (tx *Tx) journalled(at []byte, kind byte, key, data []byte) []byte {
	return append(append(bytes.Clone(at), kind), tx.st.seal(bucketJournal, key, data)...)
}

// Again puts another request in the place of the one that an exchange began
// with, before it goes on: the receiver did not act on the first.
func (tx *Tx) Again(x Exchange, request []byte) error {
	return tx.change(x, journalBegun, request)
}

// Finish keeps the response of an exchange that was begun, for its repetitions.
func (tx *Tx) Finish(x Exchange, response []byte) error {
	return tx.change(x, journalDone, response)
}

func (tx *Tx) change(x Exchange, kind byte, data []byte) error {
	key, err := journalKey(x)
	if err != nil {
		return err
	}
	b, err := tx.bucket(bucketJournal)
	if err != nil {
		return err
	}
	v := b.Get(key)
	if len(v) < 8 {
		return ErrNotBegun
	}
	return b.Put(key, tx.journalled(v[:8], kind, key, data))
}

// Forget deletes an exchange, whether it was finished or not: its request may go
// on again. One that there is not is no error.
func (tx *Tx) Forget(x Exchange) error {
	key, err := journalKey(x)
	if err != nil {
		return err
	}
	b, err := tx.bucket(bucketJournal)
	if err != nil {
		return err
	}
	v := b.Get(key)
	if len(v) < 8 {
		return nil
	}
	at := append(bytes.Clone(v[:8]), key...)
	if err := b.Delete(key); err != nil {
		return err
	}
	return tx.tx.Bucket(bucketTimes).Delete(at)
}

// Expire deletes the exchanges that began before a time: EXCHANGE_LIFETIME ago,
// nobody repeats them any more (RFC 7252 §4.8.2).
func (tx *Tx) Expire(before time.Time) (n int, err error) {
	b, err := tx.bucket(bucketJournal)
	if err != nil {
		return 0, err
	}
	var old [][]byte
	end := binary.BigEndian.AppendUint64(nil, uint64(before.UnixNano()))
	times := tx.tx.Bucket(bucketTimes)
	c := times.Cursor()
	for k, _ := c.First(); k != nil && bytes.Compare(k[:8], end) < 0; k, _ = c.Next() {
		old = append(old, bytes.Clone(k))
	}
	for _, k := range old {
		if err := b.Delete(k[8:]); err != nil {
			return 0, err
		}
		if err := times.Delete(k); err != nil {
			return 0, err
		}
	}
	return len(old), nil
}

// Journal calls fn for each exchange until it returns an error. fn must not
// change the journal.
func (tx *Tx) Journal(fn func(Exchange, Outcome) error) error {
	return tx.tx.Bucket(bucketJournal).ForEach(func(k, v []byte) error {
		x, err := parseJournalKey(k)
		if err != nil {
			return err
		}
		o, err := tx.st.outcome(k, v)
		if err != nil {
			return err
		}
		return fn(x, o)
	})
}

// Begin is [Tx.Begin] in a transaction of its own.
func (st *Store) Begin(ctx context.Context, x Exchange, request []byte, now time.Time) (earlier Outcome, repeated bool, err error) {
	err = st.Update(ctx, func(tx *Tx) (err error) {
		earlier, repeated, err = tx.Begin(x, request, now)
		return err
	})
	return earlier, repeated, err
}

// Again is [Tx.Again] in a transaction of its own.
func (st *Store) Again(ctx context.Context, x Exchange, request []byte) error {
	return st.Update(ctx, func(tx *Tx) error { return tx.Again(x, request) })
}

// Finish is [Tx.Finish] in a transaction of its own.
func (st *Store) Finish(ctx context.Context, x Exchange, response []byte) error {
	return st.Update(ctx, func(tx *Tx) error { return tx.Finish(x, response) })
}
