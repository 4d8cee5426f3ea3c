//go:build integration

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with a program in it.
type terminal struct {
	transcript
	master *os.File
	cmd    *exec.Cmd
	ended  chan struct{}
	// prompts is how often it was waited for one.
	prompts int
}

// What keys type.
const (
	ctrlC         = "\x03"
	ctrlD         = "\x04"
	ctrlZ         = "\x1a"
	ctrlBackslash = "\x1c"
)

// startTerminal runs a program in a terminal of its own, which does not echo. own makes it the
// leader of a session that has the terminal.
func startTerminal(t *testing.T, own bool, args ...string) *terminal {
	t.Helper()
	master, slave := openPTY(t)
	settings, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	settings.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, settings); err != nil {
		t.Fatal(err)
	}
	x := &terminal{transcript: transcript{t: t}, master: master, cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
	x.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PS1=", "SHIM=" + supervisePrograms.shim, "COMMAND=" + supervisePrograms.command}
	for _, name := range []string{"HOME", "DOCKER_HOST"} {
		if value, ok := os.LookupEnv(name); ok {
			x.cmd.Env = append(x.cmd.Env, name+"="+value)
		}
	}
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = slave, slave, slave
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: own}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			if err != nil {
				return
			}
			_, _ = x.Write(buf[:n])
		}
	}()
	go func() {
		defer close(x.ended)
		_ = x.cmd.Wait()
	}()
	t.Cleanup(func() {
		for pids := []int{x.cmd.Process.Pid}; len(pids) > 0; pids = pids[1:] {
			pids = append(pids, childrenOf(pids[0])...)
			_ = syscall.Kill(pids[0], syscall.SIGKILL)
		}
		<-x.ended
		_ = master.Close()
	})
	return x
}

// startShell runs an interactive shell.
func startShell(t *testing.T, shell ...string) *terminal {
	t.Helper()
	x := startTerminal(t, true, shell...)
	x.prompt()
	return x
}

// prompt waits until a shell takes what is typed: a key such as Ctrl-C may
// drop what comes right after it.
func (x *terminal) prompt() {
	x.t.Helper()
	x.prompts++
	word := fmt.Sprint("prompt ", x.prompts)
	for deadline := time.Now().Add(patience); x.count(word) == 0; {
		if time.Now().After(deadline) {
			x.t.Fatalf("the shell does not answer:\n%s", x.said())
		}
		x.keys("echo " + word + "\n")
		for again := time.Now().Add(2 * time.Second); x.count(word) == 0 && time.Now().Before(again); {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

var shells = [][]string{{"bash", "--noprofile", "--norc", "--noediting", "-i"}, {"dash", "-i"}}

// wait waits for its end and gives the exit code.
func (x *terminal) wait() int {
	x.t.Helper()
	select {
	case <-x.ended:
	case <-time.After(patience):
		x.t.Fatalf("it does not end:\n%s", x.said())
	}
	return x.cmd.ProcessState.ExitCode()
}

func (x *terminal) keys(text string) {
	x.t.Helper()
	if _, err := x.master.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

// foreground is the group that has the terminal.
func (x *terminal) foreground() int {
	group := 0
	raw, err := x.master.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { group, err = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP) })
	}
	if err != nil {
		x.t.Error(err)
	}
	return group
}

// foregroundLeaves waits until another group than one has the terminal.
func (x *terminal) foregroundLeaves(group int) {
	x.t.Helper()
	eventually(x.t, "fg", func() bool { return x.foreground() != group })
}

func (x *terminal) resize(rows, columns uint16) {
	raw, err := x.master.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
		})
	}
	if err != nil {
		x.t.Error(err)
	}
}

// below finds the program below a process, and the command below that: each
// is what was executed, and not its parent before it does.
func (x *terminal) below(program string) (shim, command int) {
	x.t.Helper()
	eventually(x.t, "the program and its command "+program, func() bool {
		for pids := []int{x.cmd.Process.Pid}; len(pids) > 0; pids = pids[1:] {
			children := childrenOf(pids[0])
			if executable(pids[0]) == supervisePrograms.shim && len(children) == 1 && strings.HasSuffix(executable(children[0]), program) {
				shim, command = pids[0], children[0]
				return true
			}
			pids = append(pids, children...)
		}
		return false
	})
	return shim, command
}

func executable(pid int) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return path
}

// inForeground waits until a group has the terminal.
func (x *terminal) inForeground(what string, group int) {
	x.t.Helper()
	eventually(x.t, fmt.Sprintf("the terminal is for %s: %d, and not %d", what, group, x.foreground()), func() bool { return x.foreground() == group })
}

// stopped waits until all of some processes are stopped, or none is.
func (x *terminal) stopped(want bool, pids ...int) {
	x.t.Helper()
	eventually(x.t, fmt.Sprintf("stopped: %t", want), func() bool {
		return !slices.ContainsFunc(pids, func(pid int) bool { return (state(pid) == "T") != want })
	})
}

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
		shim, command = x.below("/command")
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
