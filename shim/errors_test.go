//go:build integration

package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"secret-init/tools/servers"
)

// refusal is one start that has to fail.
type refusal struct {
	name string
	env  map[string]string
	// before arranges the server's state.
	before func()
	// after looks at what the start has done, and how long it took.
	after func(took time.Duration)
}

// with is a copy of env with more variables, as NAME=VALUE.
func with(env map[string]string, more ...string) map[string]string {
	env = maps.Clone(env)
	for _, variable := range more {
		name, value, _ := strings.Cut(variable, "=")
		env[name] = value
	}
	return env
}

// TestErrors: what a user sees when a real server or a real file refuses. For
// each: the error and the hint, the exit code, the command not started, and
// nothing left behind. testdata/errors-servers.golden has every word.
func TestErrors(t *testing.T) {
	program := servers.BuildShim(t)
	files := t.TempDir()
	canary := "canary-value"
	refusals := slices.Concat(vaultRefusals(t, canary), awsRefusals(t, canary), sopsRefusals(t, files, canary))
	var text strings.Builder
	for _, r := range refusals {
		if r.before != nil {
			r.before()
		}
		started := time.Now()
		code, said := refuse(t, program, r)
		if r.after != nil {
			r.after(time.Since(started))
		}
		for _, secret := range []string{canary, r.env["VAULT_TOKEN"], r.env["SOPS_AGE_KEY"], r.env["AWS_SECRET_ACCESS_KEY"]} {
			if secret != "" && strings.Contains(said, secret) {
				t.Errorf("%s: a secret is in what was said:\n%s", r.name, said)
			}
		}
		fmt.Fprintf(&text, "# %s\n%sexit %d\n\n", r.name, constant(strings.ReplaceAll(said, files, "/etc/app")), code)
	}
	golden(t, "errors-servers.golden", text.String())
}

var (
	ports      = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	recipients = regexp.MustCompile(`age1[a-z0-9]{58}`)
)

// constant takes out what differs from run to run.
func constant(text string) string {
	return recipients.ReplaceAllString(ports.ReplaceAllString(text, "127.0.0.1:PORT"), "age1RECIPIENT")
}

// refuse runs the program with nothing else in its environment.
func refuse(t *testing.T, program string, r refusal) (code int, said string) {
	t.Helper()
	place, err := os.MkdirTemp("/dev/shm", "errors-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(place) }()
	cmd := exec.Command(program, "--", "/bin/echo", "started")
	cmd.Env = []string{"SECRET_INIT_DIR=" + place, "PATH=/usr/bin:/bin", "HOME=" + t.TempDir()}
	for name, value := range r.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if _, exited := errors.AsType[*exec.ExitError](err); !exited {
			t.Fatal(err)
		}
	}
	if stdout.Len() > 0 {
		t.Errorf("%s: the command was started", r.name)
	}
	if left, err := os.ReadDir(place); err != nil || len(left) > 0 {
		t.Errorf("%s: left behind: %v, %v", r.name, left, err)
	}
	if lines := strings.Split(strings.TrimSpace(stderr.String()), "\n"); !strings.HasPrefix(lines[0], "secret-init: error: DB_PASSWORD: ") {
		t.Errorf("%s: the error does not begin with the variable: %q", r.name, lines[0])
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

func vaultRefusals(t *testing.T, canary string) []refusal {
	vault := servers.StartVault(t)
	vault.PutKV("db", map[string]string{"username": canary, "password": canary})
	vault.Policy("other", `path "secret/data/other" { capabilities = ["read"] }`)
	env := map[string]string{"VAULT_ADDR": vault.Address, "VAULT_TOKEN": vault.RootToken, "DB_PASSWORD": "vault:secret/db#password"}

	// A listener that ends every connection counts the tries. It reads first:
	// what is closed with bytes unread is reset instead.
	var tries atomic.Int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			tries.Add(1)
			_, _ = conn.Read(make([]byte, 64<<10))
			_ = conn.Close()
		}
	}()
	within := func(limit time.Duration) func(time.Duration) {
		return func(took time.Duration) {
			if took < limit/2 || took > limit+time.Second {
				t.Errorf("gave up after %v, not within %v", took, limit)
			}
		}
	}
	return []refusal{
		{name: "vault, missing key", env: with(env, "DB_PASSWORD=vault:secret/db#pasword")},
		{name: "vault, missing path", env: with(env, "DB_PASSWORD=vault:secret/absent#password")},
		{name: "vault, missing mount", env: with(env, "DB_PASSWORD=vault:absent/db#password")},
		{name: "vault, wrong token", env: with(env, "VAULT_TOKEN=hvs.wrong")},
		{name: "vault, denied by policy", env: with(env, "VAULT_TOKEN="+vault.Token("other"))},
		{name: "vault, no credentials", env: with(env, "VAULT_TOKEN=")},
		{name: "vault, wrong AppRole", env: with(env, "VAULT_TOKEN=", "VAULT_ROLE_ID=wrong", "VAULT_SECRET_ID=wrong"), before: func() { vault.EnableAuth("approle", "approle") }},
		{
			name: "vault, not listening", env: with(env, "VAULT_ADDR=http://127.0.0.1:"+servers.FreePort(t), "SECRET_INIT_TIMEOUT=2s"),
			after: within(2 * time.Second),
		},
		{
			name: "vault, hangs up", env: with(env, "VAULT_ADDR=http://"+listener.Addr().String(), "SECRET_INIT_TIMEOUT=2s"),
			after: func(took time.Duration) {
				within(2 * time.Second)(took)
				if n := tries.Load(); n < 3 {
					t.Errorf("tried %d times", n)
				}
			},
		},
		{name: "vault, certificate of an unknown authority", env: with(env, "VAULT_ADDR="+vault.TLS, "SECRET_INIT_TIMEOUT=2s")},
		{name: "vault, sealed", env: with(env, "SECRET_INIT_TIMEOUT=2s"), before: vault.Seal, after: within(2 * time.Second)},
	}
}

