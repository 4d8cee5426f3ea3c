//go:build integration

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
	"secret-init/tools/servers"
)

// leaseBed is Vault's database engine in front of a real database, and a role
// to log in to Vault with.
type leaseBed struct {
	vault    *servers.Vault
	postgres *servers.Postgres
	env      []string
}

func newLeaseBed(t *testing.T, lease, token map[string]any) leaseBed {
	t.Helper()
	b := leaseBed{vault: servers.StartVault(t), postgres: servers.StartPostgres(t)}
	b.vault.Enable("database", "database", nil)
	b.vault.Write("database/config/app", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "app", "username": "postgres", "password": b.postgres.Password,
		"connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:" + b.postgres.Port + "/postgres?sslmode=disable",
	})
	lease["db_name"] = "app"
	lease["creation_statements"] = `CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`
	b.vault.Write("database/roles/app", lease)
	b.vault.EnableAuth("approle", "approle")
	b.vault.Policy("app", `path "database/creds/app" { capabilities = ["read"] }`)
	token["token_policies"] = "app"
	b.vault.Write("auth/approle/role/app", token)
	role := b.vault.Read("auth/approle/role/app/role-id")["data"].(map[string]any)["role_id"].(string)
	secret := b.vault.Write("auth/approle/role/app/secret-id", map[string]any{})["data"].(map[string]any)["secret_id"].(string)
	b.env = []string{
		"VAULT_ADDR=" + b.vault.Address, "VAULT_ROLE_ID=" + role, "VAULT_SECRET_ID=" + secret,
		"A=vault:database/creds/app#username", "B=vault:database/creds/app#password",
		"URL=postgres://${vault:database/creds/app#username}:${vault:database/creds/app?encode=url#password}@127.0.0.1:" + b.postgres.Port + "/postgres",
	}
	return b
}

// users counts those that Vault has made and that are still there. Vault
// answers before it has revoked the last lease of a token: it is given a moment
// to come down to want.
func (b leaseBed) users(t *testing.T, want string) (n string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if n = b.countUsers(t); n == want || time.Now().After(deadline) {
			return n
		}
	}
}

