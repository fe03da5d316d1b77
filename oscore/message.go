package oscore

// Message is a CoAP message without its transport header: the code, and the
// body as it stands on every transport — options, then 0xff and the payload if
// there is one (RFC 7252 §3).
type Message struct {
	Code byte
	Body []byte
}

// Outer codes (§4.2).
const (
	codePOST    = 0x02 // 0.02
	codeFETCH   = 0x05 // 0.05
	codeChanged = 0x44 // 2.04
	codeContent = 0x45 // 2.05
	code401     = 0x81 // 4.01
)

func isRequest(code byte) bool  { return code>>5 == 0 && code != 0 }
func isResponse(code byte) bool { return code>>5 >= 2 && code>>5 <= 5 }
func isSignal(code byte) bool   { return code>>5 == 7 } // §4.3
