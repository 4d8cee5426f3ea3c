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

// ThreadMask is the calling thread's mask.
func ThreadMask() (Sigmask, error) {
	var mask Sigmask
	err := retry("rt_sigprocmask", func() error {
		return errno(unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, 0, uintptr(unsafe.Pointer(&mask)), unsafe.Sizeof(mask), 0, 0))
	})
	return mask, err
}

// LastSignal is the highest number of a signal.
const LastSignal syscall.Signal = 64

// Sigaction is what a signal does (struct kernel_sigaction, in the order of
// most architectures).
type Sigaction struct {
	Handler  uintptr
	Flags    uintptr
	Restorer uintptr
	Mask     Sigmask
}

// Ignore is the handler of a signal that is ignored (SIG_IGN).
const Ignore = 1

// Action is a signal's action (sigaction(2)).
func Action(signal syscall.Signal) (action Sigaction, err error) {
	return action, sigaction(signal, nil, &action)
}

// SetAction sets a signal's action for the whole process.
func SetAction(signal syscall.Signal, action Sigaction) error {
	return sigaction(signal, &action, nil)
}

func sigaction(signal syscall.Signal, set, get *Sigaction) error {
	return retry("rt_sigaction", func() error {
		return errno(unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(get)), unsafe.Sizeof(Sigmask(0)), 0, 0))
	})
}

// SignalPipe is a pipe for a signal handler: writing to it never blocks.
func SignalPipe() (read, write int, err error) {
	fds := [2]int{-1, -1}
	err = retry("pipe2", func() error { return unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) })
	return fds[0], fds[1], err
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
func (m Sigmask) Has(signal syscall.Signal) bool { return m&MaskOf(signal) != 0 }

// MaskOf is the set of one signal.
func MaskOf(signal syscall.Signal) Sigmask { return 1 << (signal - 1) }

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

// Terminal reports whether fd is a terminal, and how many columns it has; 0
// where it does not know (ioctl_tty(2), TIOCGWINSZ).
func Terminal(fd int) (columns int, ok bool) {
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	return int(size.Col), true
}

// PassCredentials makes every message of a unix socket come with its sender's
// pid, uid and gid (SO_PASSCRED in unix(7)).
func PassCredentials(fd int) error {
	return retry("setsockopt(SO_PASSCRED)", func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
}

// OnExec gives two ends of a pipe: the first is at its end once every holder
// of the second has closed it. The second one is inherited by the programs
// that are executed, until one of them calls CloseOnExec.
func OnExec() (read, write int, err error) {
	fds := [2]int{-1, -1}
	err = retry("pipe2", func() error { return unix.Pipe2(fds[:], unix.O_CLOEXEC) })
	if err == nil {
		err = retry("fcntl(F_SETFD)", func() error {
			_, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETFD, 0)
			return err
		})
	}
	return fds[0], fds[1], err
}

// SendMessage sends one datagram with descriptors on a connected socket
// (sendmsg(2)). net.UnixConn cannot: it refuses WriteMsgUnix on one.
func SendMessage(fd int, data []byte, descriptors []int) error {
	var rights []byte
	if len(descriptors) > 0 {
		rights = unix.UnixRights(descriptors...)
	}
	return retry("sendmsg", func() error { return unix.Sendmsg(fd, data, rights, nil, unix.MSG_NOSIGNAL) })
}
