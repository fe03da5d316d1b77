package proxy

import (
	"time"

	"github.com/oscorelay/oscorelay/internal/udp"
)

// A shard looks at what time has made due no more often than tickEvery and no
// less than tickIdle.
const (
	tickEvery = 50 * time.Millisecond
	tickIdle  = time.Second
)

// standBack is for how many turns clients wait, after a server had no room for one
// of them, while servers have something to say. To refuse takes half as long as to
// serve: what has been let in comes first, and the system drops the rest for nothing.
const standBack = 16

// loop does all of a shard's work until it is closed: it waits for datagrams on
// any leg, takes in as many as are there, up to batch a leg, and sends what
// comes of them. One goroutine for all legs costs one wake-up where two would
// hand every datagram from thread to thread, and one buffer serves thousands of
// legs.
func (sh *shard) loop() {
	in, inbox, out := make([]udp.Packet, batch), udp.Inbox{}, batches{p: sh.p}
	now := time.Now()
	due := now.Add(tickEvery)
	stood := 0 // turns that the clients have stood back
	for {
		ready, err := sh.poll.Wait(due.Sub(now))
		if err != nil {
			sh.p.cfg.Logger.Error("proxy: a shard has ended", "error", err.Error())
			return
		}
		now = time.Now()
		for _, g := range ready {
			if g == sh.front && stood > 0 && stood <= standBack && len(ready) > 1 {
				stood++
				continue
			}
			n, err := g.sock.Take(&inbox, in)
			if err != nil {
				continue // an earlier datagram found no receiver, or it was closed meanwhile
			}
			sh.mu.Lock()
			refused := sh.counts.by[serverFull]
			for i := range in[:n] {
				g.receive(now, sh.p.address(in[i].Peer, in[i].Local), in[i].Data)
			}
			if g == sh.front {
				stood = 0
				if sh.counts.by[serverFull] > refused {
					stood = 1
				}
			}
			sh.mu.Unlock()
		}
		sh.mu.Lock()
		switch soon := now.Add(tickEvery); {
		case !due.After(now):
			due = sh.tick(now)
		case due.After(soon): // what has come may wait for its time
			due = soon
		}
		out.collect(sh)
		closed := sh.closed
		sh.mu.Unlock()
		if closed {
			return
		}
		out.transmit()
	}
}

// close ends the loop and the sockets, and waits for them.
func (sh *shard) close() {
	sh.mu.Lock()
	sh.closed = true
	for _, g := range sh.legs {
		_ = g.sock.Close()
	}
	sh.mu.Unlock()
	if sh.poll == nil { // there was none to be had
		return
	}
	sh.poll.Wake()
	sh.wg.Wait()
	sh.poll.Close()
}
