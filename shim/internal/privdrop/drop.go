package privdrop

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// Drop is a change of identity.
type Drop struct {
	To Identity
	// Keep are capabilities that the command gets as ambient ones.
	Keep []capability.Cap
	// AllowNewPrivs leaves no_new_privs unset, for commands that are setuid.
	AllowNewPrivs bool
}

// ParseCapabilities reads names as Docker spells them, with or without CAP_.
func ParseCapabilities(names []string) ([]capability.Cap, error) {
	var caps []capability.Cap
	for _, name := range names {
		plain := strings.TrimPrefix(strings.ToLower(strings.TrimSpace(name)), "cap_")
		i := slices.IndexFunc(capability.ListKnown(), func(c capability.Cap) bool { return c.String() == plain })
		if i < 0 {
			return nil, fmt.Errorf("unknown capability %q", name)
		}
		caps = append(caps, capability.ListKnown()[i])
	}
	return caps, nil
}

// Check tells before any work is done whether Apply can succeed, and which
// capability is missing when it cannot.
func (d Drop) Check() error {
	held, err := effective()
	if err != nil {
		return err
	}
	now := Current()
	if d.To.UID == 0 && len(d.Keep) > 0 {
		return errors.New("capabilities are kept for a user other than root: root has all that the container has")
	}
	if now.UID != 0 && now.UID != d.To.UID && !held(capability.CAP_SETUID) {
		return &MissingCapabilityError{User: d.To.String(), Missing: []string{"SETUID"}, Now: now.UID}
	}
	var missing []string
	if d.changesUID(now) && !held(capability.CAP_SETUID) {
		missing = append(missing, "SETUID")
	}
	if d.changesGroups(now) && !held(capability.CAP_SETGID) {
		missing = append(missing, "SETGID")
	}
	for _, c := range d.Keep {
		if !held(c) {
			missing = append(missing, strings.ToUpper(c.String()))
		}
	}
	if len(missing) > 0 {
		return &MissingCapabilityError{User: d.To.String(), Missing: missing}
	}
	return nil
}

// MissingCapabilityError names the capabilities that the container lacks.
type MissingCapabilityError struct {
	User    string
	Missing []string
	// Now is the uid of a start that is not root's, and asks for another.
	Now int
}

func (e *MissingCapabilityError) Error() string {
	if e.Now != 0 {
		return fmt.Sprintf("cannot become user %s: the container already runs as uid %d and may not change that", e.User, e.Now)
	}
	return fmt.Sprintf("cannot become user %s: the container lacks the capability %s", e.User, strings.Join(e.Missing, " and "))
}

func (d Drop) changesUID(now Identity) bool { return d.To.UID != now.UID }

func (d Drop) changesGroups(now Identity) bool {
	current := slices.Clone(now.Groups)
	slices.Sort(current)
	return d.To.GID != now.GID || !slices.Equal(slices.Compact(current), d.To.Groups)
}

// Apply changes the calling thread, which it locks for good: the caller
// executes the command from the same goroutine. The order is the only safe
// one: what needs a privilege comes before the step that gives it up
// (capabilities(7); CVE-2022-2990 is what forgotten groups lead to). When
// anything is not as asked afterwards, it fails and nothing may be executed.
//
//  1. no_new_privs, which needs nothing
//  2. the bounding set, which needs CAP_SETPCAP
//  3. keepcaps, so that the change of uid leaves the permitted set
//  4. supplementary groups and gid, which need CAP_SETGID
//  5. uid, which needs CAP_SETUID
//  6. the capability sets, then the ambient one
//  7. read everything back
//
// boundingKept reports that CAP_SETPCAP was missing, so that step 2 was not done.
func (d Drop) Apply() (boundingKept bool, err error) {
	runtime.LockOSThread()
	now := Current()
	if !d.AllowNewPrivs {
		if err := linux.Prctl("prctl(PR_SET_NO_NEW_PRIVS)", unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
			return false, err
		}
	}
	caps, err := capability.NewPid2(0)
	if err != nil {
		return false, err
	}
	if err := caps.Load(); err != nil {
		return false, err
	}
	root := d.To.UID == 0
	boundingKept = !root && !caps.Get(capability.EFFECTIVE, capability.CAP_SETPCAP)
	if !root && !boundingKept {
		caps.Clear(capability.BOUNDING)
		caps.Set(capability.BOUNDING, d.Keep...)
		if err := caps.Apply(capability.BOUNDING); err != nil {
			return boundingKept, fmt.Errorf("dropping the bounding set: %w", err)
		}
	}
	if err := linux.Prctl("prctl(PR_SET_KEEPCAPS)", unix.PR_SET_KEEPCAPS, 1, 0); err != nil {
		return boundingKept, err
	}
	if d.changesGroups(now) {
		if err := linux.SetGroups(d.To.Groups); err != nil {
			return boundingKept, err
		}
	}
	// Even when they are the same: the saved ids may not be.
	if err := linux.SetGID(d.To.GID); err != nil {
		return boundingKept, err
	}
	if err := linux.SetUID(d.To.UID); err != nil {
		return boundingKept, err
	}
	// The change of uid set it to fs.suid_dumpable, and the values are still here.
	if err := linux.NotDumpable(); err != nil {
		return boundingKept, err
	}
	if !root {
		caps.Clear(capability.CAPS)
		caps.Set(capability.PERMITTED|capability.EFFECTIVE|capability.INHERITABLE, d.Keep...)
		if err := caps.Apply(capability.CAPS); err != nil {
			return boundingKept, fmt.Errorf("dropping capabilities: %w", err)
		}
		if err := capability.ResetAmbient(); err != nil {
			return boundingKept, fmt.Errorf("clearing ambient capabilities: %w", err)
		}
		if err := capability.SetAmbient(true, d.Keep...); err != nil {
			return boundingKept, fmt.Errorf("raising ambient capabilities: %w", err)
		}
	}
	if err := linux.Prctl("prctl(PR_SET_KEEPCAPS)", unix.PR_SET_KEEPCAPS, 0, 0); err != nil {
		return boundingKept, err
	}
	return boundingKept, d.verify(boundingKept)
}

