package sources

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	// The directory above is closed to others.
	for _, open := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(open, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	locked := filepath.Join(dir, "locked")
	if err := os.WriteFile(locked, nil, 0o000); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path  string
		class Class
		what  string
	}{
		{filepath.Join(dir, "absent"), NotFound, "does not exist"},
		{"absent", NotFound, "does not exist"},
		{locked, Denied, "cannot be read: permission denied"},
		{filepath.Join(locked, "below"), Invalid, "cannot be read: not a directory"},
		{dir, Invalid, "is not a regular file"},
		{"/dev/zero", Invalid, "is not a regular file"},
	}
	for _, test := range tests {
		if err := readUnprivileged(t, test.path); ClassOf(err) != test.class || err.Error() != test.what {
			t.Errorf("%s: class %v, %v", test.path, ClassOf(err), err)
		}
	}
	if hint := HintOf(readUnprivileged(t, "absent")); !strings.Contains(hint, "working directory") {
		t.Errorf("hint %q", hint)
	}
}

// readUnprivileged reads with the file access of nobody, also where root runs
// the tests: a thread of its own gives up root's (setfsuid(2)), and ends.
func readUnprivileged(t *testing.T, path string) error {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		}
		_, err := ReadFile(path)
		result <- err
	}()
	return <-result
}
