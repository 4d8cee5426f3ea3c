package stay

import (
	"context"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/supervise"
)

// GiveUpTime bounds all that is done once the command has ended.
const GiveUpTime = 2 * time.Second

// refresher is PID 1's side.
type refresher struct {
	*supervise.Refresher
	duty    *Duty
	session int // descriptor
	cancel  context.CancelFunc
}

// newRefresher takes the place of how the supervisor would start the command.
func newRefresher(d *Duty, supervisor *supervise.Supervisor, log *slog.Logger) (*refresher, error) {
	fd, err := linux.Memory("secret-init-session", nil)
	if err != nil {
		return nil, err
	}
	r := &refresher{duty: d, session: fd}
	r.Refresher = &supervise.Refresher{
		Supervisor: supervisor, Schedule: supervise.Schedule{Every: d.Refresh.Every}, Limit: d.Refresh.Limit,
		Signal: d.Refresh.Signal, Restart: d.Refresh.Restart, Grace: d.Refresh.Grace, Warn: func(text string) { log.Warn(text) },
		Start: func(attr *syscall.SysProcAttr) (int, io.ReadCloser, error) { return r.child(attr, Refresh) },
	}
	r.Attach()
	supervisor.Start = func(attr *syscall.SysProcAttr) (int, error) {
		pid, pipe, err := r.child(attr, Child)
		if err == nil {
			r.Executed(pipe)
		}
		return pid, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go r.Run(ctx)
	return r, nil
}

func (r *refresher) child(attr *syscall.SysProcAttr, word string) (pid int, pipe io.ReadCloser, err error) {
	read, write, err := linux.OnExec()
	if err != nil {
		return 0, nil, err
	}
	pid, err = startChild(attr, word, stdio, r.duty.Order, write, r.session)
	linux.Close(write)
	file := os.NewFile(uintptr(read), "pipe")
	if err != nil {
		_ = file.Close()
		return 0, nil, err
	}
	return pid, file, nil
}

// finish is for the command's end: what was obtained is given up.
func (r *refresher) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), GiveUpTime)
	defer cancel()
	r.Interrupt(ctx)
	r.cancel()
	if !r.Session() {
		return
	}
	pid, pipe, err := r.child(&syscall.SysProcAttr{Setpgid: true}, GiveUp)
	if err != nil {
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, pipe)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		_ = linux.Kill(pid, syscall.SIGKILL)
	}
}
