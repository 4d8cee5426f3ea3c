package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/secretfs"
	"secret-init/shim/internal/signals"
	"secret-init/shim/internal/supervise"
)

// Who stays is PID 1, and PID 1 holds no secret. So it is one program in
// three processes:
//
//	start      plans, finds the place, and executes itself anew, empty
//	supervise  is that PID 1: all it has is a duty and a sealed order
//	child      opens the order and does the ordinary start: fetch, write,
//	           drop, exec
//
// The order holds the environment, with the references and the credentials.
// supervise passes its descriptor on and never reads it.

// The words that start the other two. Each is followed by a descriptor.
const (
	superviseWord = "supervise"
	childWord     = "child"
)

// order is what a child is to do.
type order struct {
	Args    []string
	Environ []string
	// Mask is the signal mask that the program was started with.
	Mask  linux.Sigmask
	Place *secretfs.Description

	// session and pipe are given beside it, when values are fetched again.
	session *session
	pipe    *os.File
}

// duty is what PID 1 has to know. No reference, no credential, no value.
type duty struct {
	Order     int // descriptor
	Received  []syscall.Signal
	Group     bool
	Grace     time.Duration
	LogLevel  string
	LogFormat string
	Colour    bool
	Place     *secretfs.Description
	Removal   *removal // nil for never
	Refresh   *refreshing
}

// handOver makes this process the empty supervisor. From the moment that
// signals are blocked none is lost: those caught before go with the duty,
// those after stay pending in the kernel until supervise asks for them.
func (s *startup) handOver(ctx context.Context) error {
	o := order{Args: s.args, Environ: s.environ}
	d := duty{Group: s.plan.SignalGroup, Grace: s.plan.StopGrace, LogLevel: s.plan.LogLevel, LogFormat: s.plan.LogFormat, Colour: s.ui.colour}
	if s.place != nil {
		description := s.place.Describe()
		o.Place, d.Place = &description, &description
	}
	if err := s.planRemoval(&d, &o); err != nil {
		return err
	}
	s.planRefresh(&d)
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- s.replace(ctx, o, d)
	}()
	return <-result
}

func (s *startup) replace(ctx context.Context, o order, d duty) (err error) {
	if o.Mask, d.Received, err = s.holdSignals(ctx); err != nil {
		return err
	}
	if d.Order, err = sealed("secret-init-order", o); err != nil {
		return err
	}
	fd, err := sealed("secret-init-duty", d)
	if err == nil {
		err = linux.Exec(self(), []string{"secret-init", superviseWord, strconv.Itoa(fd)}, nil)
	}
	return fail(exitSystem, "", "staying as a supervisor: %w", err)
}

// holdSignals blocks all signals, so that from here on they stay pending in
// the kernel, and collects those that were received before. mask is that of
// the calling thread until now.
func (s *startup) holdSignals(ctx context.Context) (mask linux.Sigmask, received []syscall.Signal, err error) {
	mask, err = linux.ThreadSigmask(linux.AllSignals)
	if err == nil {
		err = linux.BlockAllThreads()
	}
	if err != nil {
		return mask, nil, err
	}
	signals.Stop()
	s.stopWatching()
	if stop, ok := errors.AsType[interrupted](context.Cause(ctx)); ok {
		return mask, nil, stop
	}
	for len(signals.Caught) > 0 {
		received = append(received, (<-signals.Caught).(syscall.Signal))
	}
	return mask, received, nil
}

// self is this program's path: executed as /proc/self/exe it would be called
// "exe" wherever processes are listed.
func self() string {
	path, err := os.Executable()
	if err != nil || strings.HasSuffix(path, " (deleted)") {
		return "/proc/self/exe"
	}
	return path
}

func sealed(name string, content any) (fd int, err error) {
	text, err := json.Marshal(content)
	if err != nil {
		return -1, err
	}
	return linux.Memory(name, text)
}

// unseal reads what another of the three has left at a descriptor.
func unseal(args []string, content any) (fd int, err error) {
	if len(args) != 1 {
		return -1, fail(exitUsage, "secret-init help", "this is for secret-init's own use")
	}
	fd, err = strconv.Atoi(args[0])
	if err != nil {
		return -1, fail(exitUsage, "secret-init help", "this is for secret-init's own use")
	}
	linux.CloseOnExec(fd)
	text, err := linux.ReadMemory(fd)
	if err == nil {
		err = json.Unmarshal(text, content)
	}
	clear(text)
	if err != nil {
		return -1, fail(exitUsage, "secret-init help", "this is for secret-init's own use")
	}
	return fd, nil
}

// watch is PID 1 once it is empty. It returns the command's exit code.
func watch(args []string, ui *ui) (int, error) {
	if err := guard(); err != nil {
		return 0, err
	}
	var d duty
	fd, err := unseal(args, &d)
	if err != nil {
		return 0, err
	}
	linux.Close(fd)
	ui.colour = d.Colour
	ui.configure(d.LogLevel, d.LogFormat)
	signals.Catch(append(signals.Forwardable(), syscall.SIGCHLD)...)
	for _, received := range d.Received {
		signals.Caught <- received
	}
	supervisor := &supervise.Supervisor{Group: d.Group, Grace: d.Grace, Signals: signals.Caught}
	remover, err := newRemover(&d, supervisor, ui)
	if err != nil {
		if d.Place != nil {
			_ = secretfs.Clear(*d.Place)
		}
		return 0, err
	}
	supervisor.Start = remover.start
	var refresher *refresher
	if d.Refresh != nil {
		if refresher, err = newRefresher(&d, supervisor, ui); err != nil {
			return 0, err
		}
	}
	debug.FreeOSMemory()
	code, err := supervisor.Run()
	if refresher != nil {
		refresher.finish()
	}
	remover.finish()
	return code, err
}

// startChild starts a child on descriptors, the order's first. Like those
// that were inherited they have no close-on-exec flag, and keep their numbers.
func startChild(attr *syscall.SysProcAttr, word string, fds ...int) (int, error) {
	argv := []string{"secret-init", word}
	for _, fd := range fds {
		argv = append(argv, strconv.Itoa(fd))
	}
	pid, err := syscall.ForkExec(self(), argv, &syscall.ProcAttr{Env: []string{}, Files: []uintptr{0, 1, 2}, Sys: attr})
	if err != nil {
		return 0, fmt.Errorf("starting the command: %w", err)
	}
	return pid, nil
}

// serve is the child: an ordinary start, by order. A second descriptor is
// open for as long as the command has not been executed.
func serve(args []string, ui *ui) error {
	var pipe *os.File
	var session *session
	if len(args) == 3 {
		var err error
		if pipe, session, err = keeping(args[1:]); err != nil {
			return err
		}
		args = args[:1]
	}
	if len(args) == 2 {
		fd, err := strconv.Atoi(args[1])
		if err != nil {
			return fail(exitUsage, "secret-init help", "this is for secret-init's own use")
		}
		linux.CloseOnExec(fd)
		args = args[:1]
	}
	o, err := takeOrder(args)
	if err != nil {
		return err
	}
	o.session, o.pipe = session, pipe
	return start(o.Args, o.Environ, o, ui)
}

// takeOrder opens an order, and makes its environment that of this process.
func takeOrder(args []string) (*order, error) {
	var o order
	fd, err := unseal(args, &o)
	if err != nil {
		return nil, err
	}
	linux.Close(fd)
	os.Clearenv()
	for _, v := range o.Environ {
		name, value, _ := strings.Cut(v, "=")
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	return &o, nil
}
