//go:build integration

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"secret-init/tools/servers"
)

// refreshed is a command whose secrets are fetched again.
type refreshed struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd

	mu     sync.Mutex
	output bytes.Buffer
	ended  chan struct{}
	code   int
}

func (r *refreshed) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.output.Write(b)
}

// said is all that the program and its command have said.
func (r *refreshed) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.output.String()
}

// refreshProgram is built by TestRefresh.
var refreshProgram string

// TestRefresh is the program itself, which stays as a subreaper here, with real sources.
func TestRefresh(t *testing.T) {
	refreshProgram = servers.BuildShim(t)
	tests := map[string]func(*testing.T){
		"sops":               testRefreshSops,
		"not caught":         testRefreshNotCaught,
		"on change":          testRefreshOnChange,
		"restart":            testRefreshRestart,
		"restart while down": testRefreshRestartDown,
		"vault down":         testRefreshVaultDown,
		"aws":                testRefreshAWS,
		"pid 1":              testRefreshPID1,
		"lease":              testRefreshLease,
		"lease over":         testRefreshLeaseOver,
		"gives up":           testRefreshGivesUp,
		"rounds":             testRefreshRounds,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// startRefreshed starts a shell script under secret-init with options.
func startRefreshed(t *testing.T, env []string, script string, options ...string) *refreshed {
	t.Helper()
	return startCommand(t, env, []string{"bash", "-c", script}, options...)
}

func startCommand(t *testing.T, env, command []string, options ...string) *refreshed {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "secret-init-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &refreshed{t: t, dir: dir, ended: make(chan struct{})}
	r.cmd = exec.Command(refreshProgram, slices.Concat([]string{"--dir", dir}, options, []string{"--"}, command)...)
	r.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	r.cmd.Stdout, r.cmd.Stderr = r, r
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.ended)
		_ = r.cmd.Wait()
		r.code = r.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		r.end(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("it said:\n%s", r.said())
		}
	})
	return r
}

// end sends a signal, and gives the exit code.
func (r *refreshed) end(signal syscall.Signal) int {
	_ = r.cmd.Process.Signal(signal)
	select {
	case <-r.ended:
	case <-time.After(20 * time.Second):
		r.t.Error("it does not end")
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	}
	return r.code
}

// await waits until the output has text n times.
func (r *refreshed) await(text string, n int) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); strings.Count(r.said(), text) < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("not said %d times: %q", n, text)
		}
	}
}

func (r *refreshed) file(name string) string {
	r.t.Helper()
	content, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.t.Error(err)
	}
	return string(content)
}

// clean: nothing is left.
func (r *refreshed) clean() {
	r.t.Helper()
	entries, err := os.ReadDir(r.dir)
	if err != nil || len(entries) > 0 {
		r.t.Errorf("%v is left (%v)", entries, err)
	}
}

// on writes a handler's output; the loop lets bash run handlers soon.
const (
	onHUP = `trap 'echo "HUP $(cat $A_FILE) $(cat $B_FILE)"' HUP; `
	loop  = `echo "started $(cat $A_FILE)"; while :; do sleep 0.05; done`
)

// hang has Vault take requests and answer none.
func hang(vault *servers.Vault, release <-chan struct{}) {
	vault.Intercept(func(http.ResponseWriter, *http.Request) bool {
		<-release
		return true
	})
}

type sopsFile struct {
	t    *testing.T
	key  servers.AgeKey
	path string
}

func newSopsFile(t *testing.T, value string) sopsFile {
	s := sopsFile{t, servers.NewAgeKey(t), filepath.Join(t.TempDir(), "secrets.json")}
	s.put(value)
	return s
}

// put replaces the file at once, as editors do: half a file is not the point here.
func (s sopsFile) put(value string) {
	s.t.Helper()
	s.key.Sops().EncryptFile(s.t, s.path+".new", "json", []byte(`{"a": "`+value+`", "b": "`+value+`"}`))
	if err := os.Rename(s.path+".new", s.path); err != nil {
		s.t.Fatal(err)
	}
}

func (s sopsFile) env() []string {
	return []string{"SOPS_AGE_KEY=" + s.key.Identity, "A=sops:" + s.path + "#a", "B=sops:" + s.path + "#b"}
}

