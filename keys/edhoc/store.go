package edhoc

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/veraison/go-cose"
)

// StoreConfig says what a [Store] trusts beyond what is pinned in it.
type StoreConfig struct {
	// Roots are the anchors of X.509 chains. Nil: no chain is trusted, pinned
	// certificates are; the machine's own roots are never used.
	Roots *x509.CertPool
	// VerifyChain, if set, judges each chain that leads to a root, leaf first,
	// root last: revocation, policy, and that the leaf may go by name (empty:
	// any name). It replaces the default judgement of the name: equal to a
	// DNS name, IP address, URI or e-mail address of the leaf's, or to its
	// common name.
	VerifyChain func(name string, chain []*x509.Certificate) error
	// Issuers are credentials whose signature keys vouch for CWTs.
	Issuers []*Credential
	// TrustOnFirstUse lets a peer be trusted that nothing is known of: the
	// first credential that comes by value under a name, once its owner has
	// proved to hold the key, is remembered, and no other is taken under that
	// name. The first use itself is open to whoever is on the path (RFC 9528
	// Appendix D.5). [Store.SetTrustOnFirstUse] switches it for a while.
	TrustOnFirstUse bool
	// MaxLearned bounds what trust on first use remembers; 0: 1024.
	MaxLearned int
	// OnLearn, if set, is called, with the store locked, before a learned
	// credential counts, to make it durable. An error refuses the credential.
	OnLearn func(Entry) error
	// Now is the clock that validity is judged by; nil: time.Now.
	Now func() time.Time
}

const defaultMaxLearned = 1024

// Entry is a credential that a [Store] holds.
type Entry struct {
	Name       string // who this is; several credentials may have one name
	Credential *Credential
	KIDs       [][]byte // by which it is referred to, beside the one in its key
	FirstUse   bool     // learned by trust on first use, not pinned
}

// Store holds the credentials of peers and decides whom to trust. It is safe
// for concurrent use.
//
//	by kid           pinned or learned credentials with that kid, all of them
//	by x5t           a pinned certificate, or one added to be found, whose
//	                 chain leads to a root
//	x5chain          a pinned leaf, or a chain that leads to a root
//	kccs             a pinned or learned claims set, byte for byte
//	kcwt             a pinned CWT, or one that an issuer has signed
//	by value, else   trust on first use, if it is switched on
type Store struct {
	cfg StoreConfig

	mu      sync.RWMutex
	tofu    bool
	learned int
	byItem  map[[32]byte]*Entry  // by fingerprint
	byKID   map[string][]*Entry  // by each kid
	byName  map[string][]*Entry  //
	byHash  map[[8]byte][]*Entry // certificates, by the start of each hash
	known   map[[8]byte][]*Credential
	inters  []*x509.Certificate
}

// NewStore makes an empty store.
func NewStore(cfg StoreConfig) *Store {
	if cfg.MaxLearned == 0 {
		cfg.MaxLearned = defaultMaxLearned
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Store{
		cfg: cfg, tofu: cfg.TrustOnFirstUse,
		byItem: map[[32]byte]*Entry{}, byKID: map[string][]*Entry{}, byName: map[string][]*Entry{},
		byHash: map[[8]byte][]*Entry{}, known: map[[8]byte][]*Credential{},
	}
}

// SetTrustOnFirstUse switches trust on first use, for instance on while
// devices are being paired.
func (s *Store) SetTrustOnFirstUse(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tofu = on
}

// Pin trusts a credential as name, found by the kid in its key and by the
// given ones. A credential pinned before gets the new name and kids; one that
// was learned becomes pinned.
func (s *Store) Pin(name string, c *Credential, kids ...[]byte) error {
	if c == nil {
		return fmt.Errorf("%w: no credential to pin as %q", ErrConfig, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(s.byItem[c.Fingerprint()])
	s.add(&Entry{Name: name, Credential: c, KIDs: cloneAll(kids)})
	return nil
}

// Unpin forgets every credential of the name, learned ones too, and says how
// many there were.
func (s *Store) Unpin(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := slices.Clone(s.byName[name])
	for _, e := range gone {
		s.remove(e)
	}
	return len(gone)
}

// AddCertificate makes a certificate known without trusting it: it is found by
// x5t, and serves as an intermediate, when its chain leads to a root.
func (s *Store) AddCertificate(c *Credential) error {
	if c == nil || c.cert == nil {
		return fmt.Errorf("%w: no certificate to add", ErrConfig)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.cert.IsCA {
		s.inters = append(s.inters, c.cert)
		return nil
	}
	for _, k := range hashKeys(c) {
		s.known[k] = append(s.known[k], c)
	}
	return nil
}

// Entries returns what is pinned and learned, ordered by name.
func (s *Store) Entries() []Entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]Entry, 0, len(s.byItem))
	for _, e := range s.byItem {
		list = append(list, e.clone())
	}
	slices.SortFunc(list, func(a, b Entry) int {
		if a.Name != b.Name {
			return bytes.Compare([]byte(a.Name), []byte(b.Name))
		}
		return bytes.Compare(a.Credential.item, b.Credential.item)
	})
	return list
}

// Name returns the name that a credential is pinned or learned under; else
// what the credential says of itself, which a root or issuer has vouched for
// if the store accepted it.
func (s *Store) Name(c *Credential) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.byItem[c.Fingerprint()]; e != nil {
		return e.Name
	}
	return nameOf(c)
}

