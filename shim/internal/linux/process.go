package linux

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sigmask is a set of blocked signals, a bit for each (sigprocmask(2)).
type Sigmask uint64

// AllSignals blocks whatever can be blocked.
const AllSignals = ^Sigmask(0)

// ThreadSigmask sets the calling thread's mask, and returns the one before.
func ThreadSigmask(mask Sigmask) (before Sigmask, err error) {
	err = retry("rt_sigprocmask", func() error {
		return errno(unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
			uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&before)), unsafe.Sizeof(mask), 0, 0))
	})
	return before, err
}

// BlockAllThreads blocks every signal on every thread that there is now: what
// is sent from here on stays pending until somebody unblocks it, be it after
// an execve(2). A program with cgo cannot do that; there only the calling
// thread is blocked.
func BlockAllThreads() error {
	mask := AllSignals
	_, _, e := syscall.AllThreadsSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&mask)), 0, unsafe.Sizeof(mask), 0, 0)
	if e != 0 && !errors.Is(e, syscall.ENOTSUP) {
		return os.NewSyscallError("rt_sigprocmask", e)
	}
	_, err := ThreadSigmask(AllSignals)
	return err
}

// Pending are the signals that have come and are blocked (sigpending(2)).
func Pending() (Sigmask, error) {
	var set Sigmask
	err := retry("rt_sigpending", func() error {
		return errno(unix.RawSyscall(unix.SYS_RT_SIGPENDING, uintptr(unsafe.Pointer(&set)), unsafe.Sizeof(set), 0))
	})
	return set, err
}

// Has reports whether a signal is in the set.
func (m Sigmask) Has(signal syscall.Signal) bool { return m&(1<<(signal-1)) != 0 }

// Memory is an anonymous file that a child is to inherit: it has no path,
// and execve(2) leaves it open.
func Memory(name string, content []byte) (int, error) {
	fd := -1
	err := retry("memfd_create", func() (err error) {
		fd, err = unix.MemfdCreate(name, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	if err := Write(fd, content); err != nil {
		Close(fd)
		return -1, err
	}
	return fd, nil
}

// ReadMemory reads an inherited file from its beginning. The position, which
// is shared with whoever else has it, stays where it is.
func ReadMemory(fd int) ([]byte, error) {
	stat, err := Fstat(fd)
	if err != nil {
		return nil, err
	}
	content := make([]byte, stat.Size)
	for done := 0; done < len(content); {
		n := 0
		err := retry("pread", func() (err error) {
			n, err = unix.Pread(fd, content[done:], int64(done))
			return err
		})
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return content[:done], nil
		}
		done += n
	}
	return content, nil
}

// CloseOnExec keeps a descriptor from the programs that are executed.
func CloseOnExec(fd int) { unix.CloseOnExec(fd) }

// Kill is kill(2).
func Kill(pid int, signal syscall.Signal) error {
	return retry("kill", func() error { return unix.Kill(pid, signal) })
}

// Reaped is a child whose state has changed (wait(2)).
type Reaped struct {
	PID    int
	Status unix.WaitStatus
}

// Reap collects one child that has ended or stopped, without waiting. ok is
// false when there is none.
func Reap() (reaped Reaped, ok bool) {
	for {
		pid, err := unix.Wait4(-1, &reaped.Status, unix.WNOHANG|unix.WUNTRACED, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		reaped.PID = pid
		return reaped, err == nil && pid > 0
	}
}

// BecomeSubreaper makes orphans below this process its own children, as they
// are PID 1's (PR_SET_CHILD_SUBREAPER in prctl(2), Linux 3.4).
func BecomeSubreaper() error {
	return Prctl("prctl(PR_SET_CHILD_SUBREAPER)", unix.PR_SET_CHILD_SUBREAPER, 1, 0)
}

// Foreground is the process group in the foreground of the terminal fd; an
// error says that fd is no terminal of ours.
func Foreground(fd int) (pgrp int, err error) {
	err = retry("tcgetpgrp", func() (err error) {
		pgrp, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return pgrp, err
}

// SetForeground puts a process group into the foreground of a terminal. TTOU
// must be blocked or ignored, since a process in the background gets it here.
func SetForeground(fd, pgrp int) error {
	return retry("tcsetpgrp", func() error { return unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, pgrp) })
}

// Urgent is a descriptor that reads the URG signals which are blocked
// (signalfd(2)).
func Urgent() (int, error) {
	var set unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGURG - 1)
	fd := -1
	err := retry("signalfd", func() (err error) {
		fd, err = unix.Signalfd(-1, &set, unix.SFD_CLOEXEC)
		return err
	})
	return fd, err
}
