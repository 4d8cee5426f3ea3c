package signals

import (
	"os"
	"os/signal"
	"syscall"

	"secret-init/shim/internal/linux"
)

// Inherited is what a program gets from whoever executes it and the Go
// runtime changes before any Go code runs: what the command has to get back.
type Inherited struct {
	// Mask are the blocked signals, Ignored the ignored ones.
	Mask, Ignored linux.Sigmask
	// Closed has a bit for each of the descriptors 0, 1 and 2 that was closed:
	// the runtime opens /dev/null in its place.
	Closed uint8
}

// What the entry point found; the assembly has the names.
var (
	entered      bool
	startMask    uint64
	startIgnored uint64
	startClosed  uint64
)

// second has the entry point of the program that is PID 1 alone in its last 8
// bytes, where tools/join has put one into the same file. The entry point goes
// there when the first argument is "supervise".
var second = [24]byte{'s', 'e', 'c', 'r', 'e', 't', '-', 'i', 'n', 'i', 't', ':', 's', 't', 'a', 'y'}

// held are the signals that the entry point blocks: each that ends a process
// by default and that os/signal can tell of. Those of job control are left, so
// that a start can be stopped from a shell, and those which the runtime uses.
var held = uint64(linux.AllSignals &^ (1<<(syscall.SIGKILL-1) | 1<<(syscall.SIGSTOP-1) |
	1<<(syscall.SIGCHLD-1) | 1<<(syscall.SIGCONT-1) | 1<<(syscall.SIGTSTP-1) | 1<<(syscall.SIGTTIN-1) | 1<<(syscall.SIGTTOU-1) |
	1<<(syscall.SIGILL-1) | 1<<(syscall.SIGTRAP-1) | 1<<(syscall.SIGBUS-1) | 1<<(syscall.SIGFPE-1) | 1<<(syscall.SIGSEGV-1) |
	1<<(syscall.SIGSTKFLT-1) | 1<<(syscall.SIGSYS-1) | 1<<(syscall.SIGURG-1) | 1<<(syscall.SIGPROF-1) | 1<<31 | 1<<32 | 1<<33))

// Started is what this program was started with. Without the entry point (go
// run, go test) it is as much as the runtime tells: of the ignored signals HUP
// and INT, and no closed descriptor.
func Started() Inherited {
	if entered {
		return Inherited{linux.Sigmask(startMask), linux.Sigmask(startIgnored), uint8(startClosed)}
	}
	i := Inherited{Mask: maskAtInit}
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if ignoredAtInit[s] {
			i.Ignored |= linux.MaskOf(s)
		}
	}
	return i
}

// maskAtInit and ignoredAtInit are from before any Notify.
var (
	maskAtInit, _ = linux.ThreadMask()
	ignoredAtInit = map[syscall.Signal]bool{
		syscall.SIGHUP: signal.Ignored(syscall.SIGHUP), syscall.SIGINT: signal.Ignored(syscall.SIGINT),
	}
)

// Return gives back what was inherited, right before the command is executed
// on this thread. The mask is last: from there on a signal ends the process.
func (i Inherited) Return() error {
	for s := syscall.Signal(1); s <= linux.LastSignal; s++ {
		if i.Ignored.Has(s) {
			if err := linux.SetAction(s, linux.Sigaction{Handler: linux.Ignore}); err != nil {
				return err
			}
		}
	}
	if err := endBySignal(i.Ignored); err != nil {
		return err
	}
	for fd := range 3 {
		if i.Closed&(1<<fd) != 0 {
			linux.Close(fd)
		}
	}
	_, err := linux.ThreadSigmask(i.Mask)
	return err
}

// endBySignal gives the held signals, but for the ignored ones, their default
// action: once they are unblocked the runtime, which nobody asks for them any
// more, would do nothing. Where that is not to end, in PID 1, those of Ending
// end it nevertheless.
func endBySignal(ignored linux.Sigmask) error {
	for s := syscall.Signal(1); s <= linux.LastSignal; s++ {
		if (linux.Sigmask(held) &^ ignored).Has(s) {
			if err := linux.SetAction(s, linux.Sigaction{}); err != nil {
				return err
			}
		}
	}
	if os.Getpid() == 1 {
		return endByExit(ignored)
	}
	return nil
}
