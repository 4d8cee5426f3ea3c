//go:build integration

package main

import (
	"fmt"
	"os"
	"os/exec"
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
