// Package supervise stays as PID 1 beside one command: it passes signals on,
// hands over the terminal, reaps every orphan, and ends as the command ends.
// It holds no secret and knows nothing of where they come from.
package supervise

import (
	"os"
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
	// Signals are those to pass on, CHLD among them.
	Signals <-chan os.Signal

	pid      int
	terminal bool
	// stopping is when the command is killed for not having ended.
	stopping <-chan time.Time
	beside   beside
	// calls are done between two signals, for who runs beside the loop.
	calls chan func()
	// restarting: the command is started again when it ends. terminated: it
	// was told to end for good.
	restarting, terminated bool
}

// stdin is where the terminal is, if there is one.
const stdin = 0

// Run starts the command and returns its exit code: its own, or 128+n when
// signal n ended it.
func (s *Supervisor) Run() (code int, err error) {
	if os.Getpid() != 1 {
		if err := linux.BecomeSubreaper(); err != nil {
			return 0, err
		}
	}
	if err := s.start(); err != nil {
		return 0, err
	}
	for {
		select {
		case got := <-s.Signals:
			if got != syscall.SIGCHLD {
				s.forward(got.(syscall.Signal))
				continue
			}
			code, ended := s.reap()
			if ended && !s.restarting {
				return code, nil
			}
			if ended {
				s.restarting, s.stopping = false, nil
				if err := s.start(); err != nil {
					return 0, err
				}
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
	group, err := linux.Foreground(stdin)
	if s.terminal = err == nil && (group == syscall.Getpgrp() || s.terminal); s.terminal {
		attr.Foreground, attr.Ctty = true, stdin
	}
	s.pid, err = s.Start(attr)
	return err
}

// forward passes a signal on. A stop signal stops the command; whether we
// stop too is decided when it has.
func (s *Supervisor) forward(signal syscall.Signal) {
	s.ending(signal)
	if signal == syscall.SIGTERM && s.Grace > 0 && s.stopping == nil {
		s.stopping = time.After(s.Grace)
	}
	s.send(signal)
}

func (s *Supervisor) send(signal syscall.Signal) {
	target := s.pid
	if s.Group {
		target = -s.pid
	}
	// The command may just have ended: then there is nobody to tell.
	_ = linux.Kill(target, signal)
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

// stopped: the command was stopped from the keyboard. Under a shell we stop
// as well, so that the shell sees it, and go on when it lets us. As PID 1
// there is no shell to go back to, and a command that were PID 1 itself
// would not have stopped at all.
func (s *Supervisor) stopped(by syscall.Signal) {
	if !s.terminal || by == syscall.SIGSTOP {
		return
	}
	if os.Getpid() != 1 {
		_ = linux.SetForeground(stdin, syscall.Getpgrp())
		_ = linux.Kill(os.Getpid(), syscall.SIGSTOP)
		// The shell's fg puts us into the foreground, its bg does not.
		if group, err := linux.Foreground(stdin); err == nil && group == syscall.Getpgrp() {
			_ = linux.SetForeground(stdin, s.pid)
		}
	}
	_ = linux.Kill(-s.pid, syscall.SIGCONT)
}
