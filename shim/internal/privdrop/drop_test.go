//go:build integration

package privdrop

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/linux/isolate"
)

func TestMain(m *testing.M) {
	os.Exit(isolate.Main(m, isolate.Roles{"drop": playDrop, "failed exec": playFailedExec, "status": playStatus}))
}

// playDrop is a start: args are the passwd and group files, the user, the
// capabilities to keep, those that the container lacks, and a flag.
func playDrop(args []string) error {
	runtime.LockOSThread()
	lacking, err := ParseCapabilities(strings.Fields(args[4]))
	if err != nil {
		return err
	}
	if err := lose(lacking); err != nil {
		return err
	}
	d, err := dropOf(args)
	if err != nil {
		return err
	}
	if err := linux.NotDumpable(); err != nil {
		return err
	}
	if err := d.Check(); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	kept, err := d.Apply()
	if err != nil {
		return err
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	fmt.Printf("BoundingKept: %v\nDumpable: %d\n", kept, dumpable)
	if err := os.Setenv("ISOLATE_ROLE", "status"); err != nil {
		return err
	}
	return linux.Exec("/proc/self/exe", os.Args, os.Environ())
}

func dropOf(args []string) (Drop, error) {
	id, err := (Database{Passwd: args[0], Group: args[1]}).Lookup(args[2])
	if err != nil {
		return Drop{}, err
	}
	keep, err := ParseCapabilities(strings.Fields(args[3]))
	return Drop{To: id, Keep: keep, AllowNewPrivs: args[5] == "allow"}, err
}

// lose is a container that was started without these capabilities.
func lose(lacking []capability.Cap) error {
	caps, err := capability.NewPid2(0)
	if err != nil {
		return err
	}
	if err := caps.Load(); err != nil {
		return err
	}
	caps.Unset(capability.BOUNDING|capability.CAPS, lacking...)
	return errors.Join(caps.Apply(capability.BOUNDING), caps.Apply(capability.CAPS))
}

// playStatus is the command: it tells what it sees of itself.
func playStatus([]string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	fmt.Printf("%sRegain: %v\n", status, linux.SetUID(0))
	return nil
}

// playFailedExec tells what another thread is left with.
func playFailedExec(args []string) error {
	runtime.LockOSThread()
	d, err := dropOf(args)
	if err != nil {
		return err
	}
	result := make(chan error)
	go func() {
		if _, err := d.Apply(); err != nil {
			result <- err
			return
		}
		if err := stays(); err != nil {
			result <- err
			return
		}
		err := linux.Exec("/nonexistent", nil, nil)
		if !errors.Is(err, unix.ENOENT) {
			err = fmt.Errorf("the exec: %w", err)
		} else {
			err = nil
		}
		result <- err
	}()
	if err := <-result; err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/thread-self/status")
	fmt.Printf("%s", status)
	return err
}

// stays makes sure that the goroutine keeps its thread, though others want it.
func stays() error {
	thread := unix.Gettid()
	for range 2 * runtime.GOMAXPROCS(0) {
		go func() {
			for {
				runtime.Gosched()
			}
		}()
	}
	for range 20 {
		// In a system call that takes long a goroutine loses its place.
		if err := unix.Nanosleep(&unix.Timespec{Nsec: int64(2 * time.Millisecond)}, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if unix.Gettid() != thread {
			return errors.New("the goroutine is on another thread")
		}
	}
	return nil
}

// run starts a role, and reads the fields that it prints.
func run(t *testing.T, cmd *exec.Cmd) (fields map[string]string, failure string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// Groups and capabilities that must not survive.
	if cmd.SysProcAttr.Credential == nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Groups: []uint32{0, 4, 27}}
	}
	if err := cmd.Run(); err != nil {
		return nil, stderr.String()
	}
	fields = map[string]string{}
	for lines := bufio.NewScanner(&stdout); lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ":")
		fields[field] = strings.Join(strings.Fields(value), " ")
	}
	return fields, ""
}

func mask(caps ...capability.Cap) string {
	set := uint64(0)
	for _, c := range caps {
		set |= 1 << c
	}
	return fmt.Sprintf("%016x", set)
}

