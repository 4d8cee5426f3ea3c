package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// build makes a program of one line of code.
func build(t *testing.T, name, code string, env []string, ldflags string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"main.go": "package main\n" + code, "go.mod": "module m\ngo 1.26\n"}
	for file, content := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", ldflags, "-o", path, ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), append([]string{"CGO_ENABLED=0", "GOFLAGS="}, env...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

const (
	marked = "var second = [24]byte{'s', 'e', 'c', 'r', 'e', 't', '-', 'i', 'n', 'i', 't', ':', 's', 't', 'a', 'y'}\n" +
		"//go:noinline\nfunc at(s *[24]byte) [8]byte { return [8]byte(s[16:]) }\n" +
		"func main() { println(\"first\", at(&second) != [8]byte{}) }"
	plain = "func main() { println(\"second\") }"
	above = "-s -w -T 0x40001000"
)

// TestJoin: the first program is what it was, but knows where the second begins.
func TestJoin(t *testing.T) {
	first, second := build(t, "first", marked, nil, "-s -w"), build(t, "second", plain, nil, above)
	if err := join(first, second); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(first).CombinedOutput()
	if err != nil || string(out) != "first true\n" {
		t.Errorf("it says %q: %v", out, err)
	}
	if err := join(first, second); err == nil {
		t.Error("the second program was joined twice")
	}
}

func TestJoinRefuses(t *testing.T) {
	good, second := build(t, "good", marked, nil, "-s -w"), build(t, "second", plain, nil, above)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"+strings.Repeat("#", 100)), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ first, second, want string }{
		"no marker":       {build(t, "unmarked", plain, nil, "-s -w"), second, "exactly once"},
		"same addresses":  {good, build(t, "below", plain, nil, "-s -w"), "link it with -T"},
		"another machine": {good, build(t, "arm", plain, []string{"GOARCH=arm64"}, above), "different machines"},
		"a script":        {script, second, "not a static program"},
		"not there":       {good + "-none", second, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := join(c.first, c.second); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, not %q", err, c.want)
			}
		})
	}
}

// TestHold: where the runtime's table is not as it is known, there is no program.
func TestHold(t *testing.T) {
	first, second := build(t, "first", marked, nil, "-s -w"), build(t, "second", plain, nil, above)
	content, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(content), "SIGTERM: termination", "SIGTEMR: termination", 1)
	if changed == string(content) {
		t.Fatal("the runtime has no name for TERM")
	}
	if err := os.WriteFile(first, []byte(changed), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := join(first, second); err == nil || !strings.Contains(err.Error(), "hold.go") {
		t.Errorf("got %v", err)
	}
}
