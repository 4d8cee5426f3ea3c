//go:build integration

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// testTerminal: the command has the terminal, its signals arrive once, and the
// shell has it again at the end.
func testTerminal(t *testing.T) {
	for _, shell := range shells {
		x := startShell(t, shell...)
		before := x.foreground()
		x.keys("$SHIM --supervise -- $COMMAND listen; echo code $?\n")
		x.await("command listens", 1)
		shim, command := x.below("/command")
		if group := x.foreground(); group != groupOf(command) || group == groupOf(shim) {
			t.Errorf("%s: group %d has the terminal, secret-init has group %d and the command %d", shell[0], group, groupOf(shim), groupOf(command))
		}
		x.keys(ctrlC)
		x.await("command got 2", 1)
		x.keys(ctrlBackslash)
		x.await("command got 3", 1)
		x.resize(33, 77)
		x.await("command got 28", 1)
		x.keys(ctrlZ)
		x.await("command got 20", 1)
		// From elsewhere, these go through secret-init.
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH, syscall.SIGTSTP} {
			if err := syscall.Kill(shim, signal); err != nil {
				t.Fatal(err)
			}
			x.await(fmt.Sprint("command got ", int(signal)), 2)
		}
		for range 2 {
			if err := syscall.Kill(shim, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			x.await("command got 15", 1)
		}
		x.await("code 42", 1)
		for line, times := range map[string]int{"command got 2": 2, "command got 3": 2, "command got 28": 2, "command got 20": 2, "command got 22": 0, "command got 18": 0, "command got 1": 0} {
			if got := x.count(line); got != times {
				t.Errorf("%s: %q %d times, not %d", shell[0], line, got, times)
			}
		}
		x.inForeground("the shell", before)
		x.keys("$SHIM --supervise -- $COMMAND wait; echo code $?\n")
		x.await("waiting", 1)
		x.keys(ctrlC)
		x.await("code 130", 1)
	}
}

