//go:build integration && !no_sops

package sops_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"secret-init/sources"
	"secret-init/sources/all"
	"secret-init/sources/sops"
	"secret-init/sources/sourcetest"
	"secret-init/tools/servers"
)

const secretYAML = "value: " + sourcetest.Canary + "\n"

// noKeys is an environment in which sops finds no key at all.
func noKeys(t *testing.T) sourcetest.Env {
	t.Helper()
	return sourcetest.Env{"HOME": t.TempDir(), "XDG_CONFIG_HOME": "", "GNUPGHOME": t.TempDir()}
}

func with(env sourcetest.Env, more map[string]string) sourcetest.Env {
	env = maps.Clone(env)
	maps.Copy(env, more)
	return env
}

func wantCanary(t *testing.T, env sourcetest.Env, path string) {
	t.Helper()
	if got, err := fetch(t, env, "sops:"+path+"#value"); err != nil || got != sourcetest.Canary {
		t.Errorf("%v, hint %s", err, sources.HintOf(err))
	}
}

// wantRefused checks the class, and the two lines by their name in errors.txt.
func wantRefused(t *testing.T, name string, env sourcetest.Env, path string, class sources.Class) {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	registry := sources.NewRegistry(sops.Backend)
	fetcher := &sources.Fetcher{Registry: registry, Settings: sources.Settings{Getenv: os.Getenv}}
	const timeout = 2 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	started := time.Now()
	err := fetcher.Fetch(ctx, []sources.Ref{{Scheme: "sops", Path: path}})[0].Err
	if late := time.Since(started) - timeout; late > 100*time.Millisecond {
		t.Errorf("%v after the deadline", late)
	}
	if closeErr := fetcher.Close(t.Context()); closeErr != nil {
		t.Error(closeErr)
	}
	if sources.ClassOf(err) != class {
		t.Errorf("class %v, want %v", sources.ClassOf(err), class)
	}
	wantLines(t, name, err)
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAgeKeys(t *testing.T) {
	key, other := servers.NewAgeKey(t), servers.NewAgeKey(t)
	path := put(t, key.Sops(), "a.yaml", "yaml", []byte(secretYAML))
	file := write(t, filepath.Join(t.TempDir(), "keys.txt"), "# created\n"+other.Identity+"\n\n"+key.Identity+"\n")
	home := t.TempDir()
	write(t, filepath.Join(home, ".config/sops/age/keys.txt"), key.Identity+"\n")
	for name, env := range map[string]map[string]string{
		"SOPS_AGE_KEY":             {"SOPS_AGE_KEY": key.Identity},
		"SOPS_AGE_KEY, of several": {"SOPS_AGE_KEY": other.Identity + "\n# comment\n" + key.Identity + "\n"},
		"SOPS_AGE_KEY_FILE":        {"SOPS_AGE_KEY_FILE": file},
		"SOPS_AGE_KEY_CMD":         {"SOPS_AGE_KEY_CMD": "cat " + file},
		"the user's key file":      {"HOME": home},
		"a wrong one and a right":  {"SOPS_AGE_KEY": other.Identity, "SOPS_AGE_KEY_FILE": file},
	} {
		t.Run(name, func(t *testing.T) { wantCanary(t, with(noKeys(t), env), path) })
	}
	for name, env := range map[string]map[string]string{
		"no key":                            {},
		"a key file that does not exist":    {"SOPS_AGE_KEY_FILE": "/absent"},
		"a key file with another key":       {"SOPS_AGE_KEY_FILE": write(t, t.TempDir()+"/k", other.Identity)},
		"a key that is none":                {"SOPS_AGE_KEY": sourcetest.Canary},
		"a key that is none, but for a bit": {"SOPS_AGE_KEY": "AGE-SECRET-KEY-1" + sourcetest.Canary},
		"another key":                       {"SOPS_AGE_KEY": other.Identity},
	} {
		t.Run(name, func(t *testing.T) { wantRefused(t, name, with(noKeys(t), env), path, sources.Denied) })
	}
}

func TestSSHKeys(t *testing.T) {
	for _, kind := range []string{"ed25519", "rsa"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "key")
			if output, err := exec.Command(servers.Tool(t, "ssh-keygen"), "-q", "-t", kind, "-N", "", "-f", file).CombinedOutput(); err != nil {
				t.Fatalf("ssh-keygen: %s", output)
			}
			public, err := os.ReadFile(file + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			recipient := strings.Join(strings.Fields(string(public))[:2], " ")
			path := put(t, servers.Sops{Encrypt: []string{"--age", recipient}}, "a.yaml", "yaml", []byte(secretYAML))
			private, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			home := t.TempDir()
			write(t, filepath.Join(home, ".ssh", "id_"+kind), string(private))
			wantCanary(t, with(noKeys(t), map[string]string{"SOPS_AGE_SSH_PRIVATE_KEY_FILE": file}), path)
			// A variable that is set to nothing is a file that cannot be read; the next place is tried.
			wantCanary(t, with(noKeys(t), map[string]string{"SOPS_AGE_SSH_PRIVATE_KEY_FILE": "", "HOME": home}), path)
			wantRefused(t, "no SSH key, "+kind, noKeys(t), path, sources.Denied)
		})
	}
}

