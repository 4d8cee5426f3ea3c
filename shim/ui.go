package main

import (
	"cmp"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"

	"secret-init/shim/internal/logs"
	"secret-init/shim/internal/plan"
)

// ui owns everything that the program says. What people asked for goes to
// stdout, all else to stderr, which the application shares: one line an
// event, each with the program's name.
type ui struct {
	out, err io.Writer
	stderr   *os.File
	log      *slog.Logger
	// screen is nil unless err is a terminal.
	screen *screen
	colour bool
	// spins: who reads the log is a person, and wants more than errors.
	spins bool
}

// newUI logs as the environment asks, so that faults in the options
// themselves are already said in the right format.
func newUI(out, err *os.File, environ []string) *ui {
	u := &ui{out: out, err: err, stderr: err}
	u.lookAround(environ)
	u.configure(cmp.Or(valueOf(environ, "SECRET_INIT_LOG_LEVEL"), "warn"), cmp.Or(valueOf(environ, "SECRET_INIT_LOG_FORMAT"), "text"))
	return u
}

// lookAround finds out whether a person is at a terminal, and what that can
// do. A supervisor's child learns its environment only later than it is made.
func (u *ui) lookAround(environ []string) {
	if u.screen = openScreen(u.stderr, valueOf(environ, "TERM")); u.screen != nil {
		u.err = u.screen
	}
	u.colour = u.screen != nil && valueOf(environ, "NO_COLOR") == ""
}

// valueOf is the first variable of that name, as getenv(3) has it.
func valueOf(environ []string, name string) string {
	for _, v := range environ {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// configure sets where, how much and how is logged. An unknown word, which
// the plan will complain of, leaves the default.
func (u *ui) configure(level, format string) {
	u.spins = format != "json" && logs.Level(level) < slog.LevelError
	u.log = logs.New(u.err, level, format, u.colour)
}

func (u *ui) print(text string) {
	if u.screen != nil {
		u.screen.clean()
	}
	_, _ = io.WriteString(u.out, text)
}

func (u *ui) warn(text string, attrs ...any) { u.log.Warn(text, attrs...) }

func (u *ui) info(text string, attrs ...any) { u.log.Info(text, attrs...) }

// fail says an error: a line for each fault, and its hint after it.
func (u *ui) fail(err error) {
	if err == nil {
		return
	}
	faults, ok := errors.AsType[plan.Faults](err)
	if !ok {
		faults = plan.Faults{{Err: err}}
	}
	for _, fault := range faults.Merged() {
		var attrs []any
		if hint := hintOf(fault.Err); hint != "" {
			attrs = []any{"hint", hint}
		}
		u.log.Error(fault.Error(), attrs...)
	}
}
