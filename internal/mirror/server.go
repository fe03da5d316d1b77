package mirror

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/oscorelay/oscorelay/internal/coap"
)

// File is one resource. ETag, 1 to 8 bytes, names its content.
type File struct {
	io.ReaderAt
	Size   int64
	ETag   []byte
	MaxAge uint32 // seconds, 0: the protocol's default of 60
}

// Server answers from what Lookup finds under an absolute path.
type Server struct {
	Lookup func(path string) (File, bool)
	// MaxSZX bounds the block size; 0 is RFC 7959's largest, 1024 bytes.
	MaxSZX uint8
	// Forge, optional, may change a block before it is sent: for tests and
	// demonstrations of what a hostile mirror can do.
	Forge func(path string, offset int64, block []byte)
	// Log, optional, is told of every answer.
	Log func(from net.Addr, path string, block coap.Block, code coap.Code)
}

// maxDatagram is more than any request needs.
const maxDatagram = 1500

// Serve answers until the context ends; it then closes the connection.
func (s *Server) Serve(ctx context.Context, conn net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	in := make([]byte, maxDatagram)
	var out []byte
	for {
		n, from, err := conn.ReadFrom(in)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			continue
		}
		if out = s.answer(out[:0], in[:n], from); len(out) > 0 {
			_, _ = conn.WriteTo(out, from)
		}
	}
}

// answer appends the datagram that answers one, or nothing.
func (s *Server) answer(dst, datagram []byte, from net.Addr) []byte {
	d, err := coap.ParseDatagram(datagram)
	switch {
	case len(datagram) < 4 || datagram[0]>>6 != 1:
		return dst // §3: another version is silently ignored
	case err != nil && d.Type == coap.Confirmable, err == nil && d.Type == coap.Confirmable && d.Code == coap.Empty:
		// §4.2: a message in error, and §4.3: a ping.
		return coap.Datagram{Type: coap.Reset, MessageID: d.MessageID}.Append(dst)
	case err != nil || d.Type != coap.Confirmable && d.Type != coap.NonConfirmable || !d.Code.IsRequest():
		return dst
	}
	path := coap.Path(d.Body)
	code, block, body := s.get(d, path)
	if s.Log != nil {
		s.Log(from, path, block, code)
	}
	r := coap.Datagram{Type: coap.NonConfirmable, Code: code, MessageID: d.MessageID, Token: d.Token, Body: body}
	if d.Type == coap.Confirmable {
		r.Type = coap.Acknowledgement
	}
	return r.Append(dst)
}

// get is a GET of one block (RFC 7959 §2.4).
func (s *Server) get(d coap.Datagram, path string) (coap.Code, coap.Block, []byte) {
	most := s.MaxSZX
	if most == 0 {
		most = 6
	}
	block := coap.Block{SZX: most}
	if d.Code != coap.GET {
		return coap.MethodNotAllowed, block, nil
	}
	w := coap.Walk(d.Body)
	for w.Next() {
		switch w.Number {
		case coap.Block2:
			asked, err := coap.ParseBlock(w.Value)
			if err != nil {
				return coap.BadRequest, block, nil
			}
			if block = asked; block.SZX > most {
				// A smaller block at the same place.
				block.Num <<= block.SZX - most
				block.SZX = most
			}
		case coap.URIHost, coap.URIPort, coap.URIPath, coap.URIQuery, coap.Accept:
		default:
			if coap.Critical(w.Number) {
				return coap.BadOption, block, nil
			}
		}
	}
	if w.Err() != nil {
		return coap.BadRequest, block, nil
	}
	f, ok := s.Lookup(path)
	if !ok {
		return coap.NotFound, block, nil
	}
	offset := int64(block.Num) << (block.SZX + 4)
	if offset >= f.Size || block.Num > coap.MaxBlockNum {
		return coap.BadRequest, block, nil
	}
	payload := make([]byte, min(int64(block.Size()), f.Size-offset))
	if n, err := f.ReadAt(payload, offset); n != len(payload) {
		_ = err
		return coap.InternalServerError, block, nil
	}
	if s.Forge != nil {
		s.Forge(path, offset, payload)
	}
	block.More = offset+int64(len(payload)) < f.Size
	opts := make(coap.Options, 0, 4)
	if len(f.ETag) > 0 {
		opts = opts.Add(coap.ETag, f.ETag)
	}
	if f.MaxAge != 0 {
		opts = opts.AddUint(coap.MaxAge, f.MaxAge)
	}
	opts = opts.Add(coap.Block2, block.Append(nil))
	if block.Num == 0 && f.Size < 1<<32 {
		opts = opts.AddUint(coap.Size2, uint32(f.Size))
	}
	return coap.Content, block, coap.AppendBody(nil, opts, payload)
}
