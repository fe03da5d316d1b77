package edhoc

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// stateVersion is the version of the state's format.
const stateVersion = 1

// state is how a store's entries are written: JSON that a person can read.
type state struct {
	Version     int          `json:"version"`
	Credentials []stateEntry `json:"credentials"`
}

type stateEntry struct {
	Name       string   `json:"name"`
	Type       string   `json:"type"`       // "ccs", "cwt" or "x509"
	Credential string   `json:"credential"` // hex
	KIDs       []string `json:"kids,omitempty"`
	Origin     string   `json:"origin"` // "pinned" or "first-use"
}

var (
	stateTypes = map[CredentialType]string{TypeCCS: "ccs", TypeCWT: "cwt", TypeCertificate: "x509"}
	parsers    = map[string]func([]byte) (*Credential, error){"ccs": ParseCCS, "cwt": ParseCWT, "x509": ParseCertificate}
)

const (
	originPinned   = "pinned"
	originFirstUse = "first-use"
)

// Export writes what is pinned and learned as JSON. All of it is public; who
// can change it decides who is trusted.
func (s *Store) Export() ([]byte, error) { return ExportEntries(s.Entries()) }

// ExportEntries writes entries as [Store.Export] does, such as those that
// [StoreConfig].OnLearn has told.
func ExportEntries(entries []Entry) ([]byte, error) {
	st := state{Version: stateVersion, Credentials: []stateEntry{}}
	for _, e := range entries {
		se := stateEntry{
			Name: e.Name, Type: stateTypes[e.Credential.typ],
			Credential: hex.EncodeToString(e.Credential.Bytes()), Origin: originPinned,
		}
		if e.FirstUse {
			se.Origin = originFirstUse
		}
		for _, k := range e.KIDs {
			se.KIDs = append(se.KIDs, hex.EncodeToString(k))
		}
		st.Credentials = append(st.Credentials, se)
	}
	out, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("edhoc: credential store: %w", err)
	}
	return append(out, '\n'), nil
}

// Import adds what [Store.Export] wrote. Nothing is added unless all of it is
// sound; the error names the entry, the field and the mend. A credential that
// is in the store already keeps its entry there.
func (s *Store) Import(data []byte) error {
	var st state
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&st); err != nil {
		return fmt.Errorf("edhoc: credential store: not its JSON format: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("edhoc: credential store: text after the JSON object: remove it")
	}
	if st.Version != stateVersion {
		return fmt.Errorf("edhoc: credential store: version %d, this program reads version %d", st.Version, stateVersion)
	}
	entries := make([]*Entry, len(st.Credentials))
	for i, se := range st.Credentials {
		e, err := se.entry()
		if err != nil {
			return fmt.Errorf("edhoc: credential store: credentials[%d] %q: %w", i, se.Name, err)
		}
		entries[i] = e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if s.byItem[e.Credential.Fingerprint()] == nil {
			s.add(e)
		}
	}
	return nil
}

func (se stateEntry) entry() (*Entry, error) {
	parse := parsers[se.Type]
	if parse == nil {
		return nil, fmt.Errorf("type %q: write ccs, cwt or x509", se.Type)
	}
	if se.Origin != originPinned && se.Origin != originFirstUse {
		return nil, fmt.Errorf("origin %q: write pinned or first-use", se.Origin)
	}
	raw, err := hex.DecodeString(se.Credential)
	if err != nil {
		return nil, fmt.Errorf("credential: not hex: %w", err)
	}
	e := &Entry{Name: se.Name, FirstUse: se.Origin == originFirstUse}
	if e.Credential, err = parse(raw); err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	for i, k := range se.KIDs {
		kid, err := hex.DecodeString(k)
		if err != nil {
			return nil, fmt.Errorf("kids[%d]: not hex: %w", i, err)
		}
		e.KIDs = append(e.KIDs, kid)
	}
	return e, nil
}
