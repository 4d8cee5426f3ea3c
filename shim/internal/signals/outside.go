//go:build amd64 || arm64

package signals

import (
	"os"
	"slices"
	"syscall"

	"secret-init/shim/internal/linux"
)

// The assembly's handlers, and what they use.
var (
	self           int32
	pipe           int32
	runtimeHandler uintptr
	startAction    [4]uint64
)

func outsideHandler() uintptr
func endHandler() uintptr

// catchKept sends those of the kept signals to Caught that another process
// has sent, and each of the real-time signals. The runtime goes on to get its
// own.
func catchKept() error {
	// Any of its handlers: there is one for all.
	action, err := linux.Action(syscall.SIGURG)
	if err != nil {
		return err
	}
	read, write, err := linux.SignalPipe()
	if err != nil {
		return err
	}
	self, pipe, runtimeHandler = int32(os.Getpid()), int32(write), action.Handler
	action.Handler = outsideHandler()
	for s := syscall.Signal(1); s <= linux.LastSignal; s++ {
		if s < queued && !slices.Contains(kept, s) {
			continue
		}
		if err := linux.SetAction(s, action); err != nil {
			return err
		}
	}
	go func() {
		file := os.NewFile(uintptr(read), "signals")
		for buf := make([]byte, 1); ; {
			if n, err := file.Read(buf); err != nil || n == 0 {
				return
			}
			Caught <- syscall.Signal(buf[0])
		}
	}()
	return nil
}

// endByExit has the signals that end a process, but for the ignored ones, end
// it with the code 128+n. It is for PID 1 between its last look at what is
// pending and the command: their default action is none there.
func endByExit(ignored linux.Sigmask) error {
	action, err := linux.Action(syscall.SIGURG)
	if err != nil {
		return err
	}
	action.Handler = endHandler()
	for _, ending := range Ending {
		if s := ending.(syscall.Signal); !ignored.Has(s) {
			if err := linux.SetAction(s, action); err != nil {
				return err
			}
		}
	}
	return nil
}
