package proxy

import "time"

// observeRoom makes room for the observation that a request asks for, or says why
// there is none. Whoever forges source addresses could fill the table and leave it
// so, as nobody has to acknowledge anything before a server's next confirmable
// notification, which may be a day away (RFC 7641 §4.5). So a client that begins
// to observe is asked whether it receives, and where there is no room the oldest
// observation goes whose client has not shown it.
func (sh *shard) observeRoom(now time.Time, g *leg, ev *event) (full reason) {
	if g.byClient[clientKey{ev.Peer, string(ev.Message.Token)}] != nil {
		return reasons // it has its place
	}
	if g.observes[ev.Peer] >= sh.cfg.PeerRelations {
		return peerObservationsFull
	}
	for sh.relations >= sh.cfg.MaxRelations {
		ex := sh.unshown.head
		if ex == nil {
			return observationsFull
		}
		sh.unshown.remove(ex)
		if !ex.from.layer.Shown(ex.client.peer) {
			sh.count(observationsFull)
			sh.end(now, ex) // its client is told nothing: it may be no client
		}
	}
	return reasons
}

// relate counts an exchange as an observation.
func (sh *shard) relate(now time.Time, ex *exchange) {
	if ex.relation {
		return
	}
	ex.relation = true
	sh.relations++
	ex.from.observes[ex.client.peer]++
	if !ex.from.layer.Shown(ex.client.peer) {
		sh.unshown.push(ex)
		ex.from.messages().Ask(now, ex.client.peer)
	}
}

// unrelate takes it out again.
func (sh *shard) unrelate(ex *exchange) {
	if !ex.relation {
		return
	}
	ex.relation = false
	sh.relations--
	sh.unshown.remove(ex)
	if n := ex.from.observes[ex.client.peer] - 1; n > 0 {
		ex.from.observes[ex.client.peer] = n
	} else {
		delete(ex.from.observes, ex.client.peer)
	}
}
