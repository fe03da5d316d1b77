package object5

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"sync"

	"github.com/oscorelay/oscorelay/fragment"
)

// Device does what the machine decides. Its methods are called one at a time,
// without a lock of the machine's held, and should return at once.
type Device interface {
	// Download begins or resumes a pull. It reports Accepted when the manifest
	// has been taken, and Fetched when the download has ended.
	Download(uri string, policy fragment.Policy)
	// Abort ends a download and lets go of its image and journal.
	Abort()
	// Install begins the update. It reports Installed when it has ended, which
	// may be after a restart.
	Install(*fragment.Signed)
	// Open returns where a pushed image goes.
	Open(*fragment.Signed) (flash, journal fragment.Store, err error)
	// Save makes a record survive a power cut before it returns.
	Save(Record) error
	// Now returns seconds since 1970, 0 where there is no clock.
	Now() uint64
}

// Record is what outlives a restart.
type Record struct {
	State    State
	Result   Result
	URI      string
	Sign1    []byte // of the image that is downloading, downloaded or being installed
	Sequence uint64 // of what is installed; rises at [Success] only
	Changed  uint64 // /5/0/12
	Auto     bool   // /5/0/14
}

// Config is a machine's. Keys, Policy and Device are required.
type Config struct {
	Keys    []fragment.PublicKey
	Policy  fragment.Policy // Installed and Now are the machine's business
	Device  Device
	Schemes []string // of URIs that Download takes; nil: coap
	// MayDefer, optional, is asked before an update begins; true leaves it to
	// [Machine.Approve].
	MayDefer func() bool
}

// maxURI is /5/0/1's range.
const maxURI = 255

// Machine is one instance of the object. Its methods may be called from
// several goroutines.
type Machine struct {
	c       Config
	mu      sync.Mutex
	r       Record
	signed  *fragment.Signed
	push    *push
	headers int      // plain headers in a row that did not verify
	after   []func() // calls of the device, once the lock is free
}

// New restores a machine from the record that was saved last; the zero record
// is a new device's. What a restart interrupted goes on: a pull is resumed, an
// installation awaits its Installed.
func New(c Config, r Record) (*Machine, error) {
	if c.Schemes == nil {
		c.Schemes = []string{"coap"}
	}
	m := &Machine{c: c, r: r}
	if len(r.Sign1) > 0 {
		s, err := fragment.Open(r.Sign1, c.Keys...)
		if err != nil {
			return nil, fmt.Errorf("object5: the saved manifest: %w", err)
		}
		m.signed = s
	}
	defer m.run()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case r.State > Updating || r.State != Idle && r.State != Downloading && m.signed == nil:
		return nil, fmt.Errorf("object5: the saved record is in state %v without a manifest", r.State)
	case r.URI != "" && (r.State == Downloading || r.State == Idle && r.Result == Initial):
		m.download()
	case r.State == Downloading:
		// A push begins anew; what has been verified stays in the journal.
		if err := m.to(Idle, ConnectionLost); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// run makes the calls that were decided under the lock.
func (m *Machine) run() {
	m.mu.Lock()
	calls := m.after
	m.after = nil
	m.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

func (m *Machine) download() {
	uri, policy := m.r.URI, m.policy()
	m.after = append(m.after, func() { m.c.Device.Download(uri, policy) })
}

func (m *Machine) policy() fragment.Policy {
	p := m.c.Policy
	p.Installed, p.Now = m.r.Sequence, m.c.Device.Now()
	return p
}

// to moves to a state, which is saved before it is visible. Idle lets go of
// the image.
func (m *Machine) to(s State, r Result) error {
	next := m.r
	next.State, next.Result = s, r
	if s != m.r.State {
		next.Changed = m.c.Device.Now()
	}
	if s == Idle {
		next.URI, next.Sign1 = "", nil
	}
	return m.save(next)
}

func (m *Machine) save(next Record) error {
	if err := m.c.Device.Save(next); err != nil {
		return fmt.Errorf("object5: saving: %w", err)
	}
	if next.Sign1 == nil {
		m.signed = nil
	}
	m.r = next
	return nil
}

// Record returns what was saved last.
func (m *Machine) Record() Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.r
}

// State returns /5/0/3 and /5/0/5.
func (m *Machine) State() (State, Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.r.State, m.r.Result
}

// Resource identifiers of the object.
const (
	Package        = 0
	PackageURI     = 1
	Update         = 2
	StateID        = 3
	UpdateResult   = 5
	PkgName        = 6
	PkgVersion     = 7
	Protocols      = 8
	DeliveryMethod = 9
	Cancel         = 10
	LastChange     = 12
	AutoUpgrade    = 14
)

// protocolOf numbers the schemes of resource 8.
var protocolOf = map[string]int64{"coap": 0, "coaps": 1, "http": 2, "https": 3, "coap+tcp": 4, "coaps+tcp": 5}

const deliverBoth = 2

// Read returns a resource's value: int64, uint64 (time), string, bool or
// []int64. ok is false for a resource that is not there or cannot be read.
func (m *Machine) Read(resource int) (value any, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch resource {
	case PackageURI:
		return m.r.URI, true
	case StateID:
		return int64(m.r.State), true
	case UpdateResult:
		return int64(m.r.Result), true
	case PkgName, PkgVersion:
		if m.signed == nil {
			return "", true
		}
		if resource == PkgName {
			return m.signed.Manifest().PkgName, true
		}
		return m.signed.Manifest().PkgVersion, true
	case Protocols:
		var list []int64
		for _, s := range m.c.Schemes {
			if n, known := protocolOf[s]; known {
				list = append(list, n)
			}
		}
		return list, true
	case DeliveryMethod:
		return int64(deliverBoth), true
	case LastChange:
		return m.r.Changed, true
	case AutoUpgrade:
		return m.r.Auto, true
	}
	return nil, false
}

// WriteAuto writes /5/0/14.
func (m *Machine) WriteAuto(on bool) Code {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.r
	next.Auto = on
	return codeOf(m.save(next), Changed)
}

func codeOf(err error, good Code) Code {
	if err != nil {
		return InternalError
	}
	return good
}

// WriteURI writes /5/0/1. An empty URI resets the machine; any other begins a
// pull, whose name must pin the manifest.
func (m *Machine) WriteURI(uri string) Code {
	defer m.run()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.r.State == Updating:
		return MethodNotAllowed
	case uri == "":
		return m.reset(Initial)
	case m.r.State != Idle || m.r.URI != "":
		return MethodNotAllowed
	}
	if bad := m.checkURI(uri); bad != Initial {
		return codeOf(m.to(Idle, bad), BadRequest)
	}
	next := m.r
	next.URI, next.Result = uri, Initial
	if err := m.save(next); err != nil {
		return InternalError
	}
	m.download()
	return Changed
}

