package edhoc

// Method is how the two authenticate (RFC 9528 §3.2): each with a signature
// key or with a static Diffie-Hellman key.
type Method int

// The methods, named Initiator first.
const (
	SignatureSignature Method = 0
	SignatureStatic    Method = 1
	StaticSignature    Method = 2
	StaticStatic       Method = 3
)

func (m Method) known() bool { return m >= SignatureSignature && m <= StaticStatic }

// Static says whether the party of the role authenticates with a static
// Diffie-Hellman key.
func (m Method) Static(r Role) bool {
	if r == RoleInitiator {
		return m == StaticSignature || m == StaticStatic
	}
	return m == SignatureStatic || m == StaticStatic
}

// Role is a party of the protocol. Either may be CoAP client or server; the
// Initiator's identity is the better protected (RFC 9528 §9.1).
type Role int

// The two parties.
const (
	RoleInitiator Role = iota
	RoleResponder
)

// String returns "Initiator" or "Responder".
func (r Role) String() string {
	if r == RoleInitiator {
		return "Initiator"
	}
	return "Responder"
}

func (r Role) peer() Role { return 1 - r }