// What the command sees of itself after the drop.
func TestDrop(t *testing.T) {
	// Under this setting a change of uid leaves a process dumpable, if for root.
	const setting = "/proc/sys/fs/suid_dumpable"
	before, err := os.ReadFile(setting)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(setting, before, 0o644) })
	if err := os.WriteFile(setting, []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	db := database(t, "app:x:1000:1001::/srv:/bin/sh\nroot:x:0:0::/root:/bin/sh\n", "db:x:70:app\n")
	own, err := readStatus()
	if err != nil {
		t.Fatal(err)
	}
	var all uint64
	if _, err := fmt.Sscanf(own["CapBnd"], "%x", &all); err != nil {
		t.Fatal(err)
	}
	without := func(c capability.Cap) string { return fmt.Sprintf("%016x", all&^(1<<c)) }
	none, bind := mask(), mask(capability.CAP_NET_BIND_SERVICE)
	for _, test := range []struct {
		name, user, keep, lacking, flag string
		uid, gid, groups                string
		caps, bounding, noNewPrivs      string
	}{
		{name: "name", user: "app", uid: "1000", gid: "1001", groups: "70 1001", caps: none, bounding: none, noNewPrivs: "1"},
		{name: "numbers", user: "1234:5678", uid: "1234", gid: "5678", groups: "5678", caps: none, bounding: none, noNewPrivs: "1"},
		{name: "numbers, root's group", user: "1234:0", uid: "1234", gid: "0", groups: "0", caps: none, bounding: none, noNewPrivs: "1"},
		{name: "keep-cap", user: "app", keep: "net_bind_service", uid: "1000", gid: "1001", groups: "70 1001", caps: bind, bounding: bind, noNewPrivs: "1"},
		{name: "allow-new-privs", user: "app", flag: "allow", uid: "1000", gid: "1001", groups: "70 1001", caps: none, bounding: none, noNewPrivs: "0"},
		{name: "no SETPCAP", user: "app", lacking: "setpcap", uid: "1000", gid: "1001", groups: "70 1001", caps: none, bounding: without(capability.CAP_SETPCAP), noNewPrivs: "1"},
		{name: "no SETPCAP, keep-cap", user: "app", keep: "net_bind_service", lacking: "setpcap", uid: "1000", gid: "1001", groups: "70 1001", caps: bind, bounding: without(capability.CAP_SETPCAP), noNewPrivs: "1"},
		{name: "root", user: "root", uid: "0", gid: "0", groups: "0", caps: fmt.Sprintf("%016x", all), bounding: fmt.Sprintf("%016x", all), noNewPrivs: "1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, failure := run(t, isolate.Command("drop", db.Passwd, db.Group, test.user, test.keep, test.lacking, test.flag))
			if failure != "" {
				t.Fatal(failure)
			}
			four := func(id string) string { return strings.TrimSpace(strings.Repeat(id+" ", 4)) }
			ambient := test.caps
			if test.uid == "0" {
				ambient = none
			}
			for field, want := range map[string]string{
				"Uid": four(test.uid), "Gid": four(test.gid), "Groups": test.groups,
				"CapInh": ambient, "CapPrm": test.caps, "CapEff": test.caps, "CapAmb": ambient, "CapBnd": test.bounding,
				"NoNewPrivs": test.noNewPrivs, "Dumpable": "0",
				"BoundingKept": fmt.Sprint(strings.Contains(test.lacking, "setpcap")),
			} {
				if got[field] != want {
					t.Errorf("%s is %q, not %q", field, got[field], want)
				}
			}
			if regained := got["Regain"]; test.uid != "0" && !strings.Contains(regained, "operation not permitted") {
				t.Errorf("becoming root again: %s", regained)
			}
		})
	}
}

