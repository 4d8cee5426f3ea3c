//go:build integration && !no_sops

package sops_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"secret-init/sources"
	"secret-init/sources/sops"
	"secret-init/sources/sourcetest"
	"secret-init/tools/servers"
)

// gpgHome is a throw-away home of the real gpg with one key.
type gpgHome struct{ dir, fingerprint, passphrase string }

func newGPGHome(t *testing.T, passphrase string) gpgHome {
	t.Helper()
	// t.TempDir would make the path of the agent's socket too long.
	dir, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	home := gpgHome{dir: dir, passphrase: passphrase}
	t.Cleanup(func() {
		home.killAgent()
		_ = os.RemoveAll(dir)
	})
	home.run(t, "--quick-generate-key", "app@example.org", "future-default", "default", "never")
	for line := range strings.Lines(string(home.run(t, "--list-keys", "--with-colons"))) {
		if fields := strings.Split(line, ":"); fields[0] == "fpr" && home.fingerprint == "" {
			home.fingerprint = fields[9]
		}
	}
	return home
}

func (h gpgHome) run(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(servers.Tool(t, "gpg"), append([]string{"--homedir", h.dir, "--batch", "--pinentry-mode", "loopback", "--passphrase", h.passphrase}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("gpg %s: %v: %s", args, err, stderr.String())
	}
	return output
}

func (h gpgHome) sops() servers.Sops {
	return servers.Sops{Env: []string{"GNUPGHOME=" + h.dir}, Encrypt: []string{"--pgp", h.fingerprint}}
}

func (h gpgHome) agentRuns() bool {
	conn, err := net.Dial("unix", filepath.Join(h.dir, "S.gpg-agent"))
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

func (h gpgHome) killAgent() {
	_ = exec.Command("gpgconf", "--homedir", h.dir, "--kill", "gpg-agent").Run()
}

// secring is a home with the secret key in the old format, which the Go
// implementation reads.
func (h gpgHome) secring(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secring.gpg"), string(h.run(t, "--export-secret-keys")))
	return dir
}

func TestGPG(t *testing.T) {
	home := newGPGHome(t, "")
	path := put(t, home.sops(), "a.yaml", "yaml", []byte(secretYAML))
	home.killAgent()
	servers.WaitFor(t, "the end of the agent", func(context.Context) bool { return !home.agentRuns() })
	for name, value := range with(noKeys(t), map[string]string{"GNUPGHOME": home.dir}) {
		t.Setenv(name, value)
	}
	decrypt := func() {
		t.Helper()
		source, err := sops.Backend.Open(sources.Settings{Getenv: os.Getenv})
		if err != nil {
			t.Fatal(err)
		}
		document, err := source.Fetch(t.Context(), sources.Ref{Scheme: "sops", Path: path})
		if err != nil || string(document.Bytes) != secretYAML {
			t.Fatalf("%v, hint %s", err, sources.HintOf(err))
		}
		if !home.agentRuns() {
			t.Error("gpg did its work without an agent: this test proves nothing")
		}
		if err := source.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	decrypt()
	if home.agentRuns() {
		t.Error("the gpg-agent that was started to decrypt is left running")
	}
	if err := exec.Command("gpg-connect-agent", "--homedir", home.dir, "/bye").Run(); err != nil {
		t.Fatal(err)
	}
	decrypt()
	if !home.agentRuns() {
		t.Error("a gpg-agent that was there before was ended")
	}
	wantRefused(t, "no PGP key", noKeys(t), path, sources.Denied)
}

func TestPGPWithoutGPG(t *testing.T) {
	home := newGPGHome(t, "")
	path := put(t, home.sops(), "a.yaml", "yaml", []byte(secretYAML))
	wantCanary(t, with(noKeys(t), map[string]string{"GNUPGHOME": home.secring(t), "SOPS_GPG_EXEC": "/absent"}), path)
}

// TestPGPAsksForNoPassphrase: the library would, on stdout.
func TestPGPAsksForNoPassphrase(t *testing.T) {
	home := newGPGHome(t, sourcetest.Canary)
	path := put(t, home.sops(), "a.yaml", "yaml", []byte(secretYAML))
	// With this variable the library takes it that there is no agent to ask.
	env := with(noKeys(t), map[string]string{"GNUPGHOME": home.secring(t), "SOPS_GPG_EXEC": "/absent", "GPG_AGENT_INFO": ""})
	printed := capture(t, func() {
		wantRefused(t, "a locked PGP key, and no gpg", env, path, sources.Denied)
	})
	if printed != "" {
		t.Errorf("printed %q", printed)
	}
}
