package servers

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// AgeKey is a fresh age identity, made by age-keygen.
type AgeKey struct {
	// Identity is the secret line, AGE-SECRET-KEY-1...
	Identity string
	// Recipient is the public one, age1...
	Recipient string
}

// NewAgeKey makes an age key.
func NewAgeKey(tb testing.TB) AgeKey {
	tb.Helper()
	output, err := exec.Command(Tool(tb, "age-keygen")).Output()
	if err != nil {
		tb.Fatalf("age-keygen: %v", err)
	}
	var key AgeKey
	for line := range strings.Lines(string(output)) {
		line = strings.TrimSpace(line)
		if recipient, ok := strings.CutPrefix(line, "# public key: "); ok {
			key.Recipient = recipient
		} else if strings.HasPrefix(line, "AGE-SECRET-KEY-") {
			key.Identity = line
		}
	}
	if key.Identity == "" || key.Recipient == "" {
		tb.Fatal("age-keygen printed no key")
	}
	return key
}

// Sops is one way to run the sops command.
type Sops struct {
	// Command is the program; empty for the one that make tools installs.
	Command string
	// Env is added to an environment that holds HOME and PATH alone.
	Env []string
	// Encrypt are the options that name the keys: --age age1...
	Encrypt []string
}

// Sops encrypts and decrypts with one age key.
func (k AgeKey) Sops() Sops {
	return Sops{Env: []string{"SOPS_AGE_KEY=" + k.Identity}, Encrypt: []string{"--age", k.Recipient}}
}

// EncryptFile writes plain, encrypted by the sops command, to path. format is
// yaml, json, dotenv, ini or binary.
func (s Sops) EncryptFile(tb testing.TB, path, format string, plain []byte) {
	tb.Helper()
	input := filepath.Join(tb.TempDir(), "plain")
	if err := os.WriteFile(input, plain, 0o600); err != nil {
		tb.Fatal(err)
	}
	args := append([]string{"--encrypt", "--input-type", format, "--output-type", format}, s.Encrypt...)
	encrypted, problem := s.run(tb, append(args, input)...)
	if problem != "" {
		tb.Fatalf("sops --encrypt as %s: %s", format, problem)
	}
	if err := os.WriteFile(path, encrypted, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// Decrypt is what `sops --decrypt` prints of the file at path.
func (s Sops) Decrypt(tb testing.TB, path, format string) []byte {
	tb.Helper()
	plain, problem := s.run(tb, "--decrypt", "--input-type", format, "--output-type", format, path)
	if problem != "" {
		tb.Fatalf("sops --decrypt as %s: %s", format, problem)
	}
	return plain
}

func (s Sops) run(tb testing.TB, args ...string) (stdout []byte, problem string) {
	tb.Helper()
	command := s.Command
	if command == "" {
		command = Tool(tb, "sops")
	}
	var out, stderr bytes.Buffer
	cmd := exec.Command(command, args...)
	cmd.Env = append([]string{"HOME=" + tb.TempDir(), "PATH=" + os.Getenv("PATH")}, s.Env...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, err.Error() + ": " + stderr.String()
	}
	return out.Bytes(), ""
}
