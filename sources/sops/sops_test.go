//go:build integration && !no_sops

package sops_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/getsops/sops/v3/audit"
	"github.com/getsops/sops/v3/logging"

	"secret-init/sources"
	"secret-init/sources/sops"
	"secret-init/sources/sourcetest"
	"secret-init/tools/servers"
)

// ageEnv is all that a start with one age key is given: no key of the person
// who runs the tests must help.
func ageEnv(t *testing.T, key servers.AgeKey) sourcetest.Env {
	t.Helper()
	return sourcetest.Env{"SOPS_AGE_KEY": key.Identity, "HOME": t.TempDir(), "XDG_CONFIG_HOME": "", "GNUPGHOME": t.TempDir()}
}

// put encrypts plain into a new file of that name, and returns its path.
func put(t *testing.T, command servers.Sops, name, format string, plain []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	command.EncryptFile(t, path, format, plain)
	return path
}

func TestConformance(t *testing.T) {
	key, other := servers.NewAgeKey(t), servers.NewAgeKey(t)
	putFields := func(t *testing.T, name string, fields map[string]string) string {
		t.Helper()
		plain, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		// JSON is YAML, which sops writes back as YAML.
		return "sops:" + put(t, key.Sops(), name+".enc.yaml", "yaml", plain)
	}
	// The network of this source is that of its key services: one of them stands for all.
	vault := servers.StartVault(t)
	vault.Enable("transit", "transit", nil)
	vault.Write("transit/keys/app", map[string]any{})
	withVault := put(t, servers.Sops{
		Env:     []string{"VAULT_TOKEN=" + vault.RootToken},
		Encrypt: []string{"--hc-vault-transit", vault.Address + "/v1/transit/keys/app"},
	}, "vault.yaml", "yaml", []byte("value: "+sourcetest.Canary+"\n"))
	sourcetest.Run(t, sourcetest.Harness{
		Backend: sops.Backend,
		At: func(url string) (string, sourcetest.Env) {
			edit(t, withVault, func(b []byte) []byte {
				return regexp.MustCompile(`(?m)vault_address: .*$`).ReplaceAll(b, []byte("vault_address: "+url))
			})
			return "sops:" + withVault, sourcetest.Env{"VAULT_TOKEN": sourcetest.Canary}
		},
		Env: ageEnv(t, key),
		PutWhole: func(t *testing.T, name string, content []byte) string {
			return "sops:" + put(t, key.Sops(), name, "binary", content)
		},
		PutFields: putFields,
		Missing:   "sops:" + t.TempDir() + "/absent.yaml",
		Denied: func(t *testing.T) (string, sourcetest.Env) {
			return putFields(t, "denied", map[string]string{"value": sourcetest.Canary}), ageEnv(t, other)
		},
		Malformed: func(t *testing.T) string {
			ref := putFields(t, "malformed", map[string]string{"value": sourcetest.Canary})
			flipCiphertext(t, strings.TrimPrefix(ref, "sops:"))
			return ref + "#value"
		},
	})
}

var ciphertext = regexp.MustCompile(`ENC\[AES256_GCM,data:.`)

// flipCiphertext changes the first character of the first encrypted value.
func flipCiphertext(t *testing.T, path string) {
	t.Helper()
	edit(t, path, func(content []byte) []byte {
		at := ciphertext.FindIndex(content)[1] - 1
		content[at] ^= 'A' ^ 'B'
		if !regexp.MustCompile(`[A-Za-z0-9+/]`).Match(content[at : at+1]) {
			content[at] = 'A'
		}
		return content
	})
}

func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := change(bytes.Clone(content))
	if bytes.Equal(changed, content) {
		t.Fatal("the file is as it was")
	}
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
}

func fetch(t *testing.T, env sourcetest.Env, ref string) (string, error) {
	t.Helper()
	value, err := sourcetest.Harness{Backend: sops.Backend}.Fetch(t, env, ref)
	return string(value), err
}

