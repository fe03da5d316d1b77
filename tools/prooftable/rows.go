package main

// row is a requirement row. Titles are in our own words.
type row struct {
	id, title string
	outside   bool
}

// Titles that several rows share: what the group takes as a whole.
const (
	transports  = "the same sealed operations over every transport, and over another where UDP is blocked"
	formats     = "payloads in TLV, SenML JSON, SenML CBOR, opaque and link format unchanged behind the proxy"
	bootstrap   = "bootstrap read, bootstrap trigger, retry settings and Send carried sealed"
	retry       = "failures told apart, so that a client retries by its account's rules and then bootstraps, never by a plain error's content"
	upgrade     = "context and sequence numbers survive upgrade and roll-back; no nonce repeats, also after an old state"
	observation = "attributes of observations written sealed; many observations of one resource stay distinct"
	composite   = "FETCH and iPATCH inside, one resource instance addressed, several objects in one notification"
	send        = "Send by the client, muted and unmuted by the server, sealed"
	legacy      = "legacy devices behind a gateway: their protocol carried or translated, single and multiple configuration, firmware, groups, prefix routing, a readable security descriptor"
	trust       = "certificates verified and revocable, also in mid-session, by a trustworthy time"
	profile     = "TLS and DTLS profile for devices; alerts told apart: retry or fail"
	secure      = "keys and their operations in a secure component, with attestation bound to a nonce"
	lowPower    = "low-power networks: delivery by External Identifier, status of a message, late and absent acknowledgements, SMS by external identifier, small data without IP, time to live, quotas"
	clientsOwn  = "the client's data model and timers"
)

// rows are the rows of OMA's LwM2M Requirements 1.1 that concern this layer,
// in the order of the document, with those that do not marked so.
var rows = []row{
	{"E2E-1", "integrity between client and server through LwM2M-unaware nodes", false},
	{"E2E-2", "confidentiality through LwM2M-unaware nodes", false},
	{"E2E-3", "replay protection through LwM2M-unaware nodes", false},
	{"E2E-4", "mutual authentication through LwM2M-unaware nodes", false},
	{"E2E-5", "binding of a response to its request through LwM2M-unaware nodes", false},
	{"E2E-6", "freshness of a request through LwM2M-unaware nodes", false},
	{"E2E-7", "integrity through LwM2M-aware nodes", false},
	{"E2E-8", "confidentiality through LwM2M-aware nodes", false},
	{"E2E-9", "replay protection through LwM2M-aware nodes", false},
	{"E2E-10", "mutual authentication through LwM2M-aware nodes", false},
	{"E2E-11", "binding of a response to its request through LwM2M-aware nodes", false},
	{"E2E-12", "freshness of a request through LwM2M-aware nodes", false},
	{"E2E-13", "fragments of a large transfer verified one by one", false},
	{"E2Eo-1", "integrity between IoT device and server through a legacy gateway", false},
	{"E2Eo-2", "confidentiality through a legacy gateway", false},
	{"E2Eo-3", "replay protection through a legacy gateway", false},
	{"E2Eo-4", "mutual authentication through a legacy gateway", false},
	{"E2Eo-5", "binding of a response to its request through a legacy gateway", false},
	{"E2Eo-6", "freshness of a request through a legacy gateway", false},
	{"E2Eo-7", "integrity between application server and client through the LwM2M server", false},
	{"E2Eo-8", "confidentiality between application server and client, against the LwM2M server too", false},
	{"E2Eo-9", "replay protection between application server and client", false},
	{"E2Eo-10", "mutual authentication between application server and client", false},
	{"E2Eo-11", "binding of a response to its request between application server and client", false},
	{"E2Eo-12", "freshness of a request between application server and client", false},
	{"MBT-001", transports, false},
	{"MBT-002", transports, false},
	{"ENC-1", formats, false},
	{"ENC-2", formats, false},
	{"ENC-3", formats, false},
	{"ENC-4", clientsOwn, true},
	{"ENC-5", clientsOwn, true},
	{"BsR-001", bootstrap, false},
	{"BsR-002", bootstrap, false},
	{"BsR-003", retry, false},
	{"BsR-004", retry, false},
	{"BsR-005", clientsOwn, true},
	{"BsR-006", retry, false},
	{"BsR-007", bootstrap, false},
	{"BsR-008", bootstrap, false},
	{"BsR-009", clientsOwn, true},
	{"MaU-1", upgrade, false},
	{"MaU-2", upgrade, false},
	{"MaU-3", upgrade, false},
	{"MaU-4", clientsOwn, true},
	{"MaU-5", clientsOwn, true},
	{"RMo-001", observation, false},
	{"RMo-002", observation, false},
	{"RMo-003", observation, false},
	{"DSE-001", composite, false},
	{"DSE-002", composite, false},
	{"DSE-003", send, false},
	{"DSE-004", send, false},
	{"DSE-005", send, false},
	{"IR-001", composite, false},
	{"LeG-001", legacy, false},
	{"LeG-002", legacy, false},
	{"LeG-003", legacy, false},
	{"LeG-004", legacy, false},
	{"LeG-005", legacy, false},
	{"LeG-006", legacy, false},
	{"PKI-001", trust, false},
	{"PKI-002", trust, false},
	{"PKI-003", trust, false},
	{"TLS-001", profile, false},
	{"TLS-002", profile, false},
	{"SCS-1", secure, false},
	{"SCS-2", secure, false},
	{"SCS-3", "secure component managed through an object", false},
	{"SCS-4", secure, false},
	{"SCS-5", "storage location indicated", false},
	{"SCS-6", "storage location can be queried", false},
	{"LPW-1", lowPower, false},
	{"LPW-2", lowPower, false},
	{"LPW-3", lowPower, false},
	{"LPW-4", lowPower, false},
	{"LPW-5", lowPower, false},
	{"LPW-6", lowPower, false},
	{"LPW-10", "binding to LoRaWAN", false},
	{"LPW-11", "keys of LoRaWAN's over-the-air activation provisioned", false},
	{"LPW-12", "LoRaWAN's own security beneath stays as it is", false},
}