func testRefreshSops(t *testing.T) {
	file := newSopsFile(t, "one")
	r := startRefreshed(t, file.env(), onHUP+loop, "--refresh", "200ms")
	r.await("started one", 1)
	before, _ := os.Readlink(filepath.Join(r.dir, "..data"))
	time.Sleep(time.Second)
	if now, _ := os.Readlink(filepath.Join(r.dir, "..data")); now != before || before == "" {
		t.Errorf("%q became %q, and nothing had changed", before, now)
	}
	file.put("two")
	r.await("HUP two two", 1)
	if err := os.Rename(file.path, file.path+".away"); err != nil {
		t.Fatal(err)
	}
	r.await("ago stay", 3)
	if got := r.file("a"); got != "two" {
		t.Errorf("the file has %q", got)
	}
	file.put("three")
	r.await("HUP three three", 1)
	if n := strings.Count(r.said(), "HUP"); n != 2 {
		t.Errorf("%d signals for 2 changes", n)
	}
	time.Sleep(settleTime + 200*time.Millisecond)
	if entries, _ := filepath.Glob(filepath.Join(r.dir, "..data_*")); len(entries) != 1 {
		t.Errorf("old files are left: %v", entries)
	}
	if code := r.end(syscall.SIGTERM); code != 128+15 {
		t.Errorf("exit code %d", code)
	}
	r.clean()
}

func testRefreshNotCaught(t *testing.T) {
	file := newSopsFile(t, "one")
	r := startRefreshed(t, file.env(), loop, "--refresh", "200ms")
	r.await("started one", 1)
	for _, value := range []string{"two", "three"} {
		file.put(value)
		for deadline := time.Now().Add(10 * time.Second); r.file("a") != value; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the file has %q, not %q", r.file("a"), value)
			}
		}
	}
	time.Sleep(500 * time.Millisecond)
	if n := strings.Count(r.said(), "does not catch the signal 1 (hangup)"); n != 1 {
		t.Errorf("%d warnings", n)
	}
	if code := r.end(syscall.SIGTERM); code != 128+15 {
		t.Errorf("exit code %d: HUP ended the command?", code)
	}
}

func testRefreshOnChange(t *testing.T) {
	for _, option := range []string{"USR1", "none"} {
		t.Run(option, func(t *testing.T) {
			t.Parallel()
			file := newSopsFile(t, "one")
			r := startRefreshed(t, file.env(), `trap 'echo USR1 $(cat $B_FILE)' USR1; trap 'echo HUP' HUP; `+loop, "--refresh", "200ms", "--on-change", option)
			r.await("started one", 1)
			file.put("two")
			if option == "USR1" {
				r.await("USR1 two", 1)
			}
			time.Sleep(time.Second)
			if r.file("a") != "two" || strings.Contains(r.said(), "HUP") || strings.Contains(r.said(), "USR1") != (option == "USR1") {
				t.Errorf("the file has %q", r.file("a"))
			}
		})
	}
}

func testRefreshRestart(t *testing.T) {
	vault := servers.StartVault(t)
	vault.PutKV("app", map[string]string{"a": "one", "b": "one"})
	env := []string{"VAULT_ADDR=" + vault.Address, "VAULT_TOKEN=" + vault.RootToken, "A=vault:secret/app#a", "B=vault:secret/app#b", "OTHER=kept"}
	// The second of them does not end by itself.
	script := `echo "pid $$ $OTHER $(cat $B_FILE) [$VAULT_TOKEN]"; trap 'echo TERM; [ $(cat $A_FILE) = three ] || exit 0' TERM; ` + loop
	r := startRefreshed(t, env, script, "--refresh", "200ms", "--on-change", "restart", "--stop-grace", "700ms")
	r.await("started one", 1)
	vault.PutKV("app", map[string]string{"a": "two", "b": "two"})
	r.await("started two", 1)
	vault.PutKV("app", map[string]string{"a": "three", "b": "three"})
	r.await("started three", 1)
	if said := r.said(); strings.Count(said, "TERM") != 2 || strings.Count(said, "kept") != 3 || !strings.Contains(said, "kept three []") {
		t.Error("not the same command as before")
	}
	began := time.Now()
	if code := r.end(syscall.SIGTERM); code != 128+9 || time.Since(began) < 600*time.Millisecond {
		t.Errorf("exit code %d after %v", code, time.Since(began))
	}
	if n := strings.Count(r.said(), "started"); n != 3 {
		t.Errorf("started %d times", n)
	}
	r.clean()
}