// testTerminalJobs: Ctrl-Z, bg and fg do what they do without secret-init.
func testTerminalJobs(t *testing.T) {
	for _, shell := range shells {
		x := startShell(t, shell...)
		before := x.foreground()
		x.keys("$SHIM --supervise -- $COMMAND wait\n")
		x.await("waiting", 1)
		shim, command := x.below("/command")
		for n := range 2 {
			x.keys(ctrlZ)
			x.stopped(true, shim, command)
			x.inForeground("the shell", before)
			x.keys("echo she''ll\n")
			x.await("shell", n+1)
			x.keys("fg\n")
			x.stopped(false, shim, command)
			x.inForeground("the command", groupOf(command))
		}
		x.keys(ctrlZ)
		x.stopped(true, shim, command)
		x.keys("bg; echo b''g\n")
		x.await("bg", 1)
		x.stopped(false, shim, command)
		x.inForeground("the shell", before)
		// Of a job that runs, bash says nothing to it: keys reach secret-init,
		// which passes them on.
		x.keys("fg\n")
		x.foregroundLeaves(before)
		x.keys(ctrlZ)
		x.stopped(true, shim, command)
		x.inForeground("the shell", before)
		x.keys("fg\n")
		x.stopped(false, shim, command)
		x.inForeground("the command", groupOf(command))
		// The shell's own way to stop a job, and one that nobody types.
		for _, signal := range []syscall.Signal{syscall.SIGTSTP, syscall.SIGTTIN} {
			if err := syscall.Kill(shim, signal); err != nil {
				t.Fatal(err)
			}
			x.stopped(true, shim, command)
			x.inForeground("the shell", before)
			x.keys("fg\n")
			x.stopped(false, shim, command)
			x.inForeground("the command", groupOf(command))
		}
		// One that stops itself, as the shell's suspend does.
		if err := syscall.Kill(command, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		x.stopped(true, shim, command)
		x.inForeground("the shell", before)
		x.keys("fg; echo code $?\n")
		x.inForeground("the command", groupOf(command))
		x.stopped(false, shim, command)
		x.keys(ctrlC)
		x.await("code 130", 1)
		x.inForeground("the shell", before)
	}
}

// testTerminalBackground: a job in the background stops when it reads, or
// writes under tostop, and fg gives it the terminal, stopped or not.
func testTerminalBackground(t *testing.T) {
	for _, shell := range shells {
		x := startShell(t, shell...)
		before := x.foreground()
		x.keys("$SHIM --supervise -- cat &\n")
		shim, command := x.below("/cat")
		x.stopped(true, shim, command)
		x.inForeground("the shell", before)
		x.keys("fg\n")
		x.stopped(false, shim, command)
		x.keys("typed\n")
		x.await("typed", 1)
		x.keys(ctrlD)
		x.inForeground("the shell", before)

		x.keys("stty tostop; $SHIM --supervise -- sh -c 'echo writ''ten; exit 3' &\n")
		shim, command = x.below("/dash")
		x.stopped(true, shim, command)
		if x.count("written") > 0 {
			t.Error("written in spite of tostop")
		}
		x.keys("fg; echo code $?\n")
		x.await("written", 1)
		x.await("code 3", 1)
		x.inForeground("the shell", before)

		x.keys("stty -tostop; $SHIM --supervise -- $COMMAND listen &\n")
		x.await("command listens", 1)
		shim, _ = x.below("/command")
		x.keys(ctrlC)
		x.prompt()
		x.keys("fg\n")
		x.foregroundLeaves(before)
		x.keys(ctrlBackslash)
		x.await("command got 3", 1)
		x.resize(33, 77)
		x.await("command got 28", 1)
		if x.count("command got 2") != 0 {
			t.Error("it got a Ctrl-C in the background")
		}
		for range 2 {
			if err := syscall.Kill(shim, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			x.await("command got 15", 1)
		}
		x.inForeground("the shell", before)
	}
}

// testTerminalScript: in a script there is no job control, so that nobody but
// secret-init gives the terminal back. And a background job of it that ends
// does not take the terminal from the shell.
func testTerminalScript(t *testing.T) {
	x := startShell(t, shells[0]...)
	before := x.foreground()
	x.keys("sh -c '$SHIM --supervise -- $COMMAND die 15; echo code $?; read -r line; echo \"read $line\"'\n")
	x.await("code 143", 1)
	x.keys("typed\n")
	x.await("read typed", 1)
	x.inForeground("the shell", before)

	x.keys("$SHIM --supervise -- $COMMAND wait\n")
	x.await("waiting", 1)
	shim, command := x.below("/command")
	x.keys(ctrlZ)
	x.stopped(true, shim, command)
	x.keys("bg; echo b''g\n")
	x.await("bg", 1)
	x.stopped(false, shim, command)
	if err := syscall.Kill(shim, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	x.keys("wait; echo o''ver\n")
	x.await("over", 1)
	x.inForeground("the shell", before)
}

// testTerminalRestart: a command that is started again has the terminal again.
func testTerminalRestart(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	put("secret", "one")
	put("config.yaml", "secrets:\n  a: file:"+dir+"/secret\n")
	files, err := os.MkdirTemp("/dev/shm", "secret-init-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(files) })
	x := startShell(t, shells[0]...)
	before := x.foreground()
	put("command", `echo "value $(cat $A_FILE)"; read -r line; echo "read $line"; exec $COMMAND wait`)
	x.keys("$SHIM --config " + dir + "/config.yaml --dir " + files + " --refresh 100ms --on-change restart -- sh " + dir + "/command; echo code $?\n")
	x.await("value one", 1)
	x.keys("typed\n")
	x.await("read typed", 1)
	put("secret", "two")
	x.await("value two", 1)
	x.keys("again\n")
	x.await("read again", 1)
	x.await("waiting", 2)
	x.keys(ctrlC)
	x.await("code 130", 1)
	x.inForeground("the shell", before)
}

// testTerminalPID1: PID 1 with a terminal of its own, as docker run -it has it.
// There is no shell, so that nothing stays stopped.
func testTerminalPID1(t *testing.T) {
	start := func(command ...string) *terminal {
		return startTerminal(t, false, slices.Concat([]string{"unshare", "--pid", "--fork", "--mount-proc", "setsid", "--ctty",
			supervisePrograms.shim, "--supervise", "--"}, command)...)
	}
	x := start(supervisePrograms.command, "listen")
	x.await("command listens", 1)
	shim, command := x.below("/command")
	x.inForeground("the command", groupOf(command))
	// One after the other, since each of these keys drops what was not yet read.
	for key, n := range map[string]int{ctrlC: 2, ctrlZ: 20, ctrlBackslash: 3} {
		x.keys(key)
		x.await(fmt.Sprint("command got ", n), 1)
	}
	x.resize(33, 77)
	x.await("command got 28", 1)
	for range 2 {
		if err := syscall.Kill(shim, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		x.await("command got 15", 1)
	}
	if code := x.wait(); code != 42 {
		t.Errorf("exit code %d", code)
	}
	for _, n := range []int{2, 20, 3, 28} {
		if got := x.count(fmt.Sprint("command got ", n)); got != 1 {
			t.Errorf("signal %d came %d times", n, got)
		}
	}

	// A shell there has job control; it stops a job, and itself never.
	x = start("bash", "--noprofile", "--norc", "--noediting", "-i")
	x.prompt()
	x.keys("cat\n")
	x.keys("typed\n")
	x.await("typed", 1)
	x.keys(ctrlZ)
	x.prompt()
	x.keys("fg\n")
	x.keys("again\n")
	x.await("again", 1)
	x.keys(ctrlC)
	x.prompt()
	x.keys("exit 9\n")
	if code := x.wait(); code != 9 {
		t.Errorf("exit code %d", code)
	}

	// Ctrl-Z stops the command's group, and it goes on.
	x = start(supervisePrograms.command, "wait")
	x.await("waiting", 1)
	x.keys(ctrlZ + ctrlC)
	if code := x.wait(); code != 130 {
		t.Errorf("exit code %d after Ctrl-Z and Ctrl-C", code)
	}
}
