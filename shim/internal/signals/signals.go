// Package signals sees to it that no signal is lost or changed: not before
// the Go runtime is up, not at a hand-over to another program, and not because
// the runtime keeps it to itself.
//
// Until os/signal.Notify is called, the runtime ends the process for a TERM,
// and as PID 1 it does so with the wrong code; before it is up, the kernel
// discards a TERM to PID 1. So the entry point (entry_amd64.s) blocks what
// would be lost, and this package listens as early as it can: it imports next
// to nothing, and packages are initialised in the order of their import paths
// once all that they import is (the Go specification, "Program initialization").
package signals

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	"secret-init/shim/internal/linux"
)

// Caught has every signal that is caught: from the start of the program those
// of Ending.
var Caught = make(chan os.Signal, 256)

// Ending are the signals that end a process which does nothing about them
// and that somebody outside sends (signal(7)).
var Ending = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
}

// One that was ignored when the program started stays ignored, as under nohup.
func init() {
	ignored := Started().Ignored
	for _, s := range Ending {
		if !ignored.Has(s.(syscall.Signal)) {
			signal.Notify(Caught, s)
		}
	}
}

// kept are the signals that the Go runtime keeps to itself: it reports a fault
// of its own with them, stops its threads (URG, 33) or ignores them (PROF);
// 32 and 34 it leaves to C libraries.
var kept = []syscall.Signal{
	syscall.SIGILL, syscall.SIGTRAP, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV,
	syscall.SIGSTKFLT, syscall.SIGSYS, syscall.SIGURG, syscall.SIGPROF, 32, 33, 34,
}

// queued is the first of the real-time signals that os/signal tells of. It
// tells of many but once, where each counts (signal(7)).
const queued = 35

// CatchAll sends every signal to Caught that a supervisor has to pass on: all
// but KILL and STOP, which nobody can catch, and CHLD, which is not for the
// command. One that was ignored is caught as well: it is the command that
// ignores it, or has stopped to.
func CatchAll() error {
	var list []os.Signal
	for s := syscall.Signal(1); s <= linux.LastSignal; s++ {
		if s != syscall.SIGKILL && s != syscall.SIGSTOP && s != syscall.SIGCHLD && !slices.Contains(kept, s) {
			list = append(list, s)
		}
	}
	signal.Notify(Caught, list...)
	return catchKept()
}

// Stop ends the catching. What was received before is in Caught when it
// returns. Signals must be blocked by then, or the next one ends the process.
func Stop() { signal.Stop(Caught) }
