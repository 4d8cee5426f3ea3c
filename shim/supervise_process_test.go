//go:build integration

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testSuperviseSessions: a command that leaves its group or session is the
// command all the same.
func testSuperviseSessions(t *testing.T, pid1 bool) {
	if code, out := runSupervised(t, pid1, "setsid", "--wait", "/bin/sh", "-c", "exit 7"); code != 7 || out != "" {
		t.Errorf("setsid: code %d, %q", code, out)
	}
	for _, options := range [][]string{nil, {"--signal-group"}} {
		s := startSupervised(t, pid1, options, []string{supervisePrograms.command, "leave"})
		s.await("command listens", 1)
		sendAll(s)
		s.heard("command", true)
	}
}

// testSuperviseJobs: the jobs of a shell are the shell's, not ours.
func testSuperviseJobs(t *testing.T, pid1 bool) {
	for script, want := range map[string]int{
		`true & false & wait; exit 9`:                     9,
		`(exit 3) & wait $!; exit $?`:                     3,
		`"$0" die 15 & wait $!; exit $?`:                  143,
		`(exit 1) & (exit 2) & sleep 0.1; wait; (exit 5)`: 5,
		`("$0" die 9 & exit 4); exit $?`:                  4,
		`set -m; (exit 1) & (exit 2) & wait; (exit 6)`:    6,
	} {
		if code, out := runSupervised(t, pid1, "/bin/bash", "-c", script, supervisePrograms.command); code != want {
			t.Errorf("%s: code %d, %q", script, code, out)
		}
	}
	// TERM is for the shell alone, which waits; with --signal-group for all.
	s := startSupervised(t, pid1, nil, []string{"/bin/sh", "-c", `trap 'echo shell; exit 8' TERM; $COMMAND listen & wait`})
	s.await("command listens", 1)
	listener := childrenOf(s.child())
	t.Cleanup(func() { _ = syscall.Kill(listener[0], syscall.SIGKILL) })
	s.send(syscall.SIGTERM)
	if code := s.wait(); code != 8 || s.count("command got 15") != 0 {
		t.Errorf("exit code %d:\n%s", code, s.said())
	}
	s = startSupervised(t, pid1, []string{"--signal-group"}, []string{"/bin/sh", "-c", `trap 'echo shell' TERM; $COMMAND listen & wait; wait $!`})
	s.await("command listens", 1)
	for n := range 2 {
		s.send(syscall.SIGTERM)
		s.await("command got 15", n+1)
		if n == 0 {
			s.await("shell", 1)
		}
	}
	s.wait()
}

// testSuperviseStop: under a shell, which the test stands for, we stop with
// the command; as PID 1 nobody could let it go on.
func testSuperviseStop(t *testing.T, pid1 bool) {
	for _, signal := range []syscall.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU} {
		s := startSupervised(t, pid1, nil, []string{supervisePrograms.command, "wait"})
		s.await("waiting", 1)
		child := s.child()
		s.send(signal)
		if !pid1 {
			eventually(t, "both stop", func() bool { return state(child) == "T" && state(s.pid) == "T" })
			s.send(syscall.SIGCONT)
			eventually(t, "both go on", func() bool { return state(child) != "T" && state(s.pid) != "T" })
		}
		// TERM ends no process that is stopped.
		s.send(syscall.SIGTERM)
		if code := s.wait(); code != 143 {
			t.Errorf("%v: exit code %d", signal, code)
		}
	}
	// Who stops the command by STOP lets it go on, and we do not interfere.
	s := startSupervised(t, pid1, nil, []string{supervisePrograms.command, "wait"})
	s.await("waiting", 1)
	child := s.child()
	if err := syscall.Kill(child, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it stops", func() bool { return state(child) == "T" })
	s.send(syscall.SIGUSR1)
	s.send(syscall.SIGCONT)
	if code := s.wait(); code != 128+int(syscall.SIGUSR1) {
		t.Errorf("exit code %d", code)
	}
}