// keyGroups is a .sops.yaml with one group for each key.
func keyGroups(t *testing.T, threshold int, keys ...servers.AgeKey) servers.Sops {
	t.Helper()
	config := fmt.Sprintf("creation_rules:\n  - shamir_threshold: %d\n    key_groups:\n", threshold)
	for _, key := range keys {
		config += "      - age: [" + key.Recipient + "]\n"
	}
	return servers.Sops{Encrypt: []string{"--config", write(t, filepath.Join(t.TempDir(), "sops.yaml"), config)}}
}

func TestKeyGroups(t *testing.T) {
	one, two, three := servers.NewAgeKey(t), servers.NewAgeKey(t), servers.NewAgeKey(t)
	both := put(t, keyGroups(t, 2, one, two), "a.yaml", "yaml", []byte(secretYAML))
	anyTwo := put(t, keyGroups(t, 2, one, two, three), "a.yaml", "yaml", []byte(secretYAML))
	keys := func(keys ...servers.AgeKey) sourcetest.Env {
		var lines []string
		for _, key := range keys {
			lines = append(lines, key.Identity)
		}
		return with(noKeys(t), map[string]string{"SOPS_AGE_KEY": strings.Join(lines, "\n")})
	}
	wantCanary(t, keys(one, two), both)
	wantCanary(t, keys(three, one), anyTwo)
	wantRefused(t, "one key of two groups", keys(one), both, sources.Denied)
	wantRefused(t, "one key of three groups", keys(three), anyTwo, sources.Denied)
}

// TestAWSKMS proves KMS against moto, a stand-in for AWS.
func TestAWSKMS(t *testing.T) {
	moto := servers.StartMoto(t)
	created := moto.Call(t, "kms", "eu-central-1", "TrentService.CreateKey", map[string]any{})
	arn := created["KeyMetadata"].(map[string]any)["Arn"].(string)
	command := servers.Sops{Encrypt: []string{"--kms", arn, "--encryption-context", "app:shop"}}
	for name, value := range moto.Env() {
		command.Env = append(command.Env, name+"="+value)
	}
	path := put(t, command, "a.yaml", "yaml", []byte(secretYAML))
	env := with(noKeys(t), moto.Env())
	wantCanary(t, env, path)
	if n := moto.Requests("Decrypt"); n != 1 {
		t.Errorf("%d requests to decrypt one file", n)
	}
	// The SDK tries three times by itself, which may take longer than the test's deadline.
	env["AWS_MAX_ATTEMPTS"] = "1"
	moto.AnswerError("Decrypt", http.StatusBadRequest, "AccessDeniedException", sourcetest.Canary)
	wantRefused(t, "KMS denies (stand-in)", env, path, sources.Denied)
	moto.AnswerError("Decrypt", http.StatusBadRequest, "ThrottlingException", sourcetest.Canary)
	wantRefused(t, "KMS throttles (stand-in)", env, path, sources.Unavailable)
	moto.AnswerError("Decrypt", http.StatusInternalServerError, "KMSInternalException", sourcetest.Canary)
	wantRefused(t, "KMS fails (stand-in)", env, path, sources.Unavailable)
	unreachable := map[string]string{"AWS_ENDPOINT_URL": "http://127.0.0.1:" + servers.FreePort(t)}
	wantRefused(t, "KMS cannot be reached", with(env, unreachable), path, sources.Unavailable)
	none := map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
	wantRefused(t, "no AWS credentials", with(env, none), path, sources.Denied)
}

