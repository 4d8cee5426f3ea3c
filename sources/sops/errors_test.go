//go:build integration && !no_sops

package sops_test

import (
	"bytes"
	"flag"
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

var update = flag.Bool("update", false, "write testdata/errors.txt anew")

const errorsFile = "testdata/errors.txt"

// changing is what is another in each run: keys, ports and folders.
var changing = regexp.MustCompile(`(age1|ssh-\S+ AAAA|PGP |127\.0\.0\.1:|:key/)[\w+/=-]{4,}|/tmp/Test\w+/\d+`)

// wantLines compares an error with the two lines of this name in errors.txt:
// what a user sees, without the program's name before them.
func wantLines(t *testing.T, name string, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	text := fmt.Sprintf("error: %v\n", err)
	if hint := sources.HintOf(err); hint != "" {
		text += "hint: " + hint + "\n"
	}
	if strings.Contains(text+fmt.Sprintf("%#v", err), sourcetest.Canary) {
		t.Error("the canary is in the error")
	}
	text = changing.ReplaceAllString(text, "${1}…")
	content, readErr := os.ReadFile(errorsFile)
	if readErr != nil && !*update {
		t.Fatal(readErr)
	}
	header := "# " + name + "\n"
	before, rest, found := strings.Cut(string(content), header)
	want, after, _ := strings.Cut(rest, "\n\n")
	if !*update && (!found || text != want+"\n") {
		t.Errorf("%s: now it is\n%sand in %s\n%s", name, text, errorsFile, want)
	}
	if *update {
		if writeErr := os.WriteFile(errorsFile, []byte(before+header+text+"\n"+after), 0o644); writeErr != nil {
			t.Fatal(writeErr)
		}
	}
}

func TestErrors(t *testing.T) {
	key := servers.NewAgeKey(t)
	env := ageEnv(t, key)
	plainFile := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const suffixed = "port_unencrypted: 5432\nvalue: " + sourcetest.Canary + "\n"
	tests := []struct {
		name string
		path func(t *testing.T) string
	}{
		{"an unencrypted value changed", func(t *testing.T) string {
			path := put(t, key.Sops(), "a.yaml", "yaml", []byte(suffixed))
			edit(t, path, func(b []byte) []byte { return bytes.Replace(b, []byte("5432"), []byte("5433"), 1) })
			return path
		}},
		{"an encrypted number changed for its text", func(t *testing.T) string {
			// The type is not covered by the value's own tag: strconv fails on the canary, and quotes it.
			path := put(t, key.Sops(), "a.yaml", "yaml", []byte("value: "+sourcetest.Canary+"\n"))
			edit(t, path, func(b []byte) []byte { return bytes.Replace(b, []byte("type:str"), []byte("type:int"), 1) })
			return path
		}},
		{"a value in the clear", func(t *testing.T) string {
			path := put(t, key.Sops(), "a.yaml", "yaml", []byte("value: x\n"))
			edit(t, path, func(b []byte) []byte {
				return regexp.MustCompile(`(?m)^value: .*$`).ReplaceAll(b, []byte("value: "+sourcetest.Canary))
			})
			return path
		}},
		{"no MAC", func(t *testing.T) string {
			path := put(t, key.Sops(), "a.yaml", "yaml", []byte("value: x\n"))
			edit(t, path, func(b []byte) []byte {
				return regexp.MustCompile(`(?m)^( +)mac: .*$`).ReplaceAll(b, []byte(`${1}mac: ""`))
			})
			return path
		}},
		{"keys swapped", func(t *testing.T) string {
			path := put(t, key.Sops(), "a.yaml", "yaml", []byte("first: one\nother: two\n"))
			edit(t, path, func(b []byte) []byte {
				return bytes.Replace(bytes.Replace(b, []byte("first:"), []byte("third:"), 1), []byte("other:"), []byte("first:"), 1)
			})
			return path
		}},
		{"not encrypted", func(*testing.T) string { return plainFile("plain.yaml", "value: "+sourcetest.Canary+"\n") }},
		{"not encrypted, dotenv", func(*testing.T) string { return plainFile("plain.env", "VALUE="+sourcetest.Canary+"\n") }},
		{"no dotenv at all", func(*testing.T) string { return plainFile("broken.env", sourcetest.Canary+"\n") }},
		{"no YAML at all", func(*testing.T) string { return plainFile("broken.yaml", "{"+sourcetest.Canary) }},
		{"binary that is no envelope", func(*testing.T) string { return plainFile("broken", sourcetest.Canary) }},
		{"empty", func(*testing.T) string { return plainFile("empty.yaml", "") }},
		{"json read as binary", func(t *testing.T) string { return put(t, key.Sops(), "noextension", "json", []byte(`{"a": "b"}`)) }},
		{"a directory", func(t *testing.T) string { return t.TempDir() }},
		{"a pipe", func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "pipe.yaml")
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}},
		{"too large", func(t *testing.T) string {
			path := plainFile("large.yaml", "")
			if err := os.Truncate(path, 16<<20+1); err != nil {
				t.Fatal(err)
			}
			return path
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := fetch(t, env, "sops:"+test.path(t))
			if err == nil || sources.ClassOf(err) != sources.Invalid {
				t.Errorf("class %v", sources.ClassOf(err))
			}
			wantLines(t, test.name, err)
		})
	}
	_, err := fetch(t, env, "sops:"+t.TempDir()+"/absent.yaml")
	wantLines(t, "a file that does not exist", err)
}
