package stay

import (
	"errors"
	"io"
	"log/slog"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/logs"
	"secret-init/shim/internal/privdrop"
	"secret-init/shim/internal/secretfs"
	"secret-init/shim/internal/signals"
	"secret-init/shim/internal/supervise"
)

// Exit codes of PID 1 itself (section "Exit codes" of the manual).
const (
	exitUsage  = 64
	exitSystem = 71
)

// Main is PID 1. args are what follows the word Supervise. It returns the
// command's exit code: its own, or 128+n when signal n ended it.
func Main(args []string, stderr io.Writer) (code int) {
	log := logs.New(stderr, "warn", "text", false)
	var d Duty
	err := privdrop.Guard()
	if err == nil {
		var fd int
		if fd, err = Unseal(args, &d); err == nil {
			linux.Close(fd)
			log = logs.New(stderr, d.LogLevel, d.LogFormat, d.Colour)
			code, err = run(&d, log)
		}
	}
	switch {
	case err == nil:
		return code
	case errors.Is(err, ErrNotOurs):
		log.Error(err.Error(), "hint", "secret-init help")
		return exitUsage
	}
	log.Error("staying as a supervisor: "+err.Error(), "hint", "check the container's security options (seccomp, pids limit)")
	return exitSystem
}

// run has the command started, and leaves nothing that was written.
func run(d *Duty, log *slog.Logger) (code int, err error) {
	if err := signals.CatchAll(); err != nil {
		return 0, err
	}
	for _, received := range d.Received {
		signals.Caught <- received
	}
	supervisor := &supervise.Supervisor{Group: d.Group, Grace: d.Grace, Signals: signals.Caught}
	remover := newRemover(d, supervisor, log)
	defer remover.finish()
	if err := remover.prepare(); err != nil {
		return 0, err
	}
	supervisor.Start = remover.start
	if d.Refresh != nil {
		refresher, err := newRefresher(d, supervisor, log)
		if err != nil {
			return 0, err
		}
		// Before the files go: a refresh that is running writes some.
		defer refresher.finish()
	}
	supervise.Rest()
	return supervisor.Run()
}

// clearPlace removes what was written at a place.
func clearPlace(place *secretfs.Description, log *slog.Logger) (removed bool) {
	if err := secretfs.Clear(*place); err != nil {
		log.Warn("secret files cannot be removed: " + err.Error())
		return false
	}
	log.Info("secret files removed", "dir", place.Path)
	return true
}