// nameOf is who a credential says its owner is; of one that says nothing, the
// fingerprint.
func nameOf(c *Credential) string {
	switch {
	case c.subject != "":
		return c.subject
	case c.kid != nil:
		return "kid:" + hex.EncodeToString(c.kid)
	}
	f := c.Fingerprint()
	return "sha-256:" + hex.EncodeToString(f[:])
}

func (e *Entry) clone() Entry {
	c := *e
	c.KIDs = cloneAll(e.KIDs)
	return c
}

// kids returns every kid that finds the entry.
func (e *Entry) kids() map[string]bool {
	kids := map[string]bool{}
	if e.Credential.kid != nil {
		kids[string(e.Credential.kid)] = true
	}
	for _, k := range e.KIDs {
		kids[string(k)] = true
	}
	return kids
}

func (s *Store) add(e *Entry) {
	s.byItem[e.Credential.Fingerprint()] = e
	s.byName[e.Name] = append(s.byName[e.Name], e)
	for kid := range e.kids() {
		s.byKID[kid] = append(s.byKID[kid], e)
	}
	for _, k := range hashKeys(e.Credential) {
		s.byHash[k] = append(s.byHash[k], e)
	}
	if e.FirstUse {
		s.learned++
	}
}

func (s *Store) remove(e *Entry) {
	if e == nil {
		return
	}
	delete(s.byItem, e.Credential.Fingerprint())
	drop(s.byName, e.Name, e)
	for kid := range e.kids() {
		drop(s.byKID, kid, e)
	}
	for _, k := range hashKeys(e.Credential) {
		drop(s.byHash, k, e)
	}
	if e.FirstUse {
		s.learned--
	}
}

func drop[K comparable](m map[K][]*Entry, k K, e *Entry) {
	m[k] = slices.DeleteFunc(slices.Clone(m[k]), func(x *Entry) bool { return x == e })
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

// hashKeys are the starts of a certificate's hashes, by which x5t finds it.
func hashKeys(c *Credential) [][8]byte {
	if c.cert == nil {
		return nil
	}
	keys := map[[8]byte]bool{}
	for _, algorithm := range []int{algSHA256, algSHA384, algSHA512} { // SHA-256/64 is the start of SHA-256
		h, err := HashCertificate(c.cert.Raw, algorithm)
		if err != nil {
			panic(err) // the algorithms are those it knows
		}
		keys[[8]byte(h.Hash)] = true
	}
	return slices.Collect(maps.Keys(keys))
}

func cloneAll(list [][]byte) [][]byte {
	var out [][]byte
	for _, b := range list {
		out = append(out, append([]byte{}, b...))
	}
	return out
}

// issuedBy refuses a CWT that none of the issuers has signed (RFC 8392 §7.2).
func (c *Credential) issuedBy(issuers []*Credential, now time.Time) error {
	for _, issuer := range issuers {
		if c.iss != "" && issuer.subject != "" && c.iss != issuer.subject {
			continue
		}
		if issuer.key.noSignature || issuer.validAt(now) != nil {
			continue
		}
		var algorithm cose.Algorithm
		switch issuer.key.crv {
		case crvEd25519:
			algorithm = cose.AlgorithmEdDSA
		case crvP256:
			algorithm = cose.AlgorithmES256
		case crvP384:
			algorithm = cose.AlgorithmES384
		default:
			continue
		}
		verifier, err := cose.NewVerifier(algorithm, issuer.key.verifier())
		if err != nil {
			continue
		}
		if c.cwt.Verify(nil, verifier) == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: no issuer known here has signed %s", ErrUntrusted, c)
}
