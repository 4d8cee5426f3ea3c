// Package logs writes the program's log: one line an event, each with the
// program's name, since the application shares the stream.
package logs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// New gives a log that writes the levels from level up, as text or as JSON.
// An unknown word leaves the default, warnings and text.
func New(w io.Writer, level, format string, colour bool) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: Level(level)}))
	}
	return slog.New(&lines{w: w, level: Level(level), colour: colour})
}

// Level reads the name of a level; an unknown one is warn.
func Level(name string) slog.Level {
	level := slog.LevelWarn
	_ = level.UnmarshalText([]byte(name))
	return level
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
	text := fmt.Sprintf("secret-init: %s: %s", l.word(names[r.Level]), OneLine(r.Message))
	hint := ""
	attrs := slices.Clone(l.attrs)
	r.Attrs(func(a slog.Attr) bool { attrs = append(attrs, a); return true })
	for _, a := range attrs {
		if a.Key == "hint" {
			hint = "\nsecret-init: " + l.word("hint") + ": " + OneLine(a.Value.String())
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

// OneLine keeps a message from passing for another one: whatever came from
// outside cannot start a new line or move the cursor.
func OneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || 0x80 <= c && c < 0xa0 {
			return ' '
		}
		return c
	}, text)
}