func TestVaultTransit(t *testing.T) {
	vault := servers.StartVault(t)
	vault.Enable("transit", "transit", nil)
	vault.Write("transit/keys/app", map[string]any{})
	vault.Policy("app", `path "transit/decrypt/app" { capabilities = ["update"] }`)
	command := servers.Sops{
		Env:     []string{"VAULT_TOKEN=" + vault.RootToken},
		Encrypt: []string{"--hc-vault-transit", vault.Address + "/v1/transit/keys/app"},
	}
	path := put(t, command, "a.yaml", "yaml", []byte(secretYAML))
	env := with(noKeys(t), map[string]string{"VAULT_TOKEN": vault.Token("app")})
	vault.Forget()
	wantCanary(t, env, path)
	if n := vault.Requests()["PUT transit/decrypt/app"]; n != 1 {
		t.Errorf("%d requests to decrypt one file: %v", n, vault.Requests())
	}
	wantRefused(t, "a wrong Vault token", with(env, map[string]string{"VAULT_TOKEN": sourcetest.Canary}), path, sources.Denied)
	wantRefused(t, "a Vault token that may not decrypt", with(env, map[string]string{"VAULT_TOKEN": vault.Token("default")}), path, sources.Denied)
	vault.Intercept(func(http.ResponseWriter, *http.Request) bool { time.Sleep(3 * time.Second); return true })
	wantRefused(t, "Vault never answers (stand-in)", env, path, sources.Unavailable)

	// Vault's own client would send the token along.
	var followed atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	defer elsewhere.Close()
	vault.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	wantRefused(t, "Vault redirects to another server (stand-in)", env, path, sources.Denied)
	if followed.Load() != 0 {
		t.Error("the redirect was followed")
	}
	vault.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write(bytes.Repeat([]byte(" "), 2<<20))
		return true
	})
	wantRefused(t, "Vault answers with 2 MiB (stand-in)", env, path, sources.Denied)

	vault.Forget()
	vault.Seal()
	// The library's Vault client tries three times by itself, which takes longer than the test's deadline.
	wantRefused(t, "Vault is sealed", with(env, map[string]string{"VAULT_MAX_RETRIES": "0"}), path, sources.Unavailable)
	vault.Unseal()
	wantCanary(t, env, path)

	address := "http://127.0.0.1:" + servers.FreePort(t)
	edit(t, path, func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), vault.Address, address)) })
	wantRefused(t, "Vault cannot be reached", env, path, sources.Unavailable)
}

