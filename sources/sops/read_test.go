//go:build !no_sops

package sops

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"secret-init/sources"
)

func TestCheck(t *testing.T) {
	registry := sources.NewRegistry(Backend)
	for spelled, want := range map[string]string{
		"sops:/etc/app/../app/secrets.enc.yaml#/db/password": "sops:/etc/app/secrets.enc.yaml#/db/password",
		"sops:./secrets.yaml":                                "sops:secrets.yaml",
		"sops:secrets?format=dotenv#A":                       "sops:secrets?format=dotenv#A",
	} {
		ref, err := registry.Parse(spelled)
		if err != nil || ref.String() != want {
			t.Errorf("%s: got %s, %v; want %s", spelled, ref, err, want)
		}
	}
	_, err := registry.Parse("sops:secrets?format=toml")
	if err == nil || err.Error() != `sops:secrets?format=toml: unknown format "toml"` || sources.HintOf(err) != "formats: yaml, json, dotenv, ini, binary" {
		t.Errorf("%v, hint %q", err, sources.HintOf(err))
	}
}

func TestFormatOf(t *testing.T) {
	for path, want := range map[string]string{
		"a.yaml": "yaml", "a.yml": "yaml", "a.enc.yaml": "yaml", "a.sops.json": "json", "a.json": "json", ".env": "dotenv",
		"prod.env": "dotenv", "a.ini": "ini", "a": "binary", "a.yaml.enc": "binary", "a.YAML": "binary", "dir.yaml/a": "binary",
	} {
		if got := formatOf(sources.Ref{Path: path}); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	if got := formatOf(sources.Ref{Path: "a.yaml", Params: map[string]string{"format": "json"}}); got != "json" {
		t.Errorf("?format= does not win: %s", got)
	}
}

func TestReadFileErrors(t *testing.T) {
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
		class sources.Class
		what  string
	}{
		{filepath.Join(dir, "absent"), sources.NotFound, "does not exist"},
		{"absent", sources.NotFound, "does not exist"},
		{locked, sources.Denied, "cannot be read: permission denied"},
		{filepath.Join(locked, "below"), sources.Invalid, "cannot be read: not a directory"},
		{dir, sources.Invalid, "is not a regular file"},
		{"/dev/zero", sources.Invalid, "is not a regular file"},
	}
	for _, test := range tests {
		if err := readUnprivileged(t, test.path); sources.ClassOf(err) != test.class || err.Error() != test.what {
			t.Errorf("%s: class %v, %v", test.path, sources.ClassOf(err), err)
		}
	}
	if hint := sources.HintOf(readUnprivileged(t, "absent")); !strings.Contains(hint, "working directory") {
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
		_, err := readFile(path)
		result <- err
	}()
	return <-result
}
