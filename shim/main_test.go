package main

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"secret-init/shim/internal/plan"
	"secret-init/tools/servers"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"secret-init": func() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) },
	})
}

var update = flag.Bool("update", false, "write what the scripts of testdata get into what they expect")

// TestScripts runs the sessions in testdata: the program as a user has it, in
// a directory of its own in /dev/shm, with the real sops command.
func TestScripts(t *testing.T) {
	key := servers.NewAgeKey(t)
	tools := filepath.Dir(servers.Tool(t, "sops"))
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("/dev/shm", "secret-init-test-")
			if err != nil {
				return err
			}
			env.Defer(func() { _ = os.RemoveAll(dir) })
			env.Setenv("SECRET_INIT_DIR", dir)
			env.Setenv("SOPS_AGE_KEY", key.Identity)
			env.Setenv("RECIPIENT", key.Recipient)
			env.Setenv("UID", strconv.Itoa(os.Getuid()))
			env.Setenv("PATH", env.Getenv("PATH")+":"+tools)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"fails": fails, "empty": empty, "clean": clean},
	})
}

// fails CODE COMMAND...: the command must end with that code.
func fails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, not %s", code, args[0])
	}
}

// empty DIR: nothing is in the directory.
func empty(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] empty DIR")
	}
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if (len(entries) == 0) == neg {
		ts.Fatalf("%s has %v", args[0], entries)
	}
}

// clean DIR: what is in the directory is removed.
func clean(ts *testscript.TestScript, _ bool, args []string) {
	for _, dir := range args {
		entries, err := os.ReadDir(ts.MkAbs(dir))
		ts.Check(err)
		for _, entry := range entries {
			ts.Check(os.Remove(filepath.Join(ts.MkAbs(dir), entry.Name())))
		}
	}
}

func TestReadmeHasTheUsage(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(readme), "\n    ", "\n")
	if !strings.Contains(string(readme), usage) && !strings.Contains(text, usage) {
		t.Error("README.md does not have the usage text word for word")
	}
}

func TestUsageHasEveryOption(t *testing.T) {
	var documented, known []string
	for _, match := range regexp.MustCompile(`(?m)^    --([a-z-]+)( [A-Z]|  )`).FindAllStringSubmatch(usage, -1) {
		documented = append(documented, match[1])
		i := slices.IndexFunc(plan.Table, func(o plan.Option) bool { return o.Name == match[1] })
		if i < 0 || plan.Table[i].Flag != (match[2] == "  ") {
			t.Errorf("--%s is documented, and is not an option of that form", match[1])
		}
	}
	for _, option := range plan.Table {
		// Nothing acted on these when this was written: no help for them until then.
		pending := []string{"remove", "ready", "ready-timeout", "refresh", "on-change"}
		if slices.Contains(pending, option.Name) && !slices.Contains(documented, option.Name) {
			continue
		}
		known = append(known, option.Name)
	}
	slices.Sort(documented)
	slices.Sort(known)
	if !slices.Equal(documented, known) {
		t.Errorf("documented: %v\nknown:      %v", documented, known)
	}
}

func TestUsageHasEveryExitCode(t *testing.T) {
	for _, code := range append(slices.Clone(precedence), exitBug) {
		if !strings.Contains(usage, "\n    "+strconv.Itoa(code)+" ") {
			t.Errorf("exit code %d is not in the usage text", code)
		}
	}
}