func (m *Machine) checkURI(uri string) Result {
	u, err := url.Parse(uri)
	if err != nil || len(uri) > maxURI || u.Scheme == "" || u.Host == "" {
		return InvalidURI
	}
	if !slices.Contains(m.c.Schemes, u.Scheme) {
		return UnsupportedProtocol
	}
	if _, err := fragment.ParseName(path.Base(u.Path)); err != nil {
		return InvalidURI
	}
	return Initial
}

// reset lets go of everything.
func (m *Machine) reset(r Result) Code {
	if err := m.to(Idle, r); err != nil {
		return InternalError
	}
	m.push = nil
	m.after = append(m.after, m.c.Device.Abort)
	return Changed
}

// errState is an event that does not belong to the state the machine is in.
var errState = errors.New("object5: not in this state")

// Accepted reports that a pull's manifest has been verified and is for this
// device: Idle becomes Downloading. An error means that the download must not
// go on.
func (m *Machine) Accepted(s *fragment.Signed) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.r.URI == "" || m.r.State != Idle && m.r.State != Downloading {
		return errState
	}
	return m.accept(s)
}

func (m *Machine) accept(s *fragment.Signed) error {
	if err := m.policy().Check(s); err != nil {
		return err
	}
	next := m.r
	if next.State != Downloading {
		next.Changed = m.c.Device.Now()
	}
	next.State, next.Result, next.Sign1 = Downloading, Initial, s.Bytes()
	if err := m.save(next); err != nil {
		return err
	}
	m.signed = s
	return nil
}

// Fetched reports the end of a pull. nil means that every unit has been
// verified and flash read back. A download that was only suspended is not
// reported: it is resumed later, and never fails the update.
func (m *Machine) Fetched(err error) error {
	defer m.run()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.r.URI == "" || m.r.State != Idle && m.r.State != Downloading {
		return errState // cancelled or reset meanwhile
	}
	if err == nil && m.r.State == Downloading {
		return m.downloaded()
	}
	if err == nil {
		return errState
	}
	if m.reset(ResultOf(err)) != Changed {
		return errSave
	}
	return nil
}

var errSave = errors.New("object5: the record could not be saved")

// downloaded is reached by pull and push.
func (m *Machine) downloaded() error {
	m.push = nil
	if err := m.to(Downloaded, Initial); err != nil {
		return err
	}
	if m.r.Auto {
		m.update()
	}
	return nil
}

// Update executes /5/0/2.
func (m *Machine) Update() Code {
	defer m.run()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.r.State != Downloaded {
		return MethodNotAllowed
	}
	return m.update()
}

func (m *Machine) update() Code {
	if m.c.MayDefer != nil && m.c.MayDefer() {
		return codeOf(m.to(Downloaded, Deferred), Changed)
	}
	return m.install()
}

// Approve begins a deferred update.
func (m *Machine) Approve() Code {
	defer m.run()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.r.State != Downloaded || m.r.Result != Deferred {
		return MethodNotAllowed
	}
	return m.install()
}

func (m *Machine) install() Code {
	if err := m.to(Updating, Initial); err != nil {
		return InternalError
	}
	s := m.signed
	m.after = append(m.after, func() { m.c.Device.Install(s) })
	return Changed
}

// Installed reports the end of an update: nil after the new image has proven
// itself. Only then does the stored sequence rise.
func (m *Machine) Installed(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.r.State != Updating {
		return errState
	}
	next := m.r
	next.State, next.Result, next.Changed = Idle, UpdateFailed, m.c.Device.Now()
	next.URI, next.Sign1 = "", nil
	if err == nil {
		next.Result, next.Sequence = Success, m.signed.Manifest().Sequence
	}
	return m.save(next)
}

// Cancel executes /5/0/10.
func (m *Machine) Cancel() Code {
	defer m.run()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.r.State == Updating {
		return MethodNotAllowed
	}
	return m.reset(Cancelled)
}
