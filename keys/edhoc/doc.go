// Package edhoc is EDHOC (RFC 9528): two parties that share no secret
// authenticate each other in three short messages and come to share the keys
// of an OSCORE security context. Bytes in, bytes out: no socket, no clock of
// its own, no disk.
//
// Each step consumes the state it is called on and returns the next, so the
// wrong order does not compile and no state serves twice:
//
//	Initiator.Message1 ──────────── message_1 ───────▶ Responder.Message1
//	      │ WaitMessage2                                  ReceivedMessage1 │
//	      ▼                                                                ▼
//	  .Message2  ◀───────────────── message_2 ─────────────────────── .Message2
//	      │ ReceivedMessage2: who is it?                     WaitMessage3  │
//	      ▼                                                                │
//	  .Authenticate(trust)                                                 │
//	      │ VerifiedMessage2                                               ▼
//	  .Message3  ────────────────── message_3 ──────────────────────▶ .Message3
//	      │ InitiatorDone: Session()       ReceivedMessage3: who is it?    │
//	      │                                                                ▼
//	      │                                              .Authenticate(trust)
//	      ▼                                       ResponderDone: Session() │
//	  .Message4  ◀ ─ ─ ─ ─ ─ ─ ─ ─  message_4 ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ .Message4
//
// A step that fails wipes what was held and ends the session; [AppendError]
// makes the error message for the peer out of its error. [Session.Exported]
// has what OSCORE needs, [Exported.Params] puts it into oscore.Params.
//
// What is told by a message before Authenticate has returned is anybody's
// word; at the Responder that goes for message_1 until message_3 has verified.
//
// # Whom to trust
//
// A [Trust] says which credentials an identifier may mean. A [Store] holds
// them: pinned ones found by kid, hash or value, X.509 chains to a root with a
// hook for revocation, CWTs by their issuers, and, behind a switch, trust on
// first use. Who sets out to reach one peer asks [Store.Expect], since being
// trusted is not being the one that was meant; servers ask [Store.Anyone].
//
// # RFC 9528 in these files
//
//	§3.2          method.go        methods, roles
//	§3.3          connid.go        connection identifiers
//	§3.5.2        credential.go    CRED_x: CCS, CWT, certificate
//	§3.5.1        cosekey.go       their public keys
//	§3.5.3        idcred.go        ID_CRED_x
//	§3.6, §10.2   suite.go         cipher suites, their negotiation (§6.3)
//	§3.7, App. B  dh.go            ephemeral keys, points, ECDH
//	§3.8          ead.go           external authorization data, padding
//	§4, App. G    schedule.go      Extract, KDF, transcript hashes
//	§5            message.go       formats
//	              handshake.go     what the steps share: PRKs, MACs, AEAD
//	              initiator.go     §5.2.2, §5.3.3, §5.4.2, §5.5.3
//	              responder.go     §5.2.3, §5.3.2, §5.4.3, §5.5.2
//	              identity.go      one's own credential; signatures
//	              privatekey.go    its key as a COSE_Key
//	              config.go        Config and its checks
//	§4.2, App. H  session.go       exporter, key update
//	App. A.1      exported.go      OSCORE's parameters
//	§6            errors.go, errormessage.go
//	App. D        trust.go, store.go, storetrust.go, storestate.go
//	App. C        wire.go          CBOR sequences, deterministic only
//	              explain.go       a captured handshake for people
//
// # Limits
//
//   - Suites 0 to 6 and 24. Suite 25 is left out: it takes X448, Ed448 and
//     KMAC, and gives OSCORE no HKDF. No private suites.
//   - ES256 is used with P-256, ES384 with P-384, EdDSA with Ed25519 only.
//   - Credentials are CCS, CWT (COSE_Sign1) and X.509, found by kid, kccs,
//     kcwt, x5chain and x5t. CWTs with a COSE_Mac0 are refused: who can check
//     such a tag can make one. C509, x5bag and URIs (x5u, c5u) are refused with
//     ErrCredentialType; an application may resolve them in a Trust of its own
//     from [CredentialID.Bytes].
//   - C_I = C_R is always refused, as are identifiers longer than OSCORE takes:
//     7 bytes with AES-CCM, 6 with the others.
//   - Non-deterministic CBOR is refused, except that the maps of ID_CRED_x and
//     of credentials need not be sorted.
//   - A message has at most [MaxMessage] bytes, a chain 8 certificates, an EAD
//     field 32 items; 8 credentials are tried for one identifier.
//   - A session that fails is over: with a token of 8 random bytes and, at the
//     Responder, [Config].Forgeries, that takes somebody on the path.
//   - Deduplication (§7) and rate limits (§9.7) are the transport's.
//   - PRKs, shared secrets and plaintexts are wiped. The private scalars inside
//     crypto/ecdh and the state inside crypto/hmac cannot be reached; they are
//     let go of. Public-key operations and comparisons run in constant time,
//     as far as Go's crypto packages do.
//   - The machine's random generator is trusted as it is (RFC 8937 is not
//     applied).
package edhoc
