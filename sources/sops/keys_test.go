//go:build integration && !no_sops

package sops_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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

// wantRefused checks class and words, and that nothing secret is in them.
func wantRefused(t *testing.T, env sourcetest.Env, path string, class sources.Class, what, hint string) {
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
	if err == nil || sources.ClassOf(err) != class || !strings.Contains(err.Error(), what) || !strings.Contains(sources.HintOf(err), hint) {
		t.Errorf("class %v, %v, hint %s\nwant %v, %s, hint %s", sources.ClassOf(err), err, sources.HintOf(err), class, what, hint)
	}
	if strings.Contains(fmt.Sprintf("%v %#v", err, err), sourcetest.Canary) || strings.Contains(sources.HintOf(err), sourcetest.Canary) {
		t.Error("the canary is in the error")
	}
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
	none := "no key that it is encrypted for is at hand"
	for hint, env := range map[string]map[string]string{
		"set SOPS_AGE_KEY, or SOPS_AGE_KEY_FILE":                                     {},
		"SOPS_AGE_KEY_FILE is set, but that file cannot be read":                     {"SOPS_AGE_KEY_FILE": "/absent"},
		"SOPS_AGE_KEY_FILE is set, but that file has no age key of this recipient":   {"SOPS_AGE_KEY_FILE": write(t, t.TempDir()+"/k", other.Identity)},
		"SOPS_AGE_KEY is set, but is not an age key (AGE-SECRET-KEY-1...)":           {"SOPS_AGE_KEY": sourcetest.Canary},
		"it is encrypted for age " + key.Recipient + "; SOPS_AGE_KEY is set, but is": {"SOPS_AGE_KEY": other.Identity},
	} {
		t.Run(hint, func(t *testing.T) { wantRefused(t, with(noKeys(t), env), path, sources.Denied, none, hint) })
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
			wantRefused(t, noKeys(t), path, sources.Denied, "no key that it is encrypted for is at hand", "set SOPS_AGE_SSH_PRIVATE_KEY_FILE")
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
	wantRefused(t, keys(one), both, sources.Denied, "it takes keys of 2 of its 2 key groups", one.Recipient+", age "+two.Recipient)
	wantRefused(t, keys(three), anyTwo, sources.Denied, "it takes keys of 2 of its 3 key groups", "SOPS_AGE_KEY is set")
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
	hint := "it is encrypted for AWS KMS " + arn + "; allow kms:Decrypt on the key to the task's or instance's role"
	moto.AnswerError("Decrypt", http.StatusBadRequest, "AccessDeniedException", sourcetest.Canary)
	wantRefused(t, env, path, sources.Denied, "(AWS KMS "+arn+" answers 400 AccessDeniedException)", hint)
	// The SDK tries three times by itself, which may take longer than the test's deadline.
	env["AWS_MAX_ATTEMPTS"] = "1"
	moto.AnswerError("Decrypt", http.StatusBadRequest, "ThrottlingException", sourcetest.Canary)
	wantRefused(t, env, path, sources.Unavailable, "answers 400 ThrottlingException", hint)
	moto.AnswerError("Decrypt", http.StatusInternalServerError, "KMSInternalException", sourcetest.Canary)
	wantRefused(t, env, path, sources.Unavailable, "answers 500 KMSInternalException", hint)
	wantRefused(t, with(env, map[string]string{"AWS_ENDPOINT_URL": "http://127.0.0.1:" + servers.FreePort(t)}), path,
		sources.Unavailable, "AWS KMS "+arn+" does not answer", hint)
	wantRefused(t, with(env, map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}), path,
		sources.Denied, "was not asked, since no AWS credentials were found", hint)
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
	named := "Vault " + vault.Address + "/v1/transit/keys/app"
	hint := "it is encrypted for " + named + "; set VAULT_TOKEN to a token with update on transit/decrypt/app"
	wantRefused(t, with(env, map[string]string{"VAULT_TOKEN": sourcetest.Canary}), path, sources.Denied, "("+named+" answers 403 Forbidden)", hint)
	wantRefused(t, with(env, map[string]string{"VAULT_TOKEN": vault.Token("default")}), path, sources.Denied, "answers 403 Forbidden", hint)
	vault.Intercept(func(http.ResponseWriter, *http.Request) bool { time.Sleep(3 * time.Second); return true })
	wantRefused(t, env, path, sources.Unavailable, named+" does not answer", "can this host reach it?")
	vault.Forget()
	vault.Seal()
	// The library's Vault client tries three times by itself, which takes longer than the test's deadline.
	wantRefused(t, with(env, map[string]string{"VAULT_MAX_RETRIES": "0"}), path, sources.Unavailable, named+" answers 503 Service Unavailable", hint)
	vault.Unseal()
	wantCanary(t, env, path)

	address := "http://127.0.0.1:" + servers.FreePort(t)
	// Nothing listens there. The library's Vault client also tries again by itself.
	edit(t, path, func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), vault.Address, address)) })
	wantRefused(t, env, path, sources.Unavailable, address+"/v1/transit/keys/app does not answer", "can this host reach it?")
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