// testRefreshRestartDown: a restart needs no source.
func testRefreshRestartDown(t *testing.T) {
	vault := servers.StartVault(t)
	vault.PutKV("app", map[string]string{"a": "one", "b": "one"})
	env := []string{"VAULT_ADDR=" + vault.Address, "VAULT_TOKEN=" + vault.RootToken, "A=vault:secret/app#a", "B=vault:secret/app#b"}
	r := startRefreshed(t, env, `trap 'sleep 1; exit 0' TERM; `+loop, "--refresh", "200ms", "--on-change", "restart")
	r.await("started one", 1)
	vault.PutKV("app", map[string]string{"a": "two", "b": "two"})
	for r.file("a") != "two" {
		time.Sleep(5 * time.Millisecond)
	}
	vault.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	r.await("started two", 1)
	r.await("ago stay", 1)
	vault.Forget()
	vault.PutKV("app", map[string]string{"a": "three", "b": "three"})
	r.await("started three", 1)
}

func testRefreshVaultDown(t *testing.T) {
	vault := servers.StartVault(t)
	vault.PutKV("app", map[string]string{"a": "one", "b": "one"})
	env := []string{"VAULT_ADDR=" + vault.Address, "VAULT_TOKEN=" + vault.RootToken, "A=vault:secret/app#a", "B=vault:secret/app#b"}
	r := startRefreshed(t, env, onHUP+loop, "--refresh", "3s")
	r.await("started one", 1)
	vault.Seal()
	r.await("ago stay", 3)
	vault.Unseal()
	vault.PutKV("app", map[string]string{"a": "two", "b": "two"})
	r.await("HUP two two", 1)
	var ages []string
	for _, match := range regexp.MustCompile(`the values of (\S+) ago stay`).FindAllStringSubmatch(r.said(), -1) {
		ages = append(ages, match[1])
	}
	// After 3 s, then pauses of 1 and 2 s, each 10 % more or less.
	if len(ages) < 3 || !slices.Contains([]string{"3s", "4s"}, ages[0]) || slices.Compact(slices.Clone(ages))[0] == ages[2] {
		t.Errorf("ages %v", ages)
	}
	if strings.Contains(r.said(), vault.RootToken) {
		t.Error("the token is in the log")
	}
}

func testRefreshAWS(t *testing.T) {
	moto := servers.StartMoto(t)
	const region, name = "eu-central-1", "app"
	moto.PutSecret(t, region, name, []byte(`{"a":"one","b":"one"}`), true)
	env := []string{"AWS_REGION=" + region, "A=aws-sm:app#a", "B=aws-sm:app#b"}
	for key, value := range moto.Env() {
		env = append(env, key+"="+value)
	}
	r := startRefreshed(t, env, onHUP+loop, "--refresh", "500ms")
	r.await("started one", 1)
	moto.Call(t, "secretsmanager", region, "secretsmanager.PutSecretValue", map[string]any{"SecretId": name, "SecretString": `{"a":"two","b":"two"}`})
	r.await("HUP two two", 1)
	// A new version with the same value is no change.
	moto.Call(t, "secretsmanager", region, "secretsmanager.PutSecretValue", map[string]any{"SecretId": name, "SecretString": `{"a":"two","b":"two"}`})
	time.Sleep(1500 * time.Millisecond)
	if n := strings.Count(r.said(), "HUP"); n != 1 {
		t.Errorf("%d signals", n)
	}
}

// testRefreshPID1: what PID 1 holds, and what it does not.
func testRefreshPID1(t *testing.T) {
	file := newSopsFile(t, "one-canary")
	r := startRefreshed(t, file.env(), onHUP+loop, "--refresh", "200ms")
	r.await("started one-canary", 1)
	file.put("two-canary")
	r.await("HUP two-canary", 1)
	pid := r.cmd.Process.Pid
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || len(environ) > 0 {
		t.Errorf("PID 1 has the environment %q (%v)", environ, err)
	}
	memory := memoryOf(t, pid)
	for _, text := range []string{"two-canary", file.key.Identity} {
		if bytes.Contains(memory, []byte(text)) {
			t.Errorf("PID 1's memory holds %q", text)
		}
	}
	if !bytes.Contains(memory, []byte("secret-init-session")) {
		t.Error("the memory that was searched is not PID 1's")
	}
}