func TestDropRefused(t *testing.T) {
	db := database(t, "app:x:1000:1001::/srv:/bin/sh\n", "")
	for _, test := range []struct {
		name, user, keep, lacking string
		as                        uint32
		want                      string
	}{
		{"no SETUID", "app", "", "setuid", 0, "check: cannot become user 1000:1001: the container lacks the capability SETUID"},
		{"no SETGID", "app", "", "setgid", 0, "check: cannot become user 1000:1001: the container lacks the capability SETGID"},
		{"neither", "app", "", "setuid setgid", 0, "the capability SETUID and SETGID"},
		{"nothing to keep", "app", "net_bind_service", "net_bind_service", 0, "the capability NET_BIND_SERVICE"},
		{"already another", "app", "", "", 2000, "check: cannot become user 1000:1001: the container already runs as uid 2000"},
		{"root again", "0:0", "", "", 2000, "the container already runs as uid 2000"},
		{"kept for root", "0:0", "net_bind_service", "", 0, "kept for a user other than root"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := isolate.Command("drop", db.Passwd, db.Group, test.user, test.keep, test.lacking, "")
			if test.as != 0 {
				isolate.As(cmd, test.as, test.as)
				if err := errors.Join(os.Chmod(db.Passwd, 0o644), os.Chmod(db.Group, 0o644)); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
				cmd.Args[1], cmd.Args[2] = share(t, db.Passwd), "/nonexistent"
			}
			if _, failure := run(t, cmd); !strings.Contains(failure, test.want) {
				t.Errorf("%q", failure)
			}
		})
	}
}

// share is a copy that every user can open.
func share(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	shared := isolate.Dir(t) + "/passwd"
	if err := os.WriteFile(shared, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return shared
}

// Already who it should be, without a capability: that is no change.
func TestDropToSelf(t *testing.T) {
	db := database(t, "app:x:1000:1001::/srv:/bin/sh\n", "")
	cmd := isolate.As(isolate.Command("drop", share(t, db.Passwd), "/nonexistent", "app", "", "", ""), 1000, 1001)
	cmd.SysProcAttr.Credential.Groups = []uint32{1001}
	got, failure := run(t, cmd)
	if failure != "" || got["Uid"] != "1000 1000 1000 1000" || got["Groups"] != "1001" || got["CapPrm"] != mask() {
		t.Errorf("%v %s", got, failure)
	}
}

// The clean-up after an exec that failed needs what the files were written with.
func TestOtherThreadsKeepPrivileges(t *testing.T) {
	db := database(t, "app:x:1000:1001::/srv:/bin/sh\n", "")
	own, err := readStatus()
	if err != nil {
		t.Fatal(err)
	}
	got, failure := run(t, isolate.Command("failed exec", db.Passwd, db.Group, "app", "", "", ""))
	if failure != "" {
		t.Fatal(failure)
	}
	for field, want := range map[string]string{"Uid": "0 0 0 0", "Groups": "0 4 27", "CapEff": own["CapEff"], "NoNewPrivs": own["NoNewPrivs"]} {
		if got[field] != want {
			t.Errorf("%s is %q, not %q", field, got[field], want)
		}
	}
}

// verify finds whatever is not as asked: here each thing that it looks at.
func TestVerify(t *testing.T) {
	d := Drop{To: Identity{UID: 1000, GID: 1001, Groups: []int{1001}}}
	good := map[string]string{
		"Uid": "1000 1000 1000 1000", "Gid": "1001 1001 1001 1001", "Groups": "1001", "NoNewPrivs": "1",
		"CapInh": mask(), "CapPrm": mask(), "CapEff": mask(), "CapAmb": mask(), "CapBnd": mask(),
	}
	if err := d.compare(good, false); err != nil {
		t.Error(err)
	}
	for field, bad := range map[string]string{
		"Uid": "1000 1000 0 1000", "Gid": "1001 1001 0 1001", "Groups": "0 1001", "NoNewPrivs": "0",
		"CapInh": mask(0), "CapPrm": mask(1), "CapEff": mask(2), "CapAmb": mask(3), "CapBnd": mask(4),
	} {
		status := map[string]string{}
		for f, value := range good {
			status[f] = value
		}
		status[field] = bad
		if err := d.compare(status, false); err == nil || !strings.HasPrefix(err.Error(), field+" is") {
			t.Errorf("%s: %v", field, err)
		}
		delete(status, field)
		if err := d.compare(status, false); err == nil {
			t.Errorf("%s missing is not seen", field)
		}
	}
	// This process could regain root.
	if err := d.regain(); err == nil {
		t.Error("regaining root was not noticed")
	}
}
