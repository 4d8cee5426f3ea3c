//go:build integration

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"secret-init/tools/servers"
)

// testContainerSignals is what an engine does to PID 1 that stays: stop, kill,
// pause, and a terminal.
func testContainerSignals(t *testing.T, b *bed) {
	image := servers.BuildImage(t, "FROM "+b.debian+"\nCOPY command /\n", map[string]string{"command": buildCommand(t)})
	run := func(t *testing.T, env, cmd []string, flags ...string) *servers.Container {
		t.Helper()
		return servers.RunContainer(t, servers.RunSpec{Image: image, Env: append([]string{"SECRET_INIT_SUPERVISE=true"}, env...), Cmd: cmd, Flags: flags})
	}
	for name, test := range map[string]func(*testing.T){
		"stop": func(t *testing.T) {
			for want, cmd := range map[int][]string{
				143: {"/command", "wait"},
				7:   {"sh", "-c", "trap 'exit 7' TERM; echo waiting; while :; do sleep 0.05; done"},
			} {
				c := run(t, nil, cmd)
				c.WaitLog("waiting", 1)
				began := time.Now()
				c.Stop()
				// The engine's KILL would come after 10 s.
				if code, took := c.Wait(), time.Since(began); code != want || took > 8*time.Second {
					t.Errorf("exit code %d after %v, not %d", code, took, want)
				}
			}
		},
		"grace": func(t *testing.T) {
			c := run(t, []string{"SECRET_INIT_STOP_GRACE=300ms"}, []string{"/command", "listen"})
			c.WaitLog("command listens", 1)
			began := time.Now()
			c.Stop()
			if code, took := c.Wait(), time.Since(began); code != 137 || took > 8*time.Second || strings.Count(c.Logs().Stdout, "command got 15") != 1 {
				t.Errorf("exit code %d after %v", code, took)
			}
		},
		"kill and pause": func(t *testing.T) {
			c := run(t, []string{"SECRET_INIT_SIGNAL_GROUP=true"}, []string{"/command", "listen", "1"})
			for _, who := range []string{"command", "child1", "stranger"} {
				c.WaitLog(who+" listens", 1)
			}
			for n, signal := range map[int]string{1: "HUP", 2: "INT", 10: "USR1", 20: "TSTP", 23: "URG", 27: "PROF", 28: "WINCH", 40: "40"} {
				if n == 28 {
					c.Pause()
					if status := c.Format("{{.State.Status}}"); status != "paused" {
						t.Errorf("it is %s", status)
					}
					c.Unpause()
				}
				c.Kill(signal)
				for _, who := range []string{"command", "child1"} {
					c.WaitLog(fmt.Sprintf("%s got %d\n", who, n), 1)
				}
			}
			c.Kill("TERM")
			c.WaitLog("command got 15", 1)
			c.Kill("TERM")
			if code, out := c.Wait(), c.Logs().Stdout; code != 42 || strings.Contains(out, "stranger got") || strings.Count(out, "command got") != 10 {
				t.Errorf("exit code %d\n%s", code, out)
			}
		},
		"terminal": func(t *testing.T) { testContainerTerminal(t, image) },
		"another user": func(t *testing.T) {
			for _, capability := range []string{"CHOWN", "KILL"} {
				c := run(t, []string{"SECRET_INIT_USER=app"}, []string{"/command", "wait"},
					"--cap-drop", "ALL", "--cap-add", "SETUID", "--cap-add", "SETGID", "--cap-add", capability)
				c.WaitLog("waiting", 1)
				warned := strings.Contains(c.Logs().Stderr, "no signal reaches the command")
				if warned == (capability == "KILL") {
					t.Errorf("with %s: warned %t: %s", capability, warned, c.Logs().Stderr)
				}
				if capability == "KILL" {
					c.Kill("TERM")
					if code := c.Wait(); code != 143 {
						t.Errorf("exit code %d", code)
					}
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// testContainerTerminal is docker run -it: keys and a change of the window's
// size arrive once, and nothing stays stopped.
func testContainerTerminal(t *testing.T, image string) {
	start := func(cmd ...string) (*servers.Container, *terminal) {
		c := servers.CreateContainer(t, servers.RunSpec{Image: image, Env: []string{"SECRET_INIT_SUPERVISE=true", "PS1="}, Cmd: cmd, Flags: []string{"--interactive", "--tty"}})
		return c, startTerminal(t, true, "docker", "start", "--attach", "--interactive", c.ID)
	}
	c, x := start("sh", "-c", "stty -echo; exec /command listen")
	x.await("command listens", 1)
	for key, n := range map[string]int{ctrlC: 2, ctrlZ: 20, ctrlBackslash: 3} {
		x.keys(key)
		x.await(fmt.Sprint("command got ", n), 1)
	}
	// The engine sets the size once at the start as well.
	before := x.count("command got 28")
	x.resize(33, 77)
	x.await("command got 28", before+1)
	if size := c.MustExec("", "stty", "-F", "/dev/pts/0", "size"); size != "33 77" {
		t.Errorf("the window is %s", size)
	}
	for range 2 {
		c.Kill("TERM")
		x.await("command got 15", 1)
	}
	if code := x.wait(); code != 42 || c.Wait() != 42 {
		t.Errorf("exit codes %d and %d", code, c.Wait())
	}
	for _, n := range []int{2, 20, 3} {
		if got := x.count(fmt.Sprint("command got ", n)); got != 1 {
			t.Errorf("signal %d came %d times", n, got)
		}
	}

	_, x = start("sh", "-c", "stty -echo; exec /command wait")
	x.await("waiting", 1)
	x.keys(ctrlZ + ctrlC)
	if code := x.wait(); code != 130 {
		t.Errorf("exit code %d after Ctrl-Z and Ctrl-C", code)
	}

	_, x = start("bash", "--noprofile", "--norc", "--noediting", "-i")
	x.prompt()
	// What the terminal echoes is not what cat says.
	x.keys("stty -echo\n")
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
}
