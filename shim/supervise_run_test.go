//go:build integration

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is for what happens at once on a machine that does nothing else.
const patience = 30 * time.Second

// eventually waits for a condition.
func eventually(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ready(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// transcript is what was said so far.
type transcript struct {
	t      *testing.T
	mu     sync.Mutex
	output bytes.Buffer
}

func (s *transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.Write(b)
}

func (s *transcript) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.String()
}

// count is how often a line was said.
func (s *transcript) count(line string) (n int) {
	for said := range strings.Lines(s.said()) {
		if strings.TrimRight(said, "\r\n") == line {
			n++
		}
	}
	return n
}

// await waits until a line was said n times.
func (s *transcript) await(line string, n int) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); s.count(line) < n; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%q was not said %d times:\n%s", line, n, s.said())
		}
	}
}

// supervised is the program with a command.
type supervised struct {
	transcript
	cmd *exec.Cmd
	// pid is the program's, as it is seen from here.
	pid   int
	stdin *os.File
	ended chan struct{}
	code  int
}

// arguments are those of a start: as PID 1, or of the program itself.
func arguments(pid1 bool, program ...string) []string {
	if pid1 {
		return append([]string{"unshare", "--pid", "--fork", "--mount-proc"}, program...)
	}
	return program
}

// startSupervised starts a command, which says "waiting" or the like when it
// is there: until then signals are not for it.
func startSupervised(t *testing.T, pid1 bool, options, command []string, change ...func(*exec.Cmd)) *supervised {
	t.Helper()
	args := arguments(pid1, slices.Concat([]string{supervisePrograms.shim, "--supervise"}, options, []string{"--"}, command)...)
	s := &supervised{transcript: transcript{t: t}, cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
	s.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "COMMAND=" + supervisePrograms.command}
	stdin, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdin, s.stdin = stdin, write
	s.cmd.Stdout, s.cmd.Stderr = s, s
	s.cmd.WaitDelay = time.Second
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for _, change := range change {
		change(s.cmd)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = stdin.Close()
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait()
		s.code = s.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		s.kill()
		_ = write.Close()
	})
	s.pid = s.cmd.Process.Pid
	if pid1 {
		eventually(t, "unshare starts PID 1", func() bool {
			for _, pid := range childrenOf(s.cmd.Process.Pid) {
				s.pid = pid
			}
			return s.pid != s.cmd.Process.Pid || s.over()
		})
	}
	return s
}

func (s *supervised) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// kill ends it and all that it started.
func (s *supervised) kill() {
	if !s.over() {
		for pids := []int{s.cmd.Process.Pid}; len(pids) > 0; pids = pids[1:] {
			pids = append(pids, childrenOf(pids[0])...)
			_ = syscall.Kill(pids[0], syscall.SIGKILL)
		}
	}
	<-s.ended
}

// wait waits for its end and gives the exit code.
func (s *supervised) wait() int {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatalf("it does not end:\n%s", s.said())
	}
	return s.code
}

func (s *supervised) send(signal syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(s.pid, signal); err != nil {
		s.t.Fatalf("sending %d: %v", int(signal), err)
	}
}

// child is the pid of the command, which is the only child.
func (s *supervised) child() (pid int) {
	s.t.Helper()
	eventually(s.t, "one child", func() bool {
		children := childrenOf(s.pid)
		if len(children) == 1 {
			pid = children[0]
		}
		return len(children) == 1
	})
	return pid
}

// childrenOf are the children of all of a process's threads, zombies among them.
func childrenOf(pid int) (pids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for _, field := range strings.Fields(string(text)) {
			child, _ := strconv.Atoi(field)
			pids = append(pids, child)
		}
	}
	return pids
}

// statOf is a process's line in proc_pid_stat(5) after its name, from the
// state on; nil when there is no such process.
func statOf(pid int) []string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

// state is a letter of proc_pid_stat(5): T for stopped, Z for a zombie.
func state(pid int) string {
	if stat := statOf(pid); len(stat) > 0 {
		return stat[0]
	}
	return ""
}

// groupOf is a process's group.
func groupOf(pid int) int {
	group, _ := syscall.Getpgid(pid)
	return group
}

// inParallel runs a few of many cases at the same time.
func inParallel[T any](cases []T, run func(T)) {
	var group sync.WaitGroup
	work := make(chan T)
	for range 4 {
		group.Go(func() {
			for c := range work {
				run(c)
			}
		})
	}
	for _, c := range cases {
		work <- c
	}
	close(work)
	group.Wait()
}

// runSupervised runs a command to its end.
func runSupervised(t *testing.T, pid1 bool, command ...string) (code int, output string) {
	t.Helper()
	args := arguments(pid1, append([]string{supervisePrograms.shim, "--supervise", "--"}, command...)...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return -1, ""
	}
	defer time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }).Stop()
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String()
}

func numbersFrom(from, to int, without ...int) (list []int) {
	for n := from; n <= to; n++ {
		if !slices.Contains(without, n) {
			list = append(list, n)
		}
	}
	return list
}
