package supervise

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// The command has a process group of its own, and a shell that started us
// knows ours alone. So what the shell does to our group is done to the
// command's: it gets the foreground of the terminal when we do, and we stop
// when it has. Signals that the terminal itself sends go to the group in the
// foreground, and so to the command, once.

// stdin is where the terminal is, if there is one.
const stdin = 0

// ours: there is a terminal, and our group is in its foreground.
func ours() bool {
	group, err := linux.Foreground(stdin)
	return err == nil && group == syscall.Getpgrp()
}

// setForeground blocks TTOU, which a process that is in the background itself
// gets for this call otherwise. Ignoring it would do as well, but the command
// would inherit that.
func setForeground(group int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mask, err := linux.ThreadMask()
	if err != nil {
		return
	}
	if _, err := linux.ThreadSigmask(mask | linux.MaskOf(syscall.SIGTTOU)); err != nil {
		return
	}
	// The terminal may just have gone: then it is in nobody's foreground.
	_ = linux.SetForeground(stdin, group)
	_, _ = linux.ThreadSigmask(mask)
}

// giveTerminal gives the command the foreground, if it is ours or nobody's.
// It reports whether the command may use the terminal, or has none to use.
func (s *Supervisor) giveTerminal() bool {
	group, err := linux.Foreground(stdin)
	if err != nil || group == s.pid {
		return true
	}
	if group != syscall.Getpgrp() && linux.Kill(-group, 0) == nil {
		return false
	}
	setForeground(s.pid)
	return true
}

// takeTerminal takes the foreground back from the command, which has stopped
// or ended, for a script that goes on in our group. The foreground of another
// group, such as a shell's, stays, unless the session is ours: then there is
// no shell.
func (s *Supervisor) takeTerminal() {
	group, err := linux.Foreground(stdin)
	if err != nil || group == syscall.Getpgrp() {
		return
	}
	session, err := unix.Getsid(0)
	if group == s.pid || linux.Kill(-group, 0) != nil || err == nil && session == os.Getpid() {
		setForeground(syscall.Getpgrp())
	}
}

// stopped: the command has stopped. Where a shell looks after us we stop as
// well, so that it sees that, and go on when it lets us. Elsewhere nobody
// would ever let us go on, and the kernel would not have stopped the command
// in our place: it goes on.
func (s *Supervisor) stopped(by syscall.Signal) {
	group, err := linux.Foreground(stdin)
	alone := orphaned()
	switch by {
	case syscall.SIGTSTP:
		if alone {
			s.goOn()
			return
		}
	case syscall.SIGTTIN, syscall.SIGTTOU:
		// It wants the terminal. One that may not have it, and went on, would
		// ask again and again: it waits.
		if (alone || err == nil && group == syscall.Getpgrp()) && s.giveTerminal() {
			s.goOn()
			return
		}
		if alone {
			return
		}
	default:
		// STOP: who sent it lets the command go on again. But a shell has to
		// know of what was in the foreground.
		if alone || err != nil || group != s.pid {
			return
		}
	}
	s.takeTerminal()
	s.suspended = true
	_ = linux.Kill(os.Getpid(), syscall.SIGSTOP)
}

// goOn lets all of the command's group go on.
func (s *Supervisor) goOn() { _ = linux.Kill(-s.pid, syscall.SIGCONT) }

// resume: we may go on. A shell's fg has put us into the foreground, its bg
// has not. Where we had stopped, the command's group goes on as a whole, as
// the shell would have it.
func (s *Supervisor) resume() (done bool) {
	if ours() {
		s.giveTerminal()
	}
	if !s.suspended {
		return false
	}
	s.suspended = false
	s.goOn()
	return true
}

// orphaned: no process of our session outside of our group is the parent of
// one in it, as a shell with job control is ("orphaned process group" in
// credentials(7)). The kernel stops no such group from the terminal, and
// neither PID 1.
func orphaned() bool {
	group := syscall.Getpgrp()
	session, err := unix.Getsid(0)
	if err != nil || os.Getpid() == 1 {
		return true
	}
	for parent := os.Getppid(); parent > 0; {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(parent) + "/stat")
		if err != nil {
			return true
		}
		// state ppid pgrp session follow the name, which may hold anything but
		// ends with the last bracket (proc_pid_stat(5)).
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 4 {
			return true
		}
		if string(fields[2]) != strconv.Itoa(group) {
			return string(fields[3]) != strconv.Itoa(session)
		}
		if parent, err = strconv.Atoi(string(fields[1])); err != nil {
			return true
		}
	}
	return true
}
