package supervise

import (
	"context"
	"fmt"
	"sync"
	"syscall"

	"secret-init/shim/internal/linux"
)

// beside are children other than the command, by pid. There is one reaper for
// all of them, so that nobody else may wait for one.
type beside struct {
	mu      sync.Mutex
	running map[int]chan linux.Reaped
}

// RunBeside runs another child while the supervisor runs, and waits for its
// end: its error is that it could not be started, that its exit code was not
// 0, or that ctx ended, which kills it and its group.
func (s *Supervisor) RunBeside(ctx context.Context, start func(attr *syscall.SysProcAttr) (pid int, err error)) error {
	pid, ended, err := s.beside.start(start)
	if err != nil {
		return err
	}
	select {
	case child := <-ended:
		// What it has left running is not wanted any more.
		_ = linux.Kill(-pid, syscall.SIGKILL)
		if child.Status.Signaled() {
			return fmt.Errorf("it was ended by signal %d", child.Status.Signal())
		}
		if code := child.Status.ExitStatus(); code != 0 {
			return fmt.Errorf("exit code %d", code)
		}
		return nil
	case <-ctx.Done():
		_ = linux.Kill(-pid, syscall.SIGKILL)
		return context.Cause(ctx)
	}
}

// start holds the lock until the child is known: the reaper cannot hand out
// its end before.
func (b *beside) start(start func(attr *syscall.SysProcAttr) (pid int, err error)) (int, <-chan linux.Reaped, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	pid, err := start(&syscall.SysProcAttr{Setpgid: true})
	if err != nil {
		return 0, nil, err
	}
	if b.running == nil {
		b.running = map[int]chan linux.Reaped{}
	}
	ended := make(chan linux.Reaped, 1)
	b.running[pid] = ended
	return pid, ended, nil
}

// ended is for the reaper: a child that is not the command has ended.
func (b *beside) ended(child linux.Reaped) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ended, ok := b.running[child.PID]; ok && !child.Status.Stopped() {
		ended <- child
		delete(b.running, child.PID)
	}
}