const yamlPlain = `# a comment
db:
  user: app # beside
  password: "p: #w\n"
  ports: [5432, 5433]
list:
  # in a list
  - one
  - nested: {deep: [true, null]}
float: 1.10
hex: 0x1F
exponent: 1e3
negative: -7
quoted: "1.10"
yes: yes
on: true
nothing: null
empty: ""
big: 9007199254740993
multi: |
  line one
  line two
date: 2020-01-02
`

func TestFormatsPrintWhatSopsPrints(t *testing.T) {
	key := servers.NewAgeKey(t)
	env := ageEnv(t, key)
	documents := []struct{ name, file, format, plain string }{
		{"yaml", "a.yaml", "yaml", yamlPlain},
		{"yml", "a.yml", "yaml", "a: b\n"},
		{"enc.yaml", "a.enc.yaml", "yaml", "a: b\n"},
		{"several documents", "several.yaml", "yaml", "a: 1\n---\nb: 2\n"},
		{"json", "a.json", "json", `{"a": 1.10, "b": [true, null, "x"], "c": {"d": "<&>"}, "e": 1e3, "n": 12345678901, "empty": {}}`},
		{"sops.json", "a.sops.json", "json", `{"a": "b"}`},
		{"dotenv", "prod.env", "dotenv", "# comment\nUSER=app\nQUOTED=\"x y\"\nLINES=a\\nb\nEQUALS=a=b=\nEMPTY=\n"},
		{"only .env", ".env", "dotenv", "A=b\n"},
		{"ini", "a.ini", "ini", "top = level\n\n; comment\n[db]\nuser = app\npassword = p;w#x\nnumber = 1.10\n\n[db.replica]\nuser = r\n"},
		{"binary", "cert.p12", "binary", "\x00\xff\r\n"},
		{"binary, text", "key.pem.enc", "binary", "no newline at the end"},
		{"format given", "noextension", "yaml", "a: b\n"},
		{"format against the name", "strange.yaml", "json", `{"a": "b"}`},
	}
	for _, d := range documents {
		t.Run(d.name, func(t *testing.T) {
			path := put(t, key.Sops(), d.file, d.format, []byte(d.plain))
			ref := "sops:" + path
			if strings.HasPrefix(d.name, "format") {
				ref += "?format=" + d.format
			}
			got, err := fetch(t, env, ref)
			if err != nil {
				t.Fatal(err)
			}
			if want := string(key.Sops().Decrypt(t, path, d.format)); got != want {
				t.Errorf("got\n%s\nwant, as sops prints it,\n%s", got, want)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	key := servers.NewAgeKey(t)
	env := ageEnv(t, key)
	paths := map[string]string{
		"yaml":    put(t, key.Sops(), "a.yaml", "yaml", []byte(yamlPlain)),
		"several": put(t, key.Sops(), "several.yaml", "yaml", []byte("a: 1\n---\nb: two\n")),
		"json":    put(t, key.Sops(), "a.json", "json", []byte(`{"a/b": "slash", "m~n": "tilde", "n": 12345678901, "f": 1.10, "t": true, "o": {"x": [1, "y"]}}`)),
		"dotenv":  put(t, key.Sops(), "a.env", "dotenv", []byte("# comment\nUSER=app\nQUOTED=\"x y\"\nLINES=a\\nb\nEQUALS=a=b=\nEMPTY=\nNUMBER=1.10\n")),
		"ini":     put(t, key.Sops(), "a.ini", "ini", []byte("top = level\n[db]\nuser = app\npassword = `p;w#x`\nnumber = 1.10\n[db]\nlater = yes\n[a/b]\nc = d\n")),
	}
	tests := []struct{ document, key, want string }{
		{"yaml", "/db/user", "app"},
		{"yaml", "/db/password", "p: #w\n"},
		{"yaml", "/db/ports/1", "5433"},
		{"yaml", "/db/ports", "[5432,5433]"},
		{"yaml", "/list/0", "one"},
		{"yaml", "/list/1", `{"nested":{"deep":[true,null]}}`},
		{"yaml", "quoted", "1.10"},
		{"yaml", "negative", "-7"},
		{"yaml", "on", "true"},
		{"yaml", "empty", ""},
		{"yaml", "big", "9007199254740993"},
		{"yaml", "multi", "line one\nline two\n"},
		{"several", "/0/a", "1"},
		{"several", "/1/b", "two"},
		{"json", "a/b", "slash"},
		{"json", "/a~1b", "slash"},
		{"json", "/m~0n", "tilde"},
		{"json", "n", "12345678901"},
		{"json", "t", "true"},
		{"json", "/o/x/1", "y"},
		{"json", "o", `{"x":[1,"y"]}`},
		{"dotenv", "USER", "app"},
		{"dotenv", "QUOTED", `"x y"`},
		{"dotenv", "LINES", "a\nb"},
		{"dotenv", "EQUALS", "a=b="},
		{"dotenv", "EMPTY", ""},
		{"dotenv", "NUMBER", "1.10"},
		{"ini", "top", "level"},
		{"ini", "/db/user", "app"},
		{"ini", "/db/password", "p;w#x"},
		{"ini", "/db/number", "1.10"},
		{"ini", "/db/later", "yes"},
		{"ini", "/a~1b/c", "d"},
	}
	for _, test := range tests {
		t.Run(test.document+"#"+test.key, func(t *testing.T) {
			got, err := fetch(t, env, "sops:"+paths[test.document]+"#"+test.key)
			if err != nil || got != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

// TestNumbersAreWhatSopsMakesOfThem: sops stores a number, not its spelling.
// What is delivered is spelled as `sops --decrypt` spells it, never otherwise.
func TestNumbersAreWhatSopsMakesOfThem(t *testing.T) {
	key := servers.NewAgeKey(t)
	env := ageEnv(t, key)
	for _, spelled := range []string{"1.10", "0x1F", "1e3", "007", "1_000", "-0.5", "9223372036854775807", ".5", "1.0"} {
		path := put(t, key.Sops(), "port.yaml", "yaml", []byte("port: "+spelled+"\n"))
		printed := strings.TrimSpace(strings.TrimPrefix(string(key.Sops().Decrypt(t, path, "yaml")), "port:"))
		got, err := fetch(t, env, "sops:"+path+"#port")
		if err != nil || got != printed {
			t.Errorf("%s: got %q, %v; sops prints %q", spelled, got, err, printed)
		}
		t.Logf("%s is delivered as %s", spelled, got)
	}
}

func TestMembers(t *testing.T) {
	key := servers.NewAgeKey(t)
	ageEnv := ageEnv(t, key)
	for name, value := range ageEnv {
		t.Setenv(name, value)
	}
	members := func(path string) ([]sources.Member, error) {
		registry := sources.NewRegistry(sops.Backend)
		ref, err := registry.Parse("sops:" + path)
		if err != nil {
			t.Fatal(err)
		}
		fetcher := &sources.Fetcher{Registry: registry, Settings: sources.Settings{Getenv: os.Getenv}}
		fetched := fetcher.Fetch(t.Context(), []sources.Ref{ref})[0]
		if fetched.Err != nil {
			t.Fatal(fetched.Err)
		}
		return fetched.Document.Members(ref)
	}
	all, err := members(put(t, key.Sops(), "a.env", "dotenv", []byte("# comment\nUSER=app\nPASSWORD=secret\n")))
	if err != nil || len(all) != 2 || all[0].Name != "USER" || string(all[1].Value.Reveal()) != "secret" {
		t.Errorf("%d members, %v", len(all), err)
	}
	path := put(t, key.Sops(), "a.yaml", "yaml", []byte("flat: x\ndb:\n  user: app\n"))
	_, err = members(path)
	if want := "name what you need of it: sops:" + path + "#/db/user"; sources.HintOf(err) != want {
		t.Errorf("hint %q, want %q", sources.HintOf(err), want)
	}
}

// TestPrintsNothing: the library's loggers write to stderr, and quote comments.
func TestPrintsNothing(t *testing.T) {
	key := servers.NewAgeKey(t)
	for name, value := range ageEnv(t, key) {
		t.Setenv(name, value)
	}
	path := put(t, key.Sops(), "a.yaml", "yaml", []byte("# comment\nvalue: x\n"))
	// A comment in the clear makes the library warn.
	edit(t, path, func(b []byte) []byte {
		return regexp.MustCompile(`#ENC.*`).ReplaceAll(b, []byte("# "+sourcetest.Canary))
	})
	printed := capture(t, func() {
		source, err := sops.Backend.Open(sources.Settings{Getenv: os.Getenv})
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := source.Fetch(t.Context(), sources.Ref{Scheme: "sops", Path: path}); err != nil {
			t.Error(err)
		}
		flipCiphertext(t, path)
		if _, err := source.Fetch(t.Context(), sources.Ref{Scheme: "sops", Path: path}); err == nil {
			t.Error("a tampered file was read")
		}
	})
	if printed != "" {
		t.Errorf("printed %q", printed)
	}
}

// unreliable is an audit log of sops that fails as the one of
// /etc/sops/audit.yaml would: it ends the process.
type unreliable struct{ fail func() }

func (u *unreliable) Handle(any) {
	if u.fail != nil {
		u.fail()
	}
}

func TestLibraryGivesUp(t *testing.T) {
	auditor := &unreliable{}
	audit.Register(auditor)
	key := servers.NewAgeKey(t)
	path := put(t, key.Sops(), "a.yaml", "yaml", []byte("value: x\n"))
	for what, fail := range map[string]func(){
		"cannot be read: sops cannot write its audit log":         func() { logging.Loggers["AUDIT"].Fatal(sourcetest.Canary) },
		"cannot be read: it is malformed, and sops gave up on it": func() { panic(sourcetest.Canary) },
	} {
		auditor.fail = fail
		for name, value := range ageEnv(t, key) {
			t.Setenv(name, value)
		}
		source, err := sops.Backend.Open(sources.Settings{Getenv: os.Getenv})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := source.Fetch(t.Context(), sources.Ref{Scheme: "sops", Path: path}); err == nil || err.Error() != what {
			t.Errorf("%v, want %s", err, what)
		}
	}
	auditor.fail = nil
}

// capture is what f writes to this process's own stdout and stderr, whoever
// kept which file: the descriptors themselves are replaced.
func capture(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, fd := range []int{1, 2} {
		saved, err := syscall.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = syscall.Dup3(saved, fd, 0)
			_ = syscall.Close(saved)
		}()
		if err := syscall.Dup3(int(file.Fd()), fd, 0); err != nil {
			t.Fatal(err)
		}
	}
	f()
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	output, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(output)
}

func TestVersionFollowsTheFile(t *testing.T) {
	key := servers.NewAgeKey(t)
	for name, value := range ageEnv(t, key) {
		t.Setenv(name, value)
	}
	path := put(t, key.Sops(), "a.yaml", "yaml", []byte("value: x\n"))
	source, err := sops.Backend.Open(sources.Settings{Getenv: os.Getenv})
	if err != nil {
		t.Fatal(err)
	}
	version := func() string {
		document, err := source.Fetch(t.Context(), sources.Ref{Scheme: "sops", Path: path})
		if err != nil {
			t.Fatal(err)
		}
		return document.Version
	}
	first := version()
	if first == "" || version() != first {
		t.Error("two reads of one file have two versions, or none")
	}
	key.Sops().EncryptFile(t, path, "yaml", []byte("value: y\n"))
	if version() == first {
		t.Error("a new file has the version of the old one")
	}
}

// TestDeadline: a command that gives the age key and never ends.
func TestDeadline(t *testing.T) {
	key := servers.NewAgeKey(t)
	env := ageEnv(t, key)
	for name, value := range env {
		t.Setenv(name, value)
	}
	path := put(t, key.Sops(), "a.yaml", "yaml", []byte("value: x\n"))
	t.Setenv("SOPS_AGE_KEY_CMD", "sleep 2")
	source, err := sops.Backend.Open(sources.Settings{Getenv: os.Getenv})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	started := time.Now()
	_, err = source.Fetch(ctx, sources.Ref{Scheme: "sops", Path: path})
	if took := time.Since(started); took > 400*time.Millisecond || sources.ClassOf(err) != sources.Unavailable {
		t.Errorf("after %v: %v", took, err)
	}
}
