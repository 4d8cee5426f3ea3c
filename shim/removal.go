package main

import (
	"context"
	"crypto/rand"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/secretfs"
	"secret-init/shim/internal/supervise"
)

// probeWord starts a third kind of child, which does as much of a start as it
// takes to run the command of an exec probe: who, with which variables.
const probeWord = "probe"

// removal is the part of a duty that ends with no file being left.
type removal struct {
	// After is counted from the start of the command; zero for Ready.
	After   time.Duration
	Ready   string
	Timeout time.Duration
	// Notify is the name of the socket that the command was given, and Upward
	// that of the one which we were given.
	Notify, Upward string
}

// findProbe refuses a probe that cannot be read before anything is fetched.
func (s *startup) findProbe(context.Context) error {
	if s.plan.Ready == "" {
		return nil
	}
	if _, err := supervise.ParseProbe(s.plan.Ready); err != nil {
		return fail(exitUsage, "it is one of "+supervise.ProbeForms(), "--ready: %w", err)
	}
	return nil
}

// planRemoval adds to the duty what the options ask for, and to the order the
// socket that the command is to notify.
func (s *startup) planRemoval(d *duty, o *order) error {
	if s.plan.Remove.Never() || s.place == nil {
		return nil
	}
	d.Removal = &removal{After: s.plan.Remove.After, Timeout: s.plan.ReadyTimeout}
	if !s.plan.Remove.OnReady {
		return nil
	}
	probe, err := supervise.ParseProbe(s.plan.Ready)
	if err != nil {
		return err
	}
	d.Removal.Ready = probe.String()
	if probe.UsesNotify() {
		d.Removal.Notify = "@secret-init-" + rand.Text()
		d.Removal.Upward = os.Getenv(notifyVariable)
		o.Environ = slices.DeleteFunc(slices.Clone(o.Environ), func(v string) bool { return strings.HasPrefix(v, notifyVariable+"=") })
		o.Environ = append(o.Environ, notifyVariable+"="+d.Removal.Notify)
	}
	return nil
}

const notifyVariable = "NOTIFY_SOCKET"

// remover removes the files while the command runs, and for certain at its end.
type remover struct {
	duty  *duty
	ui    *ui
	probe *supervise.Probe // nil without
	// notify is nil without; command is the pid that may send to it.
	notify  *supervise.Notify
	command atomic.Int64
	around  supervise.Surroundings
	done    chan struct{}
	cancel  context.CancelFunc
	removed bool
}

// newRemover gets ready before the command is started: so that a file probe
// knows what was there before, and the command finds its socket.
func newRemover(d *duty, supervisor *supervise.Supervisor, ui *ui) (r *remover, err error) {
	r = &remover{duty: d, ui: ui, done: make(chan struct{}), cancel: func() {}}
	close(r.done)
	if d.Removal == nil || d.Removal.Ready == "" {
		return r, nil
	}
	if r.probe, err = supervise.ParseProbe(d.Removal.Ready); err != nil {
		return nil, err
	}
	r.around.Exec = func(ctx context.Context) error {
		return supervisor.RunBeside(ctx, func(attr *syscall.SysProcAttr) (int, error) { return startProbe(d, attr) })
	}
	if d.Removal.Notify == "" {
		return r, nil
	}
	var relayErr error
	r.notify, relayErr, err = supervise.ListenNotify(d.Removal.Notify, d.Removal.Upward, func() int { return int(r.command.Load()) })
	if err != nil {
		return nil, fail(exitSystem, "use another --ready probe", "%w", err)
	}
	if relayErr != nil {
		ui.warn("messages of the command are not passed on: " + relayErr.Error())
	}
	r.around.Notified = r.notify.Ready()
	go r.notify.Serve()
	return r, nil
}

// start starts the command's child, and the watch for the end of its startup.
func (r *remover) start(attr *syscall.SysProcAttr) (pid int, err error) {
	if r.duty.Removal == nil {
		return startChild(attr, childWord, r.duty.Order)
	}
	read, write, err := linux.OnExec()
	if err != nil {
		return 0, err
	}
	pid, err = startChild(attr, childWord, r.duty.Order, write)
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
		r.ui.warn("the command was not ready within " + limit.String() + " (" + r.probe.String() + ": " + err.Error() + "); its secret files stay")
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
	if r.duty.Place == nil || r.removed {
		return
	}
	if err := secretfs.Clear(*r.duty.Place); err != nil {
		r.ui.warn("secret files cannot be removed: " + err.Error())
		return
	}
	r.removed = true
	r.ui.info("secret files removed", "dir", r.duty.Place.Path)
}

// startProbe starts the command of an exec probe. It says nothing: the
// command's log would have a complaint for every attempt.
func startProbe(d *duty, attr *syscall.SysProcAttr) (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(self(), []string{"secret-init", probeWord, strconv.Itoa(d.Order)}, &syscall.ProcAttr{
		Env: []string{}, Files: []uintptr{null.Fd(), null.Fd(), null.Fd()}, Sys: attr,
	})
	return pid, err
}

// answer is the child that runs the command of an exec probe.
func answer(args []string, ui *ui) error {
	if err := guard(); err != nil {
		return err
	}
	o, err := takeOrder(args)
	if err != nil {
		return err
	}
	s, err := newStartup(o.Args, o.Environ, ui)
	if err != nil {
		return err
	}
	s.order = o
	s.plan.Existing = "use"
	if s.plan.Command, err = supervise.ProbeCommand(s.plan.Ready); err != nil {
		return err
	}
	ctx, done := s.deadline()
	defer done()
	for _, step := range []func(context.Context) error{s.findCommand, s.identify, s.findProvided, s.findDelivered, s.become} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}