// memoryOf reads a process's writable private memory.
func memoryOf(t *testing.T, pid int) (content []byte) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || mode[0] != 'r' || to-from > 1<<30 {
			continue
		}
		part := make([]byte, to-from)
		if n, err := memory.ReadAt(part, from); err == nil || n > 0 {
			content = append(content, part[:n]...)
		}
	}
	return content
}

// footprint is what testRefreshRounds compares.
type footprint struct{ Descriptors, Threads, Files, MemoryKB int }

func (r *refreshed) footprint() (s footprint) {
	r.t.Helper()
	pid := r.cmd.Process.Pid
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		r.t.Fatal(err)
	}
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	s.Descriptors, s.Threads = len(fds), len(tasks)
	_ = filepath.Walk(r.dir, func(string, os.FileInfo, error) error { s.Files++; return nil })
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(rollup)) {
		var kb int
		if _, err := fmt.Sscanf(line, "Private_Dirty: %d kB", &kb); err == nil {
			s.MemoryKB += kb
		}
	}
	return s
}

// child is the pid of the child that refreshes, a child of any thread
// (proc_pid_task_tid_children(5)); empty when there is none.
func (r *refreshed) child() string {
	r.t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", r.cmd.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, list := range lists {
		// A thread may have ended, and a child.
		pids, _ := os.ReadFile(list)
		for _, pid := range strings.Fields(string(pids)) {
			if argv, _ := os.ReadFile("/proc/" + pid + "/cmdline"); bytes.Contains(argv, []byte("\x00refresh\x00")) {
				return pid
			}
		}
	}
	return ""
}

// fromEnvironment is for longer runs by hand: REFRESH_ROUNDS=10000.
func fromEnvironment(t *testing.T, name string, value any) {
	t.Helper()
	if text := os.Getenv(name); text != "" {
		if err := json.Unmarshal([]byte(text), value); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// testRefreshRounds: many refreshes, of which a part changes the files, leave
// PID 1 and the tmpfs as they were.
func testRefreshRounds(t *testing.T) {
	// One that changes something lasts a second longer.
	rounds, changeEvery := 200, 20
	fromEnvironment(t, "REFRESH_ROUNDS", &rounds)
	dir := t.TempDir()
	source := filepath.Join(dir, "secret")
	config := filepath.Join(dir, "config.yaml")
	put := func(n int) {
		t.Helper()
		if err := os.WriteFile(source+".new", fmt.Appendf(nil, "value-%d", n), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(source+".new", source); err != nil {
			t.Fatal(err)
		}
	}
	put(0)
	if err := os.WriteFile(config, []byte("secrets:\n  a: file:"+source+"\n  b: file:"+source+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startRefreshed(t, nil, onHUP+loop, "--config", config, "--refresh", "1ms", "--log-level", "debug")
	r.await("started value-0", 1)
	seen, last := 0, ""
	var before footprint
	for n := 1; seen < rounds; {
		if now := r.child(); now != "" && now != last {
			seen, last = seen+1, now
			if seen%changeEvery == 0 {
				put(n)
				n++
			}
			if seen == rounds/5 {
				before = r.footprint()
			}
		}
		time.Sleep(time.Millisecond)
	}
	after := r.footprint()
	t.Logf("%d rounds, %d changes: %+v became %+v", seen, strings.Count(r.said(), "HUP"), before, after)
	if after.Descriptors > before.Descriptors+1 || after.Threads > before.Threads+3 || after.Files > before.Files+4 || after.MemoryKB > before.MemoryKB+2048 {
		t.Errorf("it has grown: %+v became %+v", before, after)
	}
	if strings.Contains(r.said(), "warning") {
		t.Error("there were warnings")
	}
	if code := r.end(syscall.SIGTERM); code != 128+15 {
		t.Errorf("exit code %d", code)
	}
	r.clean()
}
