package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/logs"
)

// screen is a stderr that is a terminal. Its last line may say who is waited
// for; whatever else is written there clears that line first.
type screen struct {
	w       io.Writer
	columns int

	mu    sync.Mutex
	shown bool
}

// unknownColumns is the width of a terminal that does not know it, as one of
// docker run -it may not yet.
const unknownColumns = 80

// clearLine is "go to the first column, and erase to the end" (ECMA-48, 8.3.41).
const clearLine = "\r\x1b[K"

// openScreen is nil unless file is a terminal that can erase a line.
func openScreen(file *os.File, term string) *screen {
	if term == "" || term == "dumb" {
		return nil
	}
	columns, ok := 0, false
	// Not Fd(), which would change the descriptor that the command inherits.
	if conn, err := file.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { columns, ok = linux.Terminal(int(fd)) })
	}
	if !ok {
		return nil
	}
	if columns == 0 {
		columns = unknownColumns
	}
	return &screen{w: file, columns: columns}
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	return s.w.Write(b)
}

// clear wants the lock.
func (s *screen) clear() {
	if s.shown {
		_, _ = io.WriteString(s.w, clearLine)
		s.shown = false
	}
}

func (s *screen) clean() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}

// show draws the line anew. One that is as wide as the terminal would wrap,
// and could not be erased.
func (s *screen) show(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := []rune(logs.OneLine(text))
	line = line[:min(len(line), s.columns-1)]
	_, _ = io.WriteString(s.w, clearLine+string(line))
	s.shown = true
}

const (
	spinAfter = time.Second
	spinEvery = 100 * time.Millisecond
)

// waiting shows, after a second, what is waited for, until stop is called:
// then nothing of it is left. Without a terminal, for a machine and for
// somebody who wants errors alone it does nothing.
func (u *ui) waiting(what func() []string) (stop func()) {
	if u.screen == nil || !u.spins {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		wait := time.NewTimer(spinAfter)
		defer wait.Stop()
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			case <-wait.C:
			}
			if names := what(); len(names) > 0 {
				u.screen.show(fmt.Sprintf("%c secret-init: waiting for %s", `|/-\`[i%4], summary(names)))
			}
			wait.Reset(spinEvery)
		}
	}()
	return func() {
		close(quit)
		<-done
		u.screen.clean()
	}
}

func summary(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
}
