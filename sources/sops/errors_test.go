//go:build integration && !no_sops

package sops_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"secret-init/sources"
	"secret-init/sources/sourcetest"
	"secret-init/tools/servers"
)

func TestErrors(t *testing.T) {
	key, other := servers.NewAgeKey(t), servers.NewAgeKey(t)
	env := ageEnv(t, key)
	plainFile := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	without := func(t *testing.T, name, value string) sourcetest.Env {
		env := ageEnv(t, key)
		env[name] = value
		return env
	}
	const suffixed = "port_unencrypted: 5432\nvalue: " + sourcetest.Canary + "\n"
	encrypted := put(t, key.Sops(), "a.yaml", "yaml", []byte(suffixed))
	const tampered = "fails its integrity check (MAC): it was changed after it was encrypted"
	tests := []struct {
		name  string
		path  func(t *testing.T) string
		env   func(t *testing.T) sourcetest.Env
		class sources.Class
		what  string
		hint  string
	}{
		{"an unencrypted value changed", func(t *testing.T) string {
			path := put(t, key.Sops(), "a.yaml", "yaml", []byte(suffixed))
			edit(t, path, func(b []byte) []byte { return bytes.Replace(b, []byte("5432"), []byte("5433"), 1) })
			return path
		}, nil, sources.Invalid, tampered, "restore it"},
		{"an encrypted number changed for its text", func(t *testing.T) string {
			// The type is not covered by the value's own tag: strconv fails on the canary, and quotes it.
			path := put(t, key.Sops(), "a.yaml", "yaml", []byte("value: "+sourcetest.Canary+"\n"))
			edit(t, path, func(b []byte) []byte { return bytes.Replace(b, []byte("type:str"), []byte("type:int"), 1) })
			return path
		}, nil, sources.Invalid, tampered, "restore it"},
		{"a value in the clear", func(t *testing.T) string {
			path := put(t, key.Sops(), "a.yaml", "yaml", []byte("value: x\n"))
			edit(t, path, func(b []byte) []byte {
				return regexp.MustCompile(`(?m)^value: .*$`).ReplaceAll(b, []byte("value: "+sourcetest.Canary))
			})
			return path
		}, nil, sources.Invalid, tampered, "restore it"},
		{"no MAC", func(t *testing.T) string {
			path := put(t, key.Sops(), "a.yaml", "yaml", []byte("value: x\n"))
			edit(t, path, func(b []byte) []byte {
				return regexp.MustCompile(`(?m)^( +)mac: .*$`).ReplaceAll(b, []byte(`${1}mac: ""`))
			})
			return path
		}, nil, sources.Invalid, tampered, "restore it"},
		{"keys swapped", func(t *testing.T) string {
			path := put(t, key.Sops(), "a.yaml", "yaml", []byte("first: one\nother: two\n"))
			edit(t, path, func(b []byte) []byte {
				return bytes.Replace(bytes.Replace(b, []byte("first:"), []byte("third:"), 1), []byte("other:"), []byte("first:"), 1)
			})
			return path
		}, nil, sources.Invalid, tampered, "restore it"},
		{"not encrypted", func(*testing.T) string { return plainFile("plain.yaml", "value: "+sourcetest.Canary+"\n") },
			nil, sources.Invalid, "was not encrypted by sops", "sops encrypt --in-place "},
		{"not encrypted, dotenv", func(*testing.T) string { return plainFile("plain.env", "VALUE="+sourcetest.Canary+"\n") },
			nil, sources.Invalid, "was not encrypted by sops", "sops encrypt --in-place "},
		{"no dotenv at all", func(*testing.T) string { return plainFile("broken.env", sourcetest.Canary+"\n") },
			nil, sources.Invalid, "is not a SOPS file of the format dotenv", "?format="},
		{"no YAML at all", func(*testing.T) string { return plainFile("broken.yaml", "{"+sourcetest.Canary) },
			nil, sources.Invalid, "is not a SOPS file of the format yaml", "?format="},
		{"binary that is no envelope", func(*testing.T) string { return plainFile("broken", sourcetest.Canary) },
			nil, sources.Invalid, "is not a SOPS file of the format binary", "?format="},
		{"empty", func(*testing.T) string { return plainFile("empty.yaml", "") }, nil, sources.Invalid, "", ""},
		{"json read as binary", func(t *testing.T) string { return put(t, key.Sops(), "noextension", "json", []byte(`{"a": "b"}`)) },
			nil, sources.Invalid, "is not of the format binary", "?format="},
		{"a directory", func(t *testing.T) string { return t.TempDir() }, nil, sources.Invalid, "is not a regular file", ""},
		{"a pipe", func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "pipe.yaml")
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}, nil, sources.Invalid, "is not a regular file", ""},
		{"too large", func(t *testing.T) string {
			path := plainFile("large.yaml", "")
			if err := os.Truncate(path, 16<<20+1); err != nil {
				t.Fatal(err)
			}
			return path
		}, nil, sources.Invalid, "is larger than 16 MiB", ""},
		{"another key", func(*testing.T) string { return encrypted },
			func(t *testing.T) sourcetest.Env { return ageEnv(t, other) }, sources.Denied,
			"cannot be decrypted: no key that it is encrypted for is at hand",
			"it is encrypted for age " + key.Recipient + "; SOPS_AGE_KEY is set, but is the key of another recipient"},
		{"no key", func(*testing.T) string { return encrypted },
			func(t *testing.T) sourcetest.Env { return without(t, "SOPS_AGE_KEY", "") }, sources.Denied,
			"cannot be decrypted: no key that it is encrypted for is at hand",
			"set SOPS_AGE_KEY, or SOPS_AGE_KEY_FILE to the file with the age key"},
		{"no age key at all", func(*testing.T) string { return encrypted },
			func(t *testing.T) sourcetest.Env {
				return without(t, "SOPS_AGE_KEY", "AGE-SECRET-KEY-1"+sourcetest.Canary)
			}, sources.Denied,
			"cannot be decrypted: no key that it is encrypted for is at hand",
			"SOPS_AGE_KEY is set, but is not an age key (AGE-SECRET-KEY-1...)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := env
			if test.env != nil {
				e = test.env(t)
			}
			_, err := fetch(t, e, "sops:"+test.path(t))
			if sources.ClassOf(err) != test.class || err == nil || !strings.HasSuffix(err.Error(), test.what) {
				t.Errorf("class %v: %v", sources.ClassOf(err), err)
			}
			hint := sources.HintOf(err)
			if !strings.Contains(hint, test.hint) {
				t.Errorf("hint: %s", hint)
			}
			if strings.Contains(fmt.Sprintf("%v %#v", err, err), sourcetest.Canary) {
				t.Error("the canary is in the error")
			}
		})
	}
}
