//go:build integration

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"secret-init/tools/servers"
)

// supervisePrograms are built by TestSupervise: the program itself, and
// testdata/command.c.
var supervisePrograms struct{ shim, command string }

// TestSupervise is the program as PID 1 of a PID namespace and as a subreaper,
// with the cases of tini's and dumb-init's own tests among those here.
func TestSupervise(t *testing.T) {
	supervisePrograms.shim = servers.BuildShim(t)
	supervisePrograms.command = buildCommand(t)
	both := map[string]func(*testing.T, bool){
		"exit codes":        testSuperviseExitCodes,
		"ended by signals":  testSuperviseEnded,
		"signals":           testSuperviseSignals,
		"signals to groups": testSuperviseGroup,
		"under load":        testSuperviseLoad,
		"queued signals":    testSuperviseQueued,
		"sessions":          testSuperviseSessions,
		"background jobs":   testSuperviseJobs,
		"stop signals":      testSuperviseStop,
		"stop grace":        testSuperviseGrace,
		"orphans":           testSuperviseOrphans,
		"daemons":           testSuperviseDaemons,
		"inherits":          testSuperviseInherits,
		"inherits nothing":  testSuperviseClosed,
		"sockets":           testSuperviseSockets,
		"stdin":             testSuperviseStdin,
	}
	for name, test := range both {
		for how, pid1 := range map[string]bool{"pid 1": true, "subreaper": false} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				test(t, pid1)
			})
		}
	}
	for name, test := range map[string]func(*testing.T){
		"terminal":            testTerminal,
		"job control":         testTerminalJobs,
		"background":          testTerminalBackground,
		"script":              testTerminalScript,
		"terminal restart":    testTerminalRestart,
		"terminal of its own": testTerminalPID1,
		"TERM at any time":    testStartTerm,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// buildCommand builds testdata/command.c, static, so that it runs in any image.
func buildCommand(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "command")
	if out, err := exec.Command("gcc", "-O1", "-Wall", "-Werror", "-static", "-o", path, "testdata/command.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func testSuperviseExitCodes(t *testing.T, pid1 bool) {
	codes := numbersFrom(0, 255)
	if !pid1 {
		codes = []int{0, 1, 2, 42, 126, 127, 128, 137, 143, 255}
	}
	inParallel(codes, func(n int) {
		if code, out := runSupervised(t, pid1, "/bin/sh", "-c", fmt.Sprint("exit ", n)); code != n || out != "" {
			t.Errorf("exit %d: code %d, %q", n, code, out)
		}
	})
	if code, out := runSupervised(t, pid1, "/nowhere/command"); code != 127 || !strings.Contains(out, "was not found") {
		t.Errorf("no command: code %d, %q", code, out)
	}
	if code, out := runSupervised(t, pid1, "/etc/hostname"); code != 126 || !strings.Contains(out, "cannot be executed") {
		t.Errorf("not a program: code %d, %q", code, out)
	}
}

// By default these do nothing or stop: signal(7).
var harmless = []int{int(syscall.SIGCHLD), int(syscall.SIGCONT), int(syscall.SIGURG), int(syscall.SIGWINCH)}
var stopping = []int{int(syscall.SIGSTOP), int(syscall.SIGTSTP), int(syscall.SIGTTIN), int(syscall.SIGTTOU)}

// testSuperviseEnded: each signal that ends a command, from itself and from outside.
func testSuperviseEnded(t *testing.T, pid1 bool) {
	inParallel(numbersFrom(1, 64, append(harmless, stopping...)...), func(n int) {
		if code, out := runSupervised(t, pid1, supervisePrograms.command, "die", strconv.Itoa(n)); code != 128+n || out != "" {
			t.Errorf("ended by %d: code %d, %q", n, code, out)
		}
	})
	for _, n := range numbersFrom(1, 64, append(harmless, append(stopping, int(syscall.SIGKILL))...)...) {
		s := startSupervised(t, pid1, nil, []string{"/bin/sh", "-c", "ulimit -c 0; exec $COMMAND wait"})
		s.await("waiting", 1)
		s.send(syscall.Signal(n))
		if code := s.wait(); code != 128+n || s.said() != "waiting\n" {
			t.Errorf("sent %d: code %d, %q", n, code, s.said())
		}
	}
}

// catchable are the signals that somebody can send and a command can get. CHLD
// says something of the children of the process that gets it.
var catchable = numbersFrom(1, 64, int(syscall.SIGKILL), int(syscall.SIGSTOP), int(syscall.SIGCHLD))

// testSuperviseSignals: each signal arrives once, at the command alone.
func testSuperviseSignals(t *testing.T, pid1 bool) {
	s := startSupervised(t, pid1, nil, []string{supervisePrograms.command, "listen", "2"})
	listeners := []string{"command", "child1", "child2", "stranger"}
	for _, who := range listeners {
		s.await(who+" listens", 1)
	}
	s.send(syscall.SIGCHLD)
	sendAll(s)
	for _, who := range listeners {
		s.heard(who, who == "command")
	}
}

// testSuperviseGroup: the same for --signal-group, at each of the group.
func testSuperviseGroup(t *testing.T, pid1 bool) {
	s := startSupervised(t, pid1, []string{"--signal-group"}, []string{supervisePrograms.command, "listen", "2"})
	listeners := []string{"command", "child1", "child2", "stranger"}
	for _, who := range listeners {
		s.await(who+" listens", 1)
	}
	s.send(syscall.SIGCHLD)
	// The children say all that they got before the command ends, which ends them.
	for _, n := range catchable {
		s.send(syscall.Signal(n))
		for _, who := range listeners[:3] {
			s.await(fmt.Sprint(who, " got ", n), 1)
		}
	}
	s.send(syscall.SIGTERM)
	if code := s.wait(); code != 42 {
		t.Errorf("exit code %d", code)
	}
	for _, who := range listeners {
		s.heard(who, who != "stranger")
	}
}

// sendAll sends each signal, as fast as it can, and ends the command with the second TERM.
func sendAll(s *supervised) {
	s.t.Helper()
	for _, n := range catchable {
		s.send(syscall.Signal(n))
		// A CONT that is pending is discarded by a stop signal, and the other
		// way round (signal(7)).
		if n == int(syscall.SIGCONT) || slices.Contains(stopping, n) {
			s.await(fmt.Sprint("command got ", n), 1)
		}
	}
	for _, n := range catchable {
		s.await(fmt.Sprint("command got ", n), 1)
	}
	s.send(syscall.SIGTERM)
	if code := s.wait(); code != 42 {
		s.t.Errorf("exit code %d", code)
	}
}

// heard compares what one process has got with all or none of the signals.
func (s *supervised) heard(who string, all bool) {
	s.t.Helper()
	for n := 1; n <= 64; n++ {
		want := 0
		if all && slices.Contains(catchable, n) {
			want = 1
		}
		got := s.count(fmt.Sprint(who, " got ", n))
		// The second TERM ends the command, and may end its children first.
		if n == int(syscall.SIGTERM) && all && got == 2 {
			want = 2
		}
		if got != want {
			s.t.Errorf("%s got %d %d times, not %d", who, n, got, want)
		}
	}
}

// testSuperviseLoad: signals while hundreds of orphans end and the Go runtime
// preempts goroutines by URG. None is lost among the CHLDs, and none is added.
func testSuperviseLoad(t *testing.T, pid1 bool) {
	s := startSupervised(t, pid1, nil, []string{"/bin/bash", "-c",
		`( for n in {1..60}; do ( for m in {1..10}; do ( : ) & done ) & done ) & wait $!; exec "$COMMAND" listen`})
	s.await("command listens", 1)
	sendAll(s)
	s.heard("command", true)
}

// testSuperviseQueued: of a real-time signal each counts (signal(7)).
func testSuperviseQueued(t *testing.T, pid1 bool) {
	s := startSupervised(t, pid1, nil, []string{supervisePrograms.command, "listen"})
	s.await("command listens", 1)
	const times = 200
	for range times {
		s.send(40)
	}
	s.await("command got 40", times)
	for range 2 {
		s.send(syscall.SIGTERM)
		s.await("command got 15", 1)
	}
	if code := s.wait(); code != 42 || s.count("command got 40") != times {
		t.Errorf("exit code %d, %d times", code, s.count("command got 40"))
	}
}