func awsRefusals(t *testing.T, canary string) []refusal {
	moto := servers.StartMoto(t)
	moto.PutSecret(t, "eu-central-1", "prod/db", []byte(`{"username":"`+canary+`","password":"`+canary+`"}`), true)
	env := with(moto.Env(), "DB_PASSWORD=aws-sm:prod/db#password")
	denied := with(env)
	return []refusal{
		{name: "aws, missing key", env: with(env, "DB_PASSWORD=aws-sm:prod/db#pasword")},
		{name: "aws, missing secret", env: with(env, "DB_PASSWORD=aws-sm:prod/absent#password")},
		{name: "aws, missing parameter", env: with(env, "DB_PASSWORD=aws-ssm:/prod/absent")},
		{name: "aws, no region", env: with(env, "AWS_REGION=")},
		{name: "aws, no credentials", env: with(env, "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=")},
		{name: "aws, not listening", env: with(env, "AWS_ENDPOINT_URL=http://127.0.0.1:"+servers.FreePort(t), "SECRET_INIT_TIMEOUT=2s")},
		{name: "aws, access denied", env: denied, before: func() { maps.Copy(denied, moto.Restrict(t)) }},
	}
}

func sopsRefusals(t *testing.T, dir, canary string) []refusal {
	key, other := servers.NewAgeKey(t), servers.NewAgeKey(t)
	file, tampered := filepath.Join(dir, "secrets.enc.yaml"), filepath.Join(dir, "tampered.enc.yaml")
	key.Sops().EncryptFile(t, file, "yaml", []byte("username: "+canary+"\npassword: "+canary+"\nport: 5432\n"))
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Each value stays authentic, but not what the file as a whole says.
	swapped := regexp.MustCompile(`(?m)^port: .*\n`).ReplaceAll(content, nil)
	if bytes.Equal(swapped, content) {
		t.Fatal("there was nothing to take out")
	}
	if err := os.WriteFile(tampered, swapped, 0o600); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain.yaml")
	if err := os.WriteFile(plain, []byte("password: "+canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"SOPS_AGE_KEY": key.Identity, "DB_PASSWORD": "sops:" + file + "#password"}
	return []refusal{
		{name: "sops, missing key", env: with(env, "DB_PASSWORD=sops:"+file+"#pasword")},
		{name: "sops, missing file", env: with(env, "DB_PASSWORD=sops:"+dir+"/absent.enc.yaml#password")},
		{name: "sops, no age key", env: with(env, "SOPS_AGE_KEY=")},
		{name: "sops, another age key", env: with(env, "SOPS_AGE_KEY="+other.Identity)},
		{name: "sops, tampered with (MAC)", env: with(env, "DB_PASSWORD=sops:"+tampered+"#password")},
		{name: "sops, not encrypted", env: with(env, "DB_PASSWORD=sops:"+plain+"#password")},
	}
}
