package servers

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Postgres is a real PostgreSQL server with the superuser "postgres".
type Postgres struct {
	// Port is on 127.0.0.1.
	Port, Password string
}

// StartPostgres starts the server of Debian's package postgresql, or of
// another that is on PATH, until the test ends.
func StartPostgres(tb testing.TB) *Postgres {
	tb.Helper()
	// Debian keeps the server's own commands off PATH.
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	initdb := Tool(tb, append(found, "initdb")...)
	p := &Postgres{Port: FreePort(tb), Password: "superuser"}
	// Not TempDir, which only its owner can enter, and not below a long
	// path, which a unix socket cannot have.
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, password := filepath.Join(dir, "data"), filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(p.Password), 0o644); err != nil {
		tb.Fatal(err)
	}
	as := unprivileged(tb, dir)
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(filepath.Dir(initdb), name), args...)
		cmd.Dir, cmd.SysProcAttr = dir, as
		return cmd
	}
	if output, err := run("initdb", "--no-sync", "-U", "postgres", "-A", "scram-sha-256", "--pwfile", password, "-D", data).CombinedOutput(); err != nil {
		tb.Fatalf("initdb: %v\n%s", err, output)
	}
	Start(tb, run("postgres", "-D", data, "-p", p.Port, "-k", dir, "-F", "-c", "listen_addresses=127.0.0.1"))
	WaitFor(tb, "postgres", func(ctx context.Context) bool {
		return exec.CommandContext(ctx, Tool(tb, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", p.Port).Run() == nil
	})
	return p
}

// Login runs one statement as a user, over TCP, and returns what it prints.
func (p *Postgres) Login(name, password, statement string) (string, error) {
	cmd := exec.Command("psql", "-h", "127.0.0.1", "-p", p.Port, "-U", name, "-d", "postgres", "-Atc", statement)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password)
	output, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(output)), err
}

// unprivileged is how to run as somebody else: the server refuses to run as
// root. It gives dir to them.
func unprivileged(tb testing.TB, dir string) *syscall.SysProcAttr {
	tb.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.Atoi(account.Uid)
		gid, _ := strconv.Atoi(account.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			tb.Fatal(err)
		}
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	tb.Fatal("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
	return nil
}
