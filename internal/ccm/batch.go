package ccm

// Message is one message of a batch: the arguments of one Seal or Open, and
// its results.
type Message struct {
	Key   *Key
	Dst   []byte // what the output is appended to; In[:0] to work in place
	Nonce []byte
	In    []byte // plaintext for SealBatch, ciphertext for OpenBatch
	AAD   []byte

	Out []byte // what Seal or Open would have returned; nil beside an error
	Err error
}

// SealBatch seals every message as [Key.Seal] would, each with its own result.
//
// On amd64 with AES-NI it runs several messages abreast, so that their chains
// of dependent AES rounds fill each other's gaps; that is what makes a message
// of a batch cheaper than one alone. Only messages of 48 bytes or more go
// abreast, under AES-128 keys and with additional data of 1 to 126 bytes; the
// others go singly. The keys may differ or be one.
//
// Beyond the rules of Seal, the messages of a batch must not share memory with
// each other. A panic for an overlap leaves the batch half done.
func SealBatch(msgs []Message) { runBatch(msgs, true) }

// OpenBatch opens every message as [Key.Open] would, each with its own result.
// It runs as SealBatch does.
func OpenBatch(msgs []Message) { runBatch(msgs, false) }

// runSingly is the batch without lanes.
func runSingly(msgs []Message, seal bool) {
	for i := range msgs {
		msgs[i].run(seal)
	}
}

func (m *Message) run(seal bool) {
	if seal {
		m.Out, m.Err = m.Key.Seal(m.Dst, m.Nonce, m.In, m.AAD)
	} else {
		m.Out, m.Err = m.Key.Open(m.Dst, m.Nonce, m.In, m.AAD)
	}
}