// verify reads the thread's own status (proc_pid_status(5)), and tries to be
// root again.
func (d Drop) verify(boundingKept bool) error {
	status, err := readStatus()
	if err != nil {
		return err
	}
	if err := d.compare(status, boundingKept); err != nil {
		return err
	}
	return d.regain()
}

func (d Drop) compare(status map[string]string, boundingKept bool) error {
	want := map[string]string{
		"Uid":    strings.Repeat(strconv.Itoa(d.To.UID)+" ", 4),
		"Gid":    strings.Repeat(strconv.Itoa(d.To.GID)+" ", 4),
		"Groups": strings.Trim(fmt.Sprint(d.To.Groups), "[]"),
	}
	if d.To.UID != 0 {
		kept := uint64(0)
		for _, c := range d.Keep {
			kept |= 1 << c
		}
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"} {
			want[set] = fmt.Sprintf("%016x", kept)
		}
		if boundingKept {
			delete(want, "CapBnd")
		}
	}
	if !d.AllowNewPrivs {
		want["NoNewPrivs"] = "1"
	}
	for field, value := range want {
		if value = strings.TrimSpace(value); status[field] != value {
			return fmt.Errorf("%s is %q after the drop, not %q", field, status[field], value)
		}
	}
	return nil
}

func (d Drop) regain() error {
	if d.To.UID != 0 && !slices.Contains(d.Keep, capability.CAP_SETUID) && linux.SetUID(0) == nil {
		return fmt.Errorf("root could be regained after the drop to %s", d.To)
	}
	return nil
}

// readStatus reads /proc/thread-self/status, with blanks folded.
func readStatus() (map[string]string, error) {
	content, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return nil, fmt.Errorf("cannot read the privileges back: %w", err)
	}
	status := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(content)); lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ":")
		status[field] = strings.Join(strings.Fields(value), " ")
	}
	return status, nil
}

// effective tells which capabilities are in the effective set.
func effective() (func(capability.Cap) bool, error) {
	caps, err := capability.NewPid2(0)
	if err == nil {
		err = caps.Load()
	}
	if err != nil {
		return nil, fmt.Errorf("reading the capabilities: %w", err)
	}
	return func(c capability.Cap) bool { return caps.Get(capability.EFFECTIVE, c) }, nil
}

// CanChown reports whether files can be given to other users.
func CanChown() bool {
	held, err := effective()
	return err == nil && held(capability.CAP_CHOWN)
}

// CanSignal reports whether a process that stays as it is can send signals to
// one that has changed (kill(2)).
func (d Drop) CanSignal() bool {
	held, err := effective()
	return err == nil && (held(capability.CAP_KILL) || d.To.UID == os.Getuid() || d.To.UID == os.Geteuid())
}

// ErrSetuid is the refusal of a start with more rights than the caller's.
var ErrSetuid = errors.New("secret-init refuses to run setuid or setgid")

// Guard refuses a setuid start, and hides what the process will hold.
func Guard() error {
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return ErrSetuid
	}
	return linux.NotDumpable()
}
