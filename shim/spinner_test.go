package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"secret-init/sources"
)

// openPTY is a terminal, and the end at which a person would sit (pts(4)).
func openPTY(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	n := 0
	conn, err := person.SyscallConn()
	if err == nil {
		err = errors.Join(conn.Control(func(fd uintptr) {
			if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
				n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
			}
		}), err)
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return person, terminal
}

// seen is all that has been written to the terminal, up to a mark that the
// test writes itself: a terminal keeps what it gets in order.
func seen(t *testing.T, person, terminal *os.File) string {
	t.Helper()
	const mark = "<mark>"
	if _, err := terminal.WriteString(mark); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	buffer := make([]byte, 4096)
	for !strings.HasSuffix(text.String(), mark) {
		n, err := person.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(buffer[:n])
	}
	return strings.TrimSuffix(text.String(), mark)
}

func TestColour(t *testing.T) {
	err := sources.Errorf(sources.Invalid, "do this", "is wrong")
	const (
		coloured = "secret-init: \x1b[33mwarning\x1b[0m: w\r\nsecret-init: \x1b[31merror\x1b[0m: is wrong\r\nsecret-init: \x1b[36mhint\x1b[0m: do this\r\n"
		plain    = "secret-init: warning: w\r\nsecret-init: error: is wrong\r\nsecret-init: hint: do this\r\n"
	)
	for _, test := range []struct {
		environ []string
		want    string
	}{
		{[]string{"TERM=xterm"}, coloured},
		{[]string{"TERM=xterm", "NO_COLOR="}, coloured},
		{[]string{"TERM=xterm", "NO_COLOR=1"}, plain},
		{[]string{"TERM=dumb"}, plain},
		{nil, plain},
	} {
		person, terminal := openPTY(t)
		u := newUI(terminal, terminal, test.environ)
		u.warn("w")
		u.fail(err)
		if got := seen(t, person, terminal); got != test.want {
			t.Errorf("%v: %q", test.environ, got)
		}
	}
}

// A file is no terminal, whatever TERM says.
func TestNoColourInAFile(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	u := newUI(file, file, []string{"TERM=xterm"})
	stop := u.waiting(func() []string { return []string{"vault secret/db"} })
	time.Sleep(spinAfter + spinEvery)
	u.warn("w")
	stop()
	text, err := os.ReadFile(file.Name())
	if err != nil || string(text) != "secret-init: warning: w\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestSpinner(t *testing.T) {
	person, terminal := openPTY(t)
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 50}); err != nil {
		t.Fatal(err)
	}
	u := newUI(terminal, terminal, []string{"TERM=xterm", "NO_COLOR=1"})
	waitFor := []string{"vault secret/db\n"}
	stop := u.waiting(func() []string { return waitFor })
	time.Sleep(spinAfter / 2)
	if early := seen(t, person, terminal); early != "" {
		t.Errorf("within the first second: %q", early)
	}
	time.Sleep(spinAfter/2 + 2*spinEvery)
	u.warn("a line")
	u.print("asked for\n")
	stop()
	text := seen(t, person, terminal)
	const line = clearLine + "| secret-init: waiting for vault secret/db "
	if !strings.HasPrefix(text, line+clearLine+"/ secret-init") {
		t.Errorf("%q does not begin with the spinner", text)
	}
	// Whatever is written begins at the start of an empty line.
	if !strings.Contains(text, clearLine+"secret-init: warning: a line\r\n") {
		t.Errorf("the warning is not on a line of its own: %q", text)
	}
	if last := text[strings.LastIndex(text, "\n")+1:]; !strings.HasSuffix(last, clearLine) && last != "" {
		t.Errorf("left on the screen: %q", last)
	}

	// No line is as wide as the terminal, where it would wrap.
	waitFor = []string{"vault " + strings.Repeat("long/", 40), "aws-sm b", "sops c"}
	stop = u.waiting(func() []string { return waitFor })
	time.Sleep(spinAfter + spinEvery)
	stop()
	text = seen(t, person, terminal)
	for drawn := range strings.SplitSeq(text, clearLine) {
		if len(drawn) > 49 {
			t.Errorf("%q has %d columns", drawn, len(drawn))
		}
	}
	if !strings.HasSuffix(text, clearLine) {
		t.Errorf("left on the screen: %q", text)
	}
	if got, want := summary(waitFor[1:]), "aws-sm b and 1 more"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// For a machine, and for somebody who wants errors alone, there is no spinner.
func TestSpinnerIsForPeople(t *testing.T) {
	for _, words := range [][2]string{{"warn", "json"}, {"error", "text"}} {
		person, terminal := openPTY(t)
		u := newUI(terminal, terminal, []string{"TERM=xterm"})
		u.configure(words[0], words[1])
		stop := u.waiting(func() []string { return []string{"vault secret/db"} })
		time.Sleep(spinAfter + spinEvery)
		stop()
		if got := seen(t, person, terminal); got != "" {
			t.Errorf("%v: %q", words, got)
		}
	}
}
