// Package bench measures what secret-init costs: the time of a whole start,
// over that of the command alone, and the memory and size that go with it.
package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"secret-init/tools/servers"
)

// command does next to nothing, so that what is measured is what comes before it.
const command = "/bin/true"

func binary(b *testing.B) string {
	b.Helper()
	path := filepath.Join(servers.Root(), "bin", "secret-init")
	if _, err := os.Stat(path); err != nil {
		b.Fatalf("%v: run make build", err)
	}
	return path
}

// run times one start after the other; a failing one ends the benchmark.
func run(b *testing.B, env []string, name string, args ...string) {
	b.Helper()
	for b.Loop() {
		cmd := exec.Command(name, args...)
		cmd.Env = env
		if output, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, output)
		}
	}
}

// directory is on tmpfs, as --dir must be.
func directory(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "secret-init-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func BenchmarkCommandAlone(b *testing.B) { run(b, nil, command) }

func BenchmarkNoReferences(b *testing.B) { run(b, nil, binary(b), "--", command) }

func BenchmarkPlainFile(b *testing.B) {
	dir := b.TempDir()
	value := filepath.Join(dir, "value")
	if err := os.WriteFile(value, []byte("hunter2"), 0o600); err != nil {
		b.Fatal(err)
	}
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte("secrets:\n  db_password: file:"+value+"\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	run(b, nil, binary(b), "--config", config, "--dir", directory(b), "--", command)
}

func BenchmarkSOPS(b *testing.B) {
	key := servers.NewAgeKey(b)
	path := filepath.Join(b.TempDir(), "secrets.enc.yaml")
	key.Sops().EncryptFile(b, path, "yaml", []byte("db_password: hunter2\n"))
	run(b, []string{"SOPS_AGE_KEY=" + key.Identity, "DB_PASSWORD=sops:" + path + "#db_password"},
		binary(b), "--dir", directory(b), "--", command)
}
