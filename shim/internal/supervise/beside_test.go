package supervise

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// runBeside runs a shell's text, and reaps that child as the supervisor's
// loop does.
func runBeside(t *testing.T, ctx context.Context, script string) error {
	t.Helper()
	s := &Supervisor{}
	return s.RunBeside(ctx, func(attr *syscall.SysProcAttr) (int, error) {
		pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{Sys: attr})
		if err != nil {
			return 0, err
		}
		// The end may be known before RunBeside has noted the pid.
		go func() {
			var status unix.WaitStatus
			if _, err := unix.Wait4(pid, &status, 0, nil); err == nil {
				s.beside.ended(linux.Reaped{PID: pid, Status: status})
			}
		}()
		return pid, nil
	})
}

func TestRunBeside(t *testing.T) {
	for script, text := range map[string]string{"exit 0": "", "exit 3": "exit code 3", "kill -9 $$": "it was ended by signal 9"} {
		want(t, script, runBeside(t, t.Context(), script), text)
	}
	s := &Supervisor{}
	refused := errors.New("refused")
	err := s.RunBeside(t.Context(), func(*syscall.SysProcAttr) (int, error) { return 0, refused })
	if !errors.Is(err, refused) {
		t.Error(err)
	}
}

// When the time is over, the child and what it has started are gone.
func TestRunBesideIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := runBeside(t, ctx, "sleep 600 & echo $! >"+file+"; wait")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d runs on", pid)
	_ = syscall.Kill(pid, syscall.SIGKILL)
}
