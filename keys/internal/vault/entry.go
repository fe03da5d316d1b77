package vault

import (
	"encoding/json"
	"errors"

	"github.com/oscorelay/oscorelay/keys"
	"github.com/oscorelay/oscorelay/oscore"
)

// sealed is an entry as it stands under the seal.
type sealed struct {
	Name            string `json:"name"`
	Secret          []byte `json:"secret"`
	Salt            []byte `json:"salt,omitempty"`
	IDContext       []byte `json:"id_context,omitempty"`
	HasIDContext    bool   `json:"has_id_context,omitempty"` // an empty one is not an absent one
	SenderID        []byte `json:"sender_id"`
	RecipientID     []byte `json:"recipient_id"`
	AEAD            int    `json:"aead,omitempty"`
	HKDF            int    `json:"hkdf,omitempty"`
	Window          int    `json:"window,omitempty"`
	OmitKIDContext  bool   `json:"omit_kid_context,omitempty"`
	Rederive        int    `json:"rederive,omitempty"`
	RederiveOnStart bool   `json:"rederive_on_start,omitempty"`
	NoEcho          bool   `json:"no_echo,omitempty"`
	MaxUnfragmented int    `json:"max_unfragmented,omitempty"`
	Notes           string `json:"notes,omitempty"`
}

// MarshalEntry returns an entry as it stands under a seal.
func MarshalEntry(e *keys.Entry) ([]byte, error) {
	return json.Marshal(toSealed(e))
}

// UnmarshalEntry is the inverse of MarshalEntry.
func UnmarshalEntry(b []byte) (keys.Entry, error) {
	var s sealed
	if err := json.Unmarshal(b, &s); err != nil {
		return keys.Entry{}, errors.New("unreadable entry")
	}
	return s.entry(), nil
}

func toSealed(e *keys.Entry) sealed {
	p, s := &e.Params, &e.Settings
	return sealed{
		Name: e.Name, Secret: p.MasterSecret, Salt: p.MasterSalt, IDContext: p.IDContext, HasIDContext: p.IDContext != nil,
		SenderID: p.SenderID, RecipientID: p.RecipientID, AEAD: int(p.AEAD), HKDF: int(p.HKDF), Window: p.WindowSize,
		OmitKIDContext: p.OmitKIDContext, Rederive: int(s.Rederive), RederiveOnStart: s.RederiveOnStart, NoEcho: s.NoEcho,
		MaxUnfragmented: s.MaxUnfragmented, Notes: e.Notes,
	}
}

func (s *sealed) entry() keys.Entry {
	e := keys.Entry{
		Name: s.Name, Notes: s.Notes,
		Params: oscore.Params{
			MasterSecret: s.Secret, MasterSalt: s.Salt, IDContext: s.IDContext, SenderID: s.SenderID, RecipientID: s.RecipientID,
			AEAD: oscore.AEAD(s.AEAD), HKDF: oscore.HKDF(s.HKDF), WindowSize: s.Window, OmitKIDContext: s.OmitKIDContext,
		},
		Settings: oscore.Settings{
			Rederive: oscore.Role(s.Rederive), RederiveOnStart: s.RederiveOnStart, NoEcho: s.NoEcho, MaxUnfragmented: s.MaxUnfragmented,
		},
	}
	if s.HasIDContext && e.Params.IDContext == nil {
		e.Params.IDContext = []byte{}
	}
	return e
}
