//go:build integration

package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"secret-init/tools/servers"
)

// startsInCI is few, so that it takes seconds: SIGNAL_STARTS=10000 is for more.
const startsInCI = 300

// testStartTerm sends a TERM at a random moment of the first 50 ms. Each start
// ends within a second, by it or with the command's own answer.
func testStartTerm(t *testing.T) {
	starts := startsInCI
	fromEnvironment(t, "SIGNAL_STARTS", &starts)
	var byDefault, answered, early atomic.Int64
	var lost, slowest atomic.Int64
	inParallel(numbersFrom(1, starts), func(n int) {
		// Four kinds: PID 1 or not, staying or not.
		pid1, stays := n%2 == 0, n%4 < 2
		program := []string{supervisePrograms.shim}
		if stays {
			program = append(program, "--supervise")
		}
		args := arguments(pid1, append(program, "--", "/bin/sh", "-c", `trap 'exit 5' TERM; echo; while :; do sleep 0.05; done`)...)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		pid := awaitProgram(cmd.Process.Pid)
		if pid == 0 {
			t.Errorf("start %d: no secret-init was seen", n)
		}
		delay := time.Duration(rand.Int64N(int64(50 * time.Millisecond)))
		time.Sleep(delay)
		began := time.Now()
		_ = syscall.Kill(pid, syscall.SIGTERM)
		ours := executable(pid) == supervisePrograms.shim
		if ours {
			early.Add(1)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cmd.Wait()
		}()
		// PID 1 that has no trap yet loses a TERM, by the kernel's rule, and
		// execve(2) takes what was not yet delivered to there. So where the
		// shell is PID 1 the next one may have to end it.
		for pid1 && !stays {
			over := false
			select {
			case <-ended:
				over = true
			case <-time.After(300 * time.Millisecond):
			}
			if over || executable(pid) == supervisePrograms.shim {
				break
			}
			if ours {
				ours = false
				lost.Add(1)
			}
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
		select {
		case <-ended:
		case <-time.After(patience):
			_ = syscall.Kill(pid, syscall.SIGKILL)
			<-ended
		}
		took := time.Since(began)
		for slowest.Load() < int64(took) {
			slowest.Store(int64(took))
		}
		switch code := exitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus)); code {
		case 143:
			byDefault.Add(1)
		case 5:
			answered.Add(1)
		default:
			t.Errorf("start %d (PID 1 %t, staying %t), TERM after %v: exit code %d after %v", n, pid1, stays, delay, code, took)
		}
	})
	if limit := int64(2 + starts/100); lost.Load() > limit {
		t.Errorf("%d TERMs were lost during the execve of a command that is PID 1: more than %d", lost.Load(), limit)
	}
	t.Logf("%d starts: %d ended by TERM, %d answered; the TERM came to secret-init itself in %d, and to its execve in %d of them; the slowest end took %v",
		starts, byDefault.Load(), answered.Load(), early.Load(), lost.Load(), time.Duration(slowest.Load()).Round(time.Millisecond))
}

func exitStatus(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// awaitProgram waits until a process or its child is the program, and has run
// its first instructions: a signal that comes before is not for us. It may
// already be the shell. It gives that one's pid.
func awaitProgram(pid int) int {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Microsecond) {
		for _, pid := range append([]int{pid}, childrenOf(pid)...) {
			path := executable(pid)
			if path == shellPath || path == supervisePrograms.shim && minds(pid, syscall.SIGTERM) {
				return pid
			}
		}
	}
	return 0
}

// minds reports whether a process blocks or catches a signal (proc_pid_status(5)).
func minds(pid int, signal syscall.Signal) bool {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if name, text, _ := strings.Cut(line, ":"); name == "SigBlk" || name == "SigCgt" {
			mask, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			if err == nil && mask&(1<<(signal-1)) != 0 {
				return true
			}
		}
	}
	return false
}

// shellPath is where /bin/sh is a link to.
var shellPath, _ = filepath.EvalSymlinks("/bin/sh")

// TestHeldSignals: a signal that comes while secrets are fetched, and that
// nobody asks for, ends the start or the command, as it would without us.
func TestHeldSignals(t *testing.T) {
	shim := servers.BuildShim(t)
	for _, signal := range []syscall.Signal{syscall.SIGPIPE, syscall.SIGXCPU, syscall.SIGABRT, 40} {
		asked, release := make(chan struct{}, 100), make(chan struct{})
		vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked <- struct{}{}
			<-release
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"errors":[]}`))
		}))
		cmd := exec.Command(shim, "--", "sh", "-c", "sleep 1; exit 9")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "VAULT_ADDR=" + vault.URL, "VAULT_TOKEN=t", "A=vault:secret/a?optional=true#b"}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-asked
		if err := cmd.Process.Signal(signal); err != nil {
			t.Error(err)
		}
		close(release)
		_ = cmd.Wait()
		vault.Close()
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != signal {
			t.Errorf("%v: it ended with %v", signal, cmd.ProcessState)
		}
	}
}
