//go:build integration

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"secret-init/tools/servers"
)

// maxPrivateKB is what PID 1 may have for itself, program and all.
const maxPrivateKB = 8 << 10

// TestMemory is PID 1 while it waits, beside the ones that do nothing else.
func TestMemory(t *testing.T) {
	program := servers.BuildShim(t)
	source, config := filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "config.yaml")
	for path, content := range map[string]string{source: "value", config: "secrets:\n  a: {from: file:" + source + "}\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := memoryDir(t)
	// What makes the program bigger: a probe, a socket, refreshes.
	ours := map[string][]string{
		"secret-init --supervise": {program, "--supervise"},
		"secret-init --remove":    {program, "--config", config, "--dir", dir, "--remove", "ready", "--ready", "notify"},
		"secret-init --refresh":   {program, "--config", config, "--dir", dir, "--refresh", "1h"},
	}
	for name, starter := range ours {
		m := waiting(t, starter)
		t.Logf("%s: %+v kB", name, m)
		if m.PrivateClean+m.PrivateDirty > maxPrivateKB {
			t.Errorf("%s has %+v kB", name, m)
		}
	}
	for _, other := range []string{"tini", "dumb-init"} {
		t.Logf("%s: %+v kB", other, waiting(t, []string{servers.Tool(t, other)}))
	}
}

func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "secret-init-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// memory is a process's own (proc_pid_smaps(5)), in kB.
type memory struct{ Rss, PrivateClean, PrivateDirty int }

// waiting starts a command that waits under a PID 1, and measures that.
func waiting(t *testing.T, starter []string) (m memory) {
	t.Helper()
	marker := filepath.Join(t.TempDir(), "up")
	argv := append([]string{"--pid", "--fork", "--mount-proc", "--kill-child"}, starter...)
	cmd := exec.Command("unshare", append(argv, "--", "sh", "-c", "touch "+marker+"; exec sleep 600")...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}()
	servers.WaitFor(t, starter[0], func(context.Context) bool { _, err := os.Stat(marker); return err == nil })
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	proc := "/proc/" + strings.TrimSpace(string(children))
	rollup, err := os.ReadFile(proc + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(rollup)) {
		for name, kB := range map[string]*int{"Rss": &m.Rss, "Private_Clean": &m.PrivateClean, "Private_Dirty": &m.PrivateDirty} {
			_, _ = fmt.Sscanf(line, name+": %d kB", kB)
		}
	}
	if m.Rss == 0 {
		t.Fatalf("no figures in\n%s", rollup)
	}
	return m
}
