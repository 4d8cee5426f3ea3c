package stay

import (
	"context"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/supervise"
)

// remover removes the files while the command runs, and for certain at its end.
type remover struct {
	duty  *Duty
	log   *slog.Logger
	probe *supervise.Probe // nil without
	// notify is nil without; command is the pid that may send to it.
	notify  *supervise.Notify
	command atomic.Int64
	around  supervise.Surroundings
	done    chan struct{}
	cancel  context.CancelFunc
	removed bool
}

func newRemover(d *Duty, supervisor *supervise.Supervisor, log *slog.Logger) *remover {
	r := &remover{duty: d, log: log, done: make(chan struct{}), cancel: func() {}}
	close(r.done)
	r.around.Exec = func(ctx context.Context) error { return supervisor.RunBeside(ctx, r.startProbe) }
	return r
}

// prepare comes before the command is started: so that a file probe knows
// what was there before, and the command finds its socket.
func (r *remover) prepare() (err error) {
	d := r.duty
	if d.Removal == nil || d.Removal.Ready == "" {
		return nil
	}
	if r.probe, err = supervise.ParseProbe(d.Removal.Ready); err != nil || d.Removal.Notify == "" {
		return err
	}
	var relayErr error
	r.notify, relayErr, err = supervise.ListenNotify(d.Removal.Notify, d.Removal.Upward, func() int { return int(r.command.Load()) })
	if err != nil {
		return err
	}
	if relayErr != nil {
		r.log.Warn("messages of the command are not passed on: " + relayErr.Error())
	}
	r.around.Notified = r.notify.Ready()
	go r.notify.Serve()
	return nil
}

// start starts the command's child, and the watch for the end of its startup.
func (r *remover) start(attr *syscall.SysProcAttr) (pid int, err error) {
	if r.duty.Removal == nil {
		return startChild(attr, Child, stdio, r.duty.Order)
	}
	read, write, err := linux.OnExec()
	if err != nil {
		return 0, err
	}
	pid, err = startChild(attr, Child, stdio, r.duty.Order, write)
	linux.Close(write)
	pipe := os.NewFile(uintptr(read), "pipe")
	if err != nil {
		_ = pipe.Close()
		return 0, err
	}
	r.command.Store(int64(pid))
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan struct{})
	started := make(chan struct{})
	go func() {
		defer pipe.Close()
		// Nobody writes: it ends when the command has been executed.
		_, _ = pipe.Read(make([]byte, 1))
		close(started)
	}()
	go func() {
		defer close(r.done)
		r.run(ctx, started)
	}()
	return pid, nil
}

// run waits for the end of startup, and removes the files.
func (r *remover) run(ctx context.Context, started <-chan struct{}) {
	select {
	case <-started:
	case <-ctx.Done():
		return
	}
	limit := r.duty.Removal.After
	if r.probe != nil {
		limit = r.duty.Removal.Timeout
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if r.probe == nil {
		<-limited.Done()
	} else if err := r.probe.Await(limited, r.around); err != nil && ctx.Err() == nil {
		r.log.Warn("the command was not ready within " + limit.String() + " (" + r.probe.String() + ": " + err.Error() + "); its secret files stay")
		return
	}
	if ctx.Err() == nil {
		r.remove()
	}
}

// finish is for the command's end.
func (r *remover) finish() {
	r.cancel()
	<-r.done
	if r.notify != nil {
		r.notify.Close()
	}
	r.remove()
}

func (r *remover) remove() {
	if r.duty.Place != nil && !r.removed {
		r.removed = clearPlace(r.duty.Place, r.log)
	}
}

// startProbe starts the command of an exec probe. It says nothing: the
// command's log would have a complaint for every attempt.
func (r *remover) startProbe(attr *syscall.SysProcAttr) (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	return startChild(attr, Probe, []uintptr{null.Fd(), null.Fd(), null.Fd()}, r.duty.Order)
}