func testSuperviseGrace(t *testing.T, pid1 bool) {
	began := time.Now()
	s := startSupervised(t, pid1, []string{"--stop-grace", "300ms"}, []string{supervisePrograms.command, "listen"})
	s.await("command listens", 1)
	s.send(syscall.SIGINT)
	s.await("command got 2", 1)
	sent := time.Now()
	s.send(syscall.SIGTERM)
	if code, took := s.wait(), time.Since(sent); code != 137 || took < 300*time.Millisecond {
		t.Errorf("exit code %d after %v (%v in all)", code, took, time.Since(began))
	}
	if s.count("command got 15") != 1 {
		t.Errorf("no TERM before the KILL:\n%s", s.said())
	}
}

// zombies counts the children that have ended and were not reaped.
func (s *supervised) zombies() (zombies, children int) {
	pids := childrenOf(s.pid)
	for _, pid := range pids {
		if state(pid) == "Z" {
			zombies++
		}
	}
	return zombies, len(pids)
}

// testSuperviseOrphans: a burst of them is reaped at once.
func testSuperviseOrphans(t *testing.T, pid1 bool) {
	s := startSupervised(t, pid1, nil, []string{supervisePrograms.command, "orphans", "1000"})
	s.await("orphans wait", 1)
	eventually(t, "1000 orphans are adopted", func() bool { _, children := s.zombies(); return children == 1001 })
	if _, err := s.stdin.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	s.await("waiting", 1)
	began := time.Now()
	most := 0
	eventually(t, "no orphan is left", func() bool {
		zombies, children := s.zombies()
		most = max(most, zombies)
		return children == 1
	})
	t.Logf("1000 orphans were gone after %v; at most %d were seen as zombies", time.Since(began).Round(time.Millisecond), most)
	s.send(syscall.SIGTERM)
	if code := s.wait(); code != 143 {
		t.Errorf("exit code %d", code)
	}
}

