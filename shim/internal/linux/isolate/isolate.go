//go:build integration

// Package isolate runs tests that need root where they can do no harm: the
// test binary is started once more in namespaces of its own, or as another
// user. It knows nothing of what is tested.
package isolate

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	insideVariable = "ISOLATE_INSIDE"
	baseVariable   = "ISOLATE_BASE"
	roleVariable   = "ISOLATE_ROLE"
)

// Namespaces that most tests want: mounts and System V and POSIX IPC.
const Namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWIPC

// Run runs the calling test, a whole one, in new namespaces. There it reports
// true and the test goes on; outside it reports false when that run is over,
// and the test has nothing more to do.
func Run(t *testing.T, namespaces uintptr) bool {
	t.Helper()
	if os.Getenv(insideVariable) == t.Name() {
		// What is mounted from here on stays here.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		Mount(t, "tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777")
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=120s")
	// Removed from out here, where nothing is mounted on it.
	cmd.Env = append(os.Environ(), insideVariable+"="+t.Name(), baseVariable+"="+Dir(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: "+t.Name()) {
		t.Errorf("in namespaces of its own: %v\n%s", err, output)
	}
	t.Logf("%s", output)
	return false
}

// Roles are what the test binary can be other than a test.
type Roles map[string]func(args []string) error

// Main plays a role, or runs the tests, and returns the exit code; it is for
// TestMain.
func Main(m *testing.M, roles Roles) int {
	play, ok := roles[os.Getenv(roleVariable)]
	if !ok {
		return m.Run()
	}
	if err := play(os.Args[1:]); err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}

// Command is the test binary in a role. /proc/self/exe is found by another
// user as well, who cannot search the directory that it lies in.
func Command(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// As makes a command run as another user, with no capability.
func As(cmd *exec.Cmd, uid, gid uint32) *exec.Cmd {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	return cmd
}

// Tmpfs mounts a tmpfs at a new directory, within the test's own namespace.
func Tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := Dir(t)
	Mount(t, "tmpfs", dir, "tmpfs", 0, options)
	return dir
}

// Dir is a new directory that every user may search, and not on tmpfs.
func Dir(t *testing.T) string {
	t.Helper()
	base := "/var/lib"
	if inside := os.Getenv(baseVariable); inside != "" {
		base = inside
	}
	dir, err := os.MkdirTemp(base, "secret-init-test-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Mount mounts, and detaches when the test is over.
func Mount(t *testing.T, source, target, fstype string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		t.Fatalf("mount %s: %v", target, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
}
