package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/secretfs"
	"secret-init/shim/internal/signals"
	"secret-init/shim/internal/stay"
)

// order is what a child is to do.
type order struct {
	Args    []string
	Environ []string
	// Inherited is what the program was started with; PID is who it was.
	Inherited signals.Inherited
	PID       int
	Place     *secretfs.Description

	// session and pipe are given beside it, when values are fetched again.
	session *session
	pipe    *os.File
}

// handOver makes this process the empty supervisor. From the moment that
// signals are blocked none is lost: those caught before go with the duty,
// those after stay pending in the kernel until supervise asks for them.
func (s *startup) handOver(ctx context.Context) error {
	o := order{Args: s.args, Environ: s.environ, Inherited: signals.Started(), PID: os.Getpid()}
	d := stay.Duty{Group: s.plan.SignalGroup, Grace: s.plan.StopGrace, LogLevel: s.plan.LogLevel, LogFormat: s.plan.LogFormat, Colour: s.ui.colour}
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

func (s *startup) replace(ctx context.Context, o order, d stay.Duty) (err error) {
	if d.Received, err = s.holdSignals(ctx); err != nil {
		return err
	}
	if d.Order, err = stay.Seal("secret-init-order", o); err != nil {
		return err
	}
	fd, err := stay.Seal("secret-init-duty", d)
	if err == nil {
		err = linux.Exec(stay.Program(), []string{"secret-init", stay.Supervise, strconv.Itoa(fd)}, nil)
	}
	return fail(exitSystem, "", "staying as a supervisor: %w", err)
}

// holdSignals blocks all signals, so that from here on they stay pending in
// the kernel, and collects those that were received before.
func (s *startup) holdSignals(ctx context.Context) (received []syscall.Signal, err error) {
	if err := linux.BlockAllThreads(); err != nil {
		return nil, err
	}
	signals.Stop()
	s.stopWatching()
	if stop, ok := errors.AsType[interrupted](context.Cause(ctx)); ok {
		return nil, stop
	}
	for len(signals.Caught) > 0 {
		received = append(received, (<-signals.Caught).(syscall.Signal))
	}
	return received, nil
}

// serve is the child: an ordinary start, by order. What other descriptors it
// gets are open for as long as the command has not been executed.
func serve(args []string, ui *ui) error {
	if len(args) == 0 {
		return stay.ErrNotOurs
	}
	o, err := takeOrder(args[:1])
	if err != nil {
		return err
	}
	switch rest := args[1:]; len(rest) {
	case 1:
		_, err = stay.Descriptor(rest[0])
	case 2:
		o.pipe, o.session, err = keeping(rest)
	}
	if err != nil {
		return err
	}
	return start(o.Args, o.Environ, o, ui)
}

// takeOrder opens an order, and makes its environment that of this process.
func takeOrder(args []string) (*order, error) {
	var o order
	fd, err := stay.Unseal(args, &o)
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

// readdress has the variables that are for one process alone name this one,
// if they named who was started: LISTEN_PID in sd_listen_fds(3), WATCHDOG_PID
// in sd_watchdog_enabled(3).
func (o *order) readdress(environ []string) {
	for i, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		if (name == "LISTEN_PID" || name == "WATCHDOG_PID") && value == strconv.Itoa(o.PID) {
			environ[i] = name + "=" + strconv.Itoa(os.Getpid())
		}
	}
}