func (b leaseBed) countUsers(t *testing.T) string {
	t.Helper()
	n, err := b.postgres.Login("postgres", b.postgres.Password, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// credentials are the files' contents by one descriptor: of one refresh.
func (r *refreshed) credentials() (user, password, url string) {
	r.t.Helper()
	dir, err := linux.OpenAt(unix.AT_FDCWD, filepath.Join(r.dir, "..data"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer linux.Close(dir)
	for name, value := range map[string]*string{"a": &user, "b": &password, "url": &url} {
		fd, err := linux.OpenAt(dir, name, unix.O_RDONLY, 0)
		if err != nil {
			r.t.Fatal(err)
		}
		file := os.NewFile(uintptr(fd), name)
		content, err := io.ReadAll(file)
		_ = file.Close()
		if err != nil {
			r.t.Fatal(err)
		}
		*value = string(content)
	}
	return user, password, url
}

// testRefreshLease: a client logs in every 100 ms with what the files say,
// while leases of 20 s and the token that they came by are renewed, and
// replaced at the end of what Vault allows them.
func testRefreshLease(t *testing.T) {
	seconds := 75
	fromEnvironment(t, "REFRESH_SECONDS", &seconds)
	b := newLeaseBed(t, map[string]any{"default_ttl": "20s", "max_ttl": "60s"}, map[string]any{"token_ttl": "30s", "token_max_ttl": "100s"})
	r := startRefreshed(t, b.env, onHUP+loop, "--refresh", "lease")
	r.await("started v-approle-app-", 1)
	users := map[string]bool{}
	logins, failed := 0, 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ends := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(ends); <-tick.C {
		user, password, url := r.credentials()
		users[user] = true
		if !strings.HasPrefix(url, "postgres://"+user+":") {
			t.Errorf("the files of one refresh name %s and %.60s", user, url)
		}
		who, err := b.postgres.Login(user, password, "SELECT current_user")
		if logins++; err != nil || who != user {
			failed++
			t.Errorf("login %d as %s: %v: %s", logins, user, err, who)
		}
	}
	requests := b.vault.Requests()
	t.Logf("%d logins in %d s as %d users, %d failed; requests %v", logins, seconds, len(users), failed, requests)
	rotations := strings.Count(r.said(), "HUP v-approle-app-")
	if rotations == 0 || rotations != len(users)-1 || requests["GET database/creds/app"] != len(users) {
		t.Errorf("%d users, %d signals, requests %v", len(users), rotations, requests)
	}
	if requests["PUT sys/leases/renew"] < 2*len(users)-1 || requests["PUT auth/token/renew-self"] < 2 || requests["PUT auth/approle/login"] > 1+seconds/60 {
		t.Errorf("requests %v", requests)
	}
	if logins < seconds*5 {
		t.Errorf("only %d logins", logins)
	}
	if strings.Contains(r.said(), "warning") {
		t.Error("there were warnings")
	}
	began := time.Now()
	r.end(syscall.SIGTERM)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the end took %v", took)
	}
	if n := b.users(t, "0"); n != "0" {
		t.Errorf("%s users outlived the end", n)
	}
	r.clean()
}

// testRefreshLeaseOver: Vault is down past the end of the lease. The command
// runs on, and is told when there are new values.
func testRefreshLeaseOver(t *testing.T) {
	b := newLeaseBed(t, map[string]any{"default_ttl": "3s", "max_ttl": "1h"}, map[string]any{"token_ttl": "1h"})
	r := startRefreshed(t, b.env, onHUP+loop, "--refresh", "lease")
	r.await("started v-approle-app-", 1)
	first, _, _ := r.credentials()
	b.vault.Seal()
	r.await("ago stay, though their lease ended at ", 1)
	if user, _, _ := r.credentials(); user != first {
		t.Errorf("%s became %s", first, user)
	}
	b.vault.Unseal()
	r.await("HUP v-approle-app-", 1)
	user, password, _ := r.credentials()
	if _, err := b.postgres.Login(user, password, "SELECT 1"); err != nil || user == first {
		t.Errorf("the new user %s cannot log in: %v", user, err)
	}
	r.end(syscall.SIGTERM)
}

// testRefreshGivesUp: what was obtained is revoked at the end, also with a
// refresh on its way and a Vault that does not answer.
func testRefreshGivesUp(t *testing.T) {
	b := newLeaseBed(t, map[string]any{"default_ttl": "1h"}, map[string]any{"token_ttl": "1h"})
	t.Run("by itself", func(t *testing.T) {
		r := startRefreshed(t, b.env, `echo "started $(cat $A_FILE)"; sleep 1; exit 7`, "--refresh", "200ms")
		r.await("started v-approle-app-", 1)
		if n := b.users(t, "1"); n != "1" {
			t.Errorf("%s users", n)
		}
		<-r.ended
		if n := b.users(t, "0"); r.code != 7 || n != "0" {
			t.Errorf("exit code %d, %s users", r.code, n)
		}
	})
	t.Run("a start that fails", func(t *testing.T) {
		for _, option := range []string{"--supervise", "--refresh=lease", "--log-level=warn"} {
			read := b.vault.Requests()["GET database/creds/app"]
			r := startCommand(t, append([]string{"MISSING=sops:/none.yaml#a"}, b.env...), []string{"true"}, option)
			<-r.ended
			if read = b.vault.Requests()["GET database/creds/app"] - read; read != 1 || r.code != 66 {
				t.Errorf("%s: exit code %d, %d requests for a user", option, r.code, read)
			}
			if n := b.users(t, "0"); n != "0" {
				t.Errorf("%s: %s users outlived the start", option, n)
			}
		}
	})
	t.Run("TERM while it starts", func(t *testing.T) {
		starts := 40
		fromEnvironment(t, "LEASE_STARTS", &starts)
		read := b.vault.Requests()["GET database/creds/app"]
		for i := range starts {
			r := startRefreshed(t, b.env, loop, "--refresh", "lease")
			// The whole of a start, and the first moments of the command.
			time.Sleep(time.Duration(i) * 200 * time.Millisecond / time.Duration(starts))
			r.end(syscall.SIGTERM)
			r.clean()
		}
		if read = b.vault.Requests()["GET database/creds/app"] - read; read == 0 {
			t.Error("no start has come as far as a lease")
		}
		if n := b.users(t, "0"); n != "0" {
			t.Errorf("%s of %d users outlived the end", n, read)
		}
	})
	t.Run("Vault does not answer", func(t *testing.T) {
		r := startRefreshed(t, b.env, loop, "--refresh", "1h")
		r.await("started v-approle-app-", 1)
		release := make(chan struct{})
		defer close(release)
		hang(b.vault, release)
		began := time.Now()
		r.end(syscall.SIGTERM)
		if took := time.Since(began); took < time.Second || took > 3*time.Second {
			t.Errorf("the end took %v", took)
		}
		r.clean()
	})
	b.vault.Forget()
	t.Run("the command cannot be executed", func(t *testing.T) {
		before := b.countUsers(t)
		path := filepath.Join(t.TempDir(), "broken")
		if err := os.WriteFile(path, []byte("\x7fELFbroken"), 0o755); err != nil {
			t.Fatal(err)
		}
		r := startCommand(t, b.env, []string{path}, "--refresh", "lease")
		<-r.ended
		if n := b.users(t, before); r.code != 126 || n != before {
			t.Errorf("exit code %d, %s users, and %s before", r.code, n, before)
		}
		r.clean()
	})
}
