package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

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
	minimum := slog.LevelWarn
	_ = minimum.UnmarshalText([]byte(level))
	u.spins = format != "json" && minimum < slog.LevelError
	if format == "json" {
		u.log = slog.New(slog.NewJSONHandler(u.err, &slog.HandlerOptions{Level: minimum}))
		return
	}
	u.log = slog.New(&lines{w: u.err, level: minimum, colour: u.colour})
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

// lines is the slog handler of the text format: "secret-init: error: ...",
// with a hint on a line of its own.
type lines struct {
	w      io.Writer
	level  slog.Level
	colour bool
	attrs  []slog.Attr
}

// word is the first word of a line, in its colour (ECMA-48, 8.3.117).
func (l *lines) word(name string) string {
	colours := map[string]string{"error": "31", "warning": "33", "hint": "36"}
	if colour, ok := colours[name]; ok && l.colour {
		return "\x1b[" + colour + "m" + name + "\x1b[0m"
	}
	return name
}

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= l.level }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	names := map[slog.Level]string{slog.LevelError: "error", slog.LevelWarn: "warning", slog.LevelInfo: "info", slog.LevelDebug: "debug"}
	text := fmt.Sprintf("secret-init: %s: %s", l.word(names[r.Level]), oneLine(r.Message))
	hint := ""
	attrs := slices.Clone(l.attrs)
	r.Attrs(func(a slog.Attr) bool { attrs = append(attrs, a); return true })
	for _, a := range attrs {
		if a.Key == "hint" {
			hint = "\nsecret-init: " + l.word("hint") + ": " + oneLine(a.Value.String())
			continue
		}
		text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
	}
	// One write, so that lines of the application cannot come between.
	_, err := io.WriteString(l.w, text+hint+"\n")
	return err
}

func (l *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &lines{l.w, l.level, l.colour, append(slices.Clone(l.attrs), attrs...)}
}

func (l *lines) WithGroup(string) slog.Handler { return l }

// oneLine keeps a message from passing for another one: whatever came from
// outside cannot start a new line or move the cursor.
func oneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || 0x80 <= c && c < 0xa0 {
			return ' '
		}
		return c
	}, text)
}