// TestFirstKeyAtHand: a file for several keys needs one of them, and the age
// key is tried before a server is asked.
func TestFirstKeyAtHand(t *testing.T) {
	key := servers.NewAgeKey(t)
	vault := servers.StartVault(t)
	vault.Enable("transit", "transit", nil)
	vault.Write("transit/keys/app", map[string]any{})
	command := servers.Sops{
		Env:     []string{"VAULT_TOKEN=" + vault.RootToken},
		Encrypt: []string{"--hc-vault-transit", vault.Address + "/v1/transit/keys/app", "--age", key.Recipient},
	}
	path := put(t, command, "a.yaml", "yaml", []byte(secretYAML))
	vault.Forget()
	wantCanary(t, ageEnv(t, key), path)
	if n := len(vault.Requests()); n != 0 {
		t.Errorf("Vault was asked though the age key is at hand: %v", vault.Requests())
	}
	wantCanary(t, with(noKeys(t), map[string]string{"VAULT_TOKEN": vault.RootToken}), path)
}

// TestAgeKeyFromVault: SOPS_AGE_KEY is a reference, resolved in a first round.
func TestAgeKeyFromVault(t *testing.T) {
	key := servers.NewAgeKey(t)
	vault := servers.StartVault(t)
	vault.PutKV("ci", map[string]string{"age": key.Identity})
	path := put(t, key.Sops(), "a.yaml", "yaml", []byte(secretYAML))
	for name, value := range with(noKeys(t), map[string]string{"VAULT_ADDR": vault.Address, "VAULT_TOKEN": vault.RootToken, "SOPS_AGE_KEY": "vault:secret/ci#age"}) {
		t.Setenv(name, value)
	}
	registry := all.Registry()
	parse := func(s string) sources.Ref {
		ref, err := registry.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	fetcher := &sources.Fetcher{
		Registry:    registry,
		Credentials: []sources.Credential{{Name: "SOPS_AGE_KEY", Ref: parse("vault:secret/ci#age")}},
		Settings:    sources.Settings{Getenv: os.Getenv, Warn: func(s string) { t.Log(s) }},
		Setenv:      os.Setenv,
	}
	ref := parse("sops:" + path + "#value")
	fetched := fetcher.Fetch(t.Context(), []sources.Ref{ref})[0]
	if fetched.Err != nil {
		t.Fatal(fetched.Err)
	}
	if secret, err := fetched.Document.Select(ref); err != nil || string(secret.Reveal()) != sourcetest.Canary {
		t.Error(err)
	}
	if err := fetcher.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestOlderVersions decrypts what older sops commands encrypted, in every
// format. tools/sops-versions.sh builds them.
func TestOlderVersions(t *testing.T) {
	folder := filepath.Join(servers.Root(), ".cache", "sops-versions")
	commands, err := filepath.Glob(filepath.Join(folder, "sops-v*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"sops-v3.8.1", "sops-v3.12.1"} {
		if !slices.Contains(commands, filepath.Join(folder, version)) {
			t.Fatalf("no %s: run tools/sops-versions.sh %s", version, folder)
		}
	}
	key := servers.NewAgeKey(t)
	env := ageEnv(t, key)
	plain := map[string]string{
		// 3.8 and 3.9 refuse a date.
		"a.yaml": strings.ReplaceAll(yamlPlain, "date:", "date: !!str"), "several.yaml": "a: 1\n---\nb: 2\n", "a.json": `{"a": 1.5, "b": [true, null, "x"]}`,
		"a.env": "# comment\nUSER=app\nLINES=a\\nb\n", "a.ini": "top = level\n[db]\nuser = app\n", "a.bin": "\x00\xff\r\n",
	}
	formats := map[string]string{".yaml": "yaml", ".json": "json", ".env": "dotenv", ".ini": "ini", ".bin": "binary"}
	for _, command := range commands {
		t.Run(filepath.Base(command), func(t *testing.T) {
			older := key.Sops()
			older.Command = command
			for name, content := range plain {
				format := formats[filepath.Ext(name)]
				path := put(t, older, name, format, []byte(content))
				got, err := fetch(t, env, "sops:"+path)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				// The newest command is the measure: older ones print some things otherwise.
				if want := string(key.Sops().Decrypt(t, path, format)); got != want {
					t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
				}
			}
		})
	}
}
