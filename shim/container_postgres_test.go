//go:build integration

package main

import (
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"

	"secret-init/tools/servers"
)

// testPostgres is the main job: the image's own entry script, which reads
// POSTGRES_PASSWORD_FILE, behind secret-init, with each of the three sources.
func testPostgres(t *testing.T, b *bed) {
	vault, moto := servers.StartVault(t), servers.StartMoto(t)
	vault.Policy("db", `path "secret/data/*" { capabilities = ["read"] }`)
	for name, source := range map[string]func(t *testing.T, network *servers.Network, password string) (spec servers.RunSpec, credential string){
		"vault": func(t *testing.T, network *servers.Network, password string) (servers.RunSpec, string) {
			vault.PutKV(t.Name(), map[string]string{"password": password})
			token := vault.Token("db")
			return servers.RunSpec{Env: []string{
				"POSTGRES_PASSWORD=vault:secret/" + t.Name() + "#password",
				"VAULT_ADDR=" + network.Relay(t, vault.Address), "VAULT_TOKEN=" + token,
			}}, token
		},
		"aws-sm": func(t *testing.T, network *servers.Network, password string) (servers.RunSpec, string) {
			moto.Call(t, "secretsmanager", "eu-central-1", "secretsmanager.CreateSecret", map[string]any{
				"Name": t.Name(), "SecretString": `{"username":"postgres","password":"` + password + `"}`,
			})
			return servers.RunSpec{Env: []string{
				"POSTGRES_PASSWORD=aws-sm:" + t.Name() + "#password", "SECRET_INIT_DROP_ENV=AWS_*",
				"AWS_ENDPOINT_URL=" + network.Relay(t, moto.URL), "AWS_REGION=eu-central-1",
				"AWS_ACCESS_KEY_ID=AKIATEST", "AWS_SECRET_ACCESS_KEY=aws-test-secret-key",
			}}, "aws-test-secret-key"
		},
		"sops": func(t *testing.T, _ *servers.Network, password string) (servers.RunSpec, string) {
			key := servers.NewAgeKey(t)
			file := filepath.Join(t.TempDir(), "secrets.json")
			key.Sops().EncryptFile(t, file, "json", []byte(`{"db":{"password":"`+password+`"}}`))
			return servers.RunSpec{
				Flags: []string{"--volume", file + ":/etc/app/db.json:ro"},
				Env:   []string{"POSTGRES_PASSWORD=sops:/etc/app/db.json#/db/password", "SOPS_AGE_KEY=" + key.Identity},
			}, key.Identity
		},
	} {
		// The entry script switches the user itself, or secret-init does.
		for _, option := range []string{"owner", "user"} {
			t.Run(name+"-"+option, func(t *testing.T) {
				t.Parallel()
				password, network := "pw-"+rand.Text(), servers.NewNetwork(t)
				spec, credential := source(t, network, password)
				spec.Image, spec.Network = b.postgres, network
				spec.Env = append(spec.Env, "SECRET_INIT_"+strings.ToUpper(option)+"=postgres")
				c := servers.RunContainer(t, spec)
				c.WaitLog("ready to accept connections", 1)
				checkDatabase(t, c, password, credential)
				if option == "owner" {
					return
				}
				c.Restart()
				c.WaitLog("ready to accept connections", 2)
				if got := logIn(c, password); got.Code != 0 {
					t.Errorf("after a restart: %+v", got)
				}
			})
		}
	}
}

func checkDatabase(t *testing.T, c *servers.Container, password, credential string) {
	t.Helper()
	if got := logIn(c, password); got.Code != 0 || got.Stdout != "scram-sha-256\n" {
		t.Errorf("the right password: %+v", got)
	}
	if got := logIn(c, password+"x"); got.Code == 0 || !strings.Contains(got.Stderr, "password authentication failed") {
		t.Errorf("a wrong password: %+v", got)
	}
	if strings.Contains(c.Inspect(), password) {
		t.Error("the password is in docker inspect")
	}
	if !strings.Contains(c.Inspect(), credential) {
		t.Error("docker inspect does not show the credential: the test looks for the wrong text")
	}
	if out := c.Logs(); strings.Contains(out.Stdout+out.Stderr, password) {
		t.Error("the password is in the logs")
	}
	if got := append(c.FindInProc(password), c.FindInProc(credential)...); got != nil {
		t.Errorf("the password or the source's credential is in %q", got)
	}
	if got := c.FindInExport(password); got != nil {
		t.Errorf("the password is in %q of the container's files", got)
	}
	if got := c.FindInExport("SCRAM-SHA-256$"); len(got) == 0 {
		t.Error("the export has no password hash: it is not the database's data that was searched")
	}
	for _, changed := range c.Diff() {
		if strings.HasPrefix(changed, "A /run/secrets/") && changed != "A /run/secrets/postgres_password" {
			t.Errorf("docker diff has %q", changed)
		}
	}
	processes := c.Processes()
	for _, p := range processes {
		if strings.Contains(p.Exe, "secret-init") {
			t.Errorf("secret-init is left as %d", p.PID)
		}
		if !strings.HasSuffix(p.Exe, "/bin/postgres") || p.Field("Uid") == "0 0 0 0" {
			t.Errorf("process %d is %s as %s", p.PID, p.Exe, p.Field("Uid"))
		}
	}
}

// logIn logs in over the network, not over the server's socket, and gives how
// the server keeps the password.
func logIn(c *servers.Container, password string) servers.Output {
	return c.Exec("nobody", "env", "PGPASSWORD="+password, "psql", "--no-password", "--host", c.IP(), "--username", "postgres",
		"--no-align", "--tuples-only", "--command", "select lower(left(rolpassword, 13)) from pg_authid where rolname = 'postgres'")
}
