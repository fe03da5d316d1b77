// Package fetch downloads signed firmware over CoAP from mirrors that nobody
// has to trust.
//
//	names pinned by hash ─┐
//	                      ▼
//	manifest (sealed path, or a mirror's header) ─ Open ─ Policy
//	                      ▼
//	W workers: Wanted ─ pick a mirror ─ GET, Block2 ─ answers ─ Offer ─▶ flash, journal
//	                      ▲                              │ forged: as if it had not come
//	                      └────── timer, budget ◀────────┘
//
// A block that fails its check changes nothing: the exchange stays open to its
// timeout, so that the genuine answer still counts, whoever was faster. Only a
// timer asks again, each time with a fresh Request-Tag, which is part of a
// cache's key (RFC 9175 §3.6), so that a poisoned cache is passed by. The
// budget bounds what forgery can make a device send: when it is spent the
// download suspends with its journal and can be resumed.
//
// What a mirror says beside the bytes (ETag, Size2, the M bit, error codes,
// Reset) is a hint and ends nothing.
//
//	config.go   Config, Source, Result
//	run.go      the download: manifest, workers, resumption
//	attempt.go  one piece: blocks, late answers, retries
//	mirrors.go  which mirror is asked; which is dropped
//	budget.go   the token bucket
//	udp.go      RFC 7252 §4 over one socket: tokens, retransmission
//	message.go  the request and what an answer may be
//
// Limits: RFC 7959 block numbers end at 2^20, so a file may have 2^20 blocks of
// its own block size; larger ones are refused by name. One request in flight a
// worker, at most 4 workers.
package fetch
