// Package signals catches signals from as early as a Go program can.
//
// Until os/signal.Notify is called, the Go runtime ends the process for a
// TERM, and as PID 1 it does so with the wrong code. The program's other
// packages take some milliseconds to initialise. This one imports next to
// nothing, and packages are initialised in the order of their import paths
// once all that they import is (the Go specification, "Program
// initialization"): so it comes before net/http and all that needs it.
package signals

import (
	"os"
	"os/signal"
	"syscall"
)

// Caught has every signal that Ending lists, from the start of the program.
var Caught = make(chan os.Signal, 256)

// Ending are the signals that end a process which does nothing about them
// and that somebody outside sends (signal(7)).
var Ending = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
}

func init() { Catch(Ending...) }

// Catch sends further signals to Caught. One that was ignored when the
// program started stays ignored (as under nohup), as far as the Go runtime
// tells: it keeps that of HUP and INT alone.
func Catch(list ...os.Signal) {
	for _, s := range list {
		if !signal.Ignored(s) {
			signal.Notify(Caught, s)
		}
	}
}

// Stop ends the catching. What was received before is in Caught when it
// returns. Signals must be blocked by then, or the next one ends the process.
func Stop() { signal.Stop(Caught) }

// Forwardable is every signal that a supervisor can pass on. Missing are
// KILL and STOP, which nobody can catch; CHLD, which is the supervisor's own;
// URG, with which the Go runtime interrupts itself; PROF, which it keeps;
// and 32 to 34, which belong to the C libraries' threads.
func Forwardable() []os.Signal {
	var list []os.Signal
	for s := syscall.Signal(1); s <= 64; s++ {
		switch s {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPROF, 32, 33, 34:
			continue
		}
		list = append(list, s)
	}
	return list
}
