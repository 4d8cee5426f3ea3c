package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"secret-init/shim/internal/privdrop"
)

// A credential file is warned of when the one who will run the command can
// read it, and only then.
func TestWarnOfCredentialFiles(t *testing.T) {
	// Not t.TempDir(), whose directories only we may enter.
	dir, err := os.MkdirTemp("/dev/shm", "secret-init-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	token, key := filepath.Join(dir, "token"), filepath.Join(dir, "key")
	for path, mode := range map[string]os.FileMode{token: 0o400, key: 0o444} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	environ := []string{"A=vault:secret/db#a", "VAULT_TOKEN_FILE=" + token, "VAULT_CLIENT_KEY=" + key, "SOPS_AGE_KEY_FILE=" + key, "VAULT_JWT_FILE=/nonexistent"}
	const nobody = 65534
	other := privdrop.Identity{UID: nobody, GID: nobody}
	for _, test := range []struct {
		name   string
		change func(*startup)
		want   []string
	}{
		{"as we are", func(*startup) {}, []string{"VAULT_CLIENT_KEY", "VAULT_TOKEN_FILE"}},
		{"--user", func(s *startup) { s.drop = &privdrop.Drop{To: other} }, []string{"VAULT_CLIENT_KEY"}},
		{"--owner", func(s *startup) { s.plan.Owner, s.owner = "nobody", other }, []string{"VAULT_CLIENT_KEY"}},
	} {
		log, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := newOfflineStartup(nil, environ, newUI(log, log, nil))
		if err != nil {
			t.Fatal(err)
		}
		test.change(s)
		if err := s.warnOfCredentialFiles(t.Context()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(log.Name())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "secret-init: warning: "); ok {
				name, _, _ := strings.Cut(rest, ":")
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != strings.Join(test.want, " ") {
			t.Errorf("%s: %v, want %v:\n%s", test.name, got, test.want, text)
		}
	}
}