// testSuperviseDaemons: one that has left session and parent is adopted, runs
// on beside the command, and is reaped.
func testSuperviseDaemons(t *testing.T, pid1 bool) {
	s := startSupervised(t, pid1, nil, []string{supervisePrograms.command, "daemon"})
	s.await("waiting", 1)
	var daemon int
	eventually(t, "a daemon is adopted", func() bool {
		for _, pid := range childrenOf(s.pid) {
			if stat := statOf(pid); len(stat) > 3 && stat[3] != statOf(s.pid)[3] {
				daemon = pid
			}
		}
		return daemon != 0 && len(childrenOf(s.pid)) == 2
	})
	if err := syscall.Kill(daemon, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is reaped", func() bool { return !slices.Contains(childrenOf(s.pid), daemon) })
	if s.over() || state(s.child()) == "Z" {
		t.Error("the command has ended with it")
	}
	s.send(syscall.SIGTERM)
	if code := s.wait(); code != 143 {
		t.Errorf("exit code %d", code)
	}
}

func testSuperviseStdin(t *testing.T, pid1 bool) {
	s := startSupervised(t, pid1, nil, []string{"cat"})
	if _, err := s.stdin.WriteString("through a pipe\n"); err != nil {
		t.Fatal(err)
	}
	s.await("through a pipe", 1)
	_ = s.stdin.Close()
	if code := s.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("in a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s = startSupervised(t, pid1, nil, []string{"cat"}, func(cmd *exec.Cmd) { cmd.Stdin = file })
	if code := s.wait(); code != 0 || s.said() != "in a file\n" {
		t.Errorf("exit code %d, %q", code, s.said())
	}
}

// setup has nothing by default that a process inherits.
const setup = `umask 027; cd /usr; echo 500 >/proc/self/oom_score_adj
ulimit -Sn 900; ulimit -Sc 0; ulimit -Hc 1000; ulimit -St 1234
exec 7</etc/hostname 12>/dev/null
exec env --ignore-signal=%IGNORED% --block-signal=USR2,WINCH,RTMIN+3,CHLD nice -n 3 "$@"`

// testSuperviseInherits compares what a command finds with what it finds
// without secret-init.
func testSuperviseInherits(t *testing.T, pid1 bool) {
	for _, ignored := range []string{"HUP,INT", "QUIT,TERM,USR1,PIPE,ALRM,CHLD,URG,PROF,SEGV,TSTP,TTIN,TTOU,RTMIN,RTMAX"} {
		script := inherited + `exec "$0" inherited 1`
		started := func(program ...string) string {
			setup := strings.ReplaceAll(setup, "%IGNORED%", ignored)
			args := arguments(pid1, slices.Concat([]string{"bash", "-c", setup, "setup"}, program, []string{"bash", "-c", script, supervisePrograms.command})...)
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TEXT=a b"}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return string(out)
		}
		without, with := started(), started(supervisePrograms.shim, "--supervise", "--")
		sameLines(t, without, with)
		for _, line := range []string{"Umask:\t0027", "500", "signal 1: ignored", "descriptor 7: flags 0, status 8000", "TEXT=a b", "nice 3"} {
			if line == "signal 1: ignored" && !strings.Contains(ignored, "HUP") {
				line = "signal 36: default"
			}
			if !slices.Contains(strings.Split(with, "\n"), line) {
				t.Errorf("%q is not in\n%s", line, with)
			}
		}
	}
}

// sameLines compares line by line.
func sameLines(t *testing.T, without, with string) {
	t.Helper()
	a, b := strings.Split(without, "\n"), strings.Split(with, "\n")
	for i := range max(len(a), len(b)) {
		left, right := "nothing", "nothing"
		if i < len(a) {
			left = a[i]
		}
		if i < len(b) {
			right = b[i]
		}
		if left != right {
			t.Errorf("%q without secret-init, %q with it", left, right)
		}
	}
}

// testSuperviseClosed: what was closed stays closed.
func testSuperviseClosed(t *testing.T, pid1 bool) {
	for _, closed := range []string{"0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"} {
		var said [2]string
		for i, program := range [][]string{nil, {supervisePrograms.shim, "--supervise", "--"}} {
			path := filepath.Join(t.TempDir(), "said")
			args := arguments(pid1, slices.Concat([]string{"bash", "-c", `exec 20>"$1" ` + closed + `; shift; exec "$@"`, "setup", path},
				program, []string{supervisePrograms.command, "inherited", "20"})...)
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Fatalf("%s: %v: %s", closed, err, out)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			said[i] = string(text)
		}
		sameLines(t, said[0], said[1])
		if closed == "0<&- 1>&- 2>&-" && (strings.Contains(said[1], "descriptor 0") || !strings.Contains(said[1], "descriptor 20")) {
			t.Errorf("open:\n%s", said[1])
		}
	}
}

// testSuperviseSockets: sockets of systemd's kind (sd_listen_fds(3)) are for
// the pid that the command has.
func testSuperviseSockets(t *testing.T, pid1 bool) {
	const command = `echo "$((LISTEN_PID - $$)) $((WATCHDOG_PID - $$)) $LISTEN_FDS $WATCHDOG_USEC $(cat <&3)"`
	for setup, want := range map[string]string{
		`exec 3<<<text; export LISTEN_FDS=1 LISTEN_PID=$$ WATCHDOG_PID=$$ WATCHDOG_USEC=5; exec "$@"`: "0 0 1 5 text\n",
	} {
		args := arguments(pid1, "bash", "-c", setup, "setup", supervisePrograms.shim, "--supervise", "--", "bash", "-c", command)
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("%v: %s", err, out)
		}
	}
	// Those of another process are not ours to change.
	args := arguments(pid1, "env", "LISTEN_PID=999999", "WATCHDOG_PID=0", supervisePrograms.shim, "--supervise", "--", "sh", "-c", "echo $LISTEN_PID $WATCHDOG_PID")
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil || string(out) != "999999 0\n" {
		t.Errorf("%v: %s", err, out)
	}
}
