package proxy

// tokens are the requests of a leg by the token that was put into them. A token
// is 64 bits: 40 that nobody can guess (RFC 7252 §5.3.1 asks for 32 of them at
// least), and the place where its exchange stands.
type tokens struct {
	places []*exchange
	free   []uint32
}

// placeBits is the low bits of a token that are its place.
const placeBits = 24

// draw gives an exchange its token.
func (t *tokens) draw(ex *exchange, random uint64) {
	place := uint32(len(t.places))
	if n := len(t.free); n > 0 {
		place = t.free[n-1]
		t.free = t.free[:n-1]
		t.places[place] = ex
	} else {
		t.places = append(t.places, ex)
	}
	ex.token = random<<placeBits | uint64(place)
}

// find returns the exchange of a token, or nil.
func (t *tokens) find(token uint64) *exchange {
	place := token & (1<<placeBits - 1)
	if place >= uint64(len(t.places)) {
		return nil
	}
	if ex := t.places[place]; ex != nil && ex.token == token {
		return ex
	}
	return nil
}

// release takes an exchange out, if it is in.
func (t *tokens) release(ex *exchange) {
	if t.find(ex.token) != ex {
		return
	}
	place := uint32(ex.token & (1<<placeBits - 1))
	t.places[place] = nil
	t.free = append(t.free, place)
}
