// Package supervise stays as PID 1 beside one command: it passes signals on,
// hands over the terminal, reaps every orphan, and ends as the command ends.
// It holds no secret and knows nothing of where they come from.
package supervise

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"secret-init/shim/internal/linux"
)

// Supervisor runs one command at a time.
type Supervisor struct {
	// Start starts the command as a child. It is called once, and again for
	// every restart.
	Start func(attr *syscall.SysProcAttr) (pid int, err error)
	// Group sends signals to the command's process group, not to it alone.
	Group bool
	// Grace is how long the command has after a TERM; zero is for ever.
	Grace time.Duration
	// Signals are those to pass on. CHLD is none of them.
	Signals <-chan os.Signal

	pid int
	// suspended: we have stopped, because the command has, until a CONT.
	suspended bool
	// stopping is when the command is killed for not having ended.
	stopping <-chan time.Time
	beside   beside
	// calls are done between two signals, for who runs beside the loop.
	calls chan func()
	// restarting: the command is started again when it ends. terminated: it
	// was told to end for good.
	restarting, terminated bool
}

// Run starts the command and returns its exit code: its own, or 128+n when
// signal n ended it.
func (s *Supervisor) Run() (code int, err error) {
	if os.Getpid() != 1 {
		if err := linux.BecomeSubreaper(); err != nil {
			return 0, err
		}
	}
	// os/signal drops what a full channel has no room for. One CHLD stands for
	// any number of children: a channel of its own loses nothing, and leaves
	// the other one to the signals that have to arrive.
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)
	if err := s.start(); err != nil {
		return 0, err
	}
	for {
		select {
		case got := <-s.Signals:
			s.forward(got.(syscall.Signal))
		case <-children:
			code, ended := s.reap()
			if !ended {
				continue
			}
			s.takeTerminal()
			if !s.restarting {
				return code, nil
			}
			s.restarting, s.stopping = false, nil
			if err := s.start(); err != nil {
				return 0, err
			}
		case call := <-s.calls:
			call()
		case <-s.stopping:
			s.send(syscall.SIGKILL)
			s.stopping = nil
		}
	}
}

func (s *Supervisor) start() (err error) {
	// A group of its own, so that the terminal's signals reach the command
	// once: from the terminal, and not from us as well.
	attr := &syscall.SysProcAttr{Setpgid: true}
	if ours() {
		attr.Foreground, attr.Ctty = true, stdin
	}
	s.pid, err = s.Start(attr)
	return err
}

// forward passes a signal on.
func (s *Supervisor) forward(signal syscall.Signal) {
	s.ending(signal)
	if signal == syscall.SIGTERM && s.Grace > 0 && s.stopping == nil {
		s.stopping = time.After(s.Grace)
	}
	if signal == syscall.SIGCONT && s.resume() {
		return
	}
	s.send(signal)
}

func (s *Supervisor) send(signal syscall.Signal) {
	// The command may just have ended: then there is nobody to tell. Or it has
	// left its group, and nobody else is there.
	if !s.Group || errors.Is(linux.Kill(-s.pid, signal), syscall.ESRCH) {
		_ = linux.Kill(s.pid, signal)
	}
}

// reap collects every child that has ended, orphans among them. One CHLD may
// stand for many.
func (s *Supervisor) reap() (code int, ended bool) {
	for {
		child, ok := linux.Reap()
		if !ok {
			return code, ended
		}
		switch {
		case child.PID != s.pid:
			s.beside.ended(child)
		case child.Status.Stopped():
			s.stopped(child.Status.StopSignal())
		default:
			code, ended = exitCode(child), true
		}
	}
}

func exitCode(child linux.Reaped) int {
	if child.Status.Signaled() {
		return 128 + int(child.Status.Signal())
	}
	return child.Status.ExitStatus()
}
