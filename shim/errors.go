package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/plan"
	"secret-init/shim/internal/privdrop"
	"secret-init/shim/internal/secretfs"
	"secret-init/shim/internal/stay"
	"secret-init/sources"
)

// Exit codes: sysexits(3) where it has one, the shell's for the rest.
const (
	exitUsage       = 64
	exitNotFound    = 66
	exitUnavailable = 69
	exitBug         = 70
	exitSystem      = 71
	exitNoPlace     = 73
	exitDenied      = 77
	exitNotExec     = 126
	exitNoCommand   = 127
	exitSignal      = 128
)

// commandHint is the same wherever the command was looked for.
const commandHint = `write the absolute path that it has in the image, as in CMD ["/usr/local/bin/app"]`

// capabilityHint serves a start and an offline check.
const capabilityHint = "write it as capabilities(7) does: --keep-cap NET_BIND_SERVICE"

// failure is an error with an exit code and a hint of its own.
type failure struct {
	code int
	err  error
	hint string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(code int, hint, format string, args ...any) error {
	return &failure{code, fmt.Errorf(format, args...), hint}
}

// interrupted: a signal ended the start.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string {
	return "ended by " + unix.SignalName(i.signal) + " before the command ran"
}

// classCodes are the exit codes of the four classes.
var classCodes = map[sources.Class]int{
	sources.Invalid: exitUsage, sources.Denied: exitDenied,
	sources.NotFound: exitNotFound, sources.Unavailable: exitUnavailable,
}

// precedence is the order in which the code of several faults is chosen.
var precedence = []int{exitUsage, exitDenied, exitNotFound, exitUnavailable, exitNoPlace, exitSystem, exitNotExec, exitNoCommand}

// exitCode is the one place that turns an error into an exit code.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if faults, ok := errors.AsType[plan.Faults](err); ok {
		i := len(precedence)
		for _, fault := range faults {
			if n := slices.Index(precedence, exitCode(fault.Err)); n >= 0 {
				i = min(i, n)
			}
		}
		return append(precedence, exitSystem)[i]
	}
	if stop, ok := errors.AsType[interrupted](err); ok {
		return exitSignal + int(stop.signal)
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	if _, ok := errors.AsType[*secretfs.NoPlaceError](err); ok || errors.Is(err, secretfs.Full) {
		return exitNoPlace
	}
	if errors.Is(err, stay.ErrNotOurs) {
		return exitUsage
	}
	if e, ok := errors.AsType[*sources.Error](err); ok {
		return classCodes[e.Class]
	}
	return exitSystem
}

// hintOf is the hint for an error, from whoever knows one.
func hintOf(err error) string {
	if f, ok := errors.AsType[*failure](err); ok && f.hint != "" {
		return f.hint
	}
	if e, ok := errors.AsType[*secretfs.NoPlaceError](err); ok {
		return e.Hint()
	}
	if errors.Is(err, secretfs.Full) {
		return "docker run --tmpfs /run/secrets:size=16m; or raise --shm-size"
	}
	if e, ok := errors.AsType[*privdrop.MissingCapabilityError](err); ok {
		asUser := "start the container as that user (docker run --user " + e.User + "), and leave --user out"
		if os.Geteuid() != 0 {
			// Docker gives a user who is not root no capability to use, even one that is added.
			return asUser
		}
		return "docker run --cap-add " + strings.Join(e.Missing, " --cap-add ") + "; or " + asUser
	}
	switch {
	case errors.Is(err, stay.ErrNotOurs):
		return "secret-init help"
	case errors.Is(err, privdrop.ErrSetuid):
		return "chmod ug-s the binary"
	}
	if _, ok := errors.AsType[*secretfs.OwnerError](err); ok {
		return "docker run --cap-add CHOWN; or start the container as that user"
	}
	if hint := sources.HintOf(err); hint != "" || exitCode(err) != exitSystem {
		return hint
	}
	return systemHint(err)
}

// systemHint is for what the kernel refused, whatever it was asked for.
func systemHint(err error) string {
	errno, _ := errors.AsType[syscall.Errno](err)
	switch errno {
	case syscall.EMFILE, syscall.ENFILE:
		return "docker run --ulimit nofile=4096"
	case syscall.ENOMEM:
		return "docker run --memory 64m, or more than that"
	case syscall.EAGAIN:
		return "docker run --pids-limit 100, or more than that"
	case syscall.EROFS:
		return "docker run --tmpfs /run/secrets"
	}
	return "check the container's capabilities and security options with: docker inspect CONTAINER"
}
