//go:build integration

package servers

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func payloadImage(t *testing.T) string {
	t.Helper()
	return ScratchImage(t, BuildStatic(t, "./tools/images/payload"))
}

func TestContainer(t *testing.T) {
	image := payloadImage(t)

	t.Run("ends", func(t *testing.T) {
		_, out := RunToEnd(t, RunSpec{Image: image, Cmd: []string{"out=to stdout", "err=to stderr", "exit=7"}})
		if want := (Output{"to stdout\n", "to stderr\n", 7}); out != want {
			t.Errorf("got %+v, want %+v", out, want)
		}
	})

	t.Run("lives", func(t *testing.T) {
		c := RunContainer(t, RunSpec{Image: image, Env: []string{"GREETING=hello"}, Flags: []string{"--read-only"}, Cmd: []string{"wait"}})
		c.WaitLog("waiting", 1)
		if out := c.Exec("", "/payload", "out=from exec", "exit=3"); out != (Output{"from exec\n", "", 3}) {
			t.Errorf("exec gave %+v", out)
		}
		if out := c.Exec("", "/payload", "write=/file=text"); out.Code != 1 || !strings.Contains(out.Stderr, "read-only") {
			t.Errorf("writing with --read-only gave %+v", out)
		}
		if inspect := c.Inspect(); !strings.Contains(inspect, "GREETING=hello") {
			t.Errorf("inspect has no variable: %s", inspect)
		}
		c.Restart()
		c.WaitLog("waiting", 2)
		if out := c.Logs(); strings.Count(out.Stdout, "terminated") != 1 {
			t.Errorf("the restart did not end the first start with TERM:\n%s", out.Stdout)
		}
		c.Kill("TERM")
		if code := c.Wait(); code != 0 || c.Running() {
			t.Errorf("after TERM: exit code %d, running %t", code, c.Running())
		}
	})

	t.Run("cannot start", func(t *testing.T) {
		c := CreateContainer(t, RunSpec{Image: image, Flags: []string{"--entrypoint", "/absent"}})
		if err := c.Start(); err == nil || !strings.Contains(err.Error(), "/absent") {
			t.Errorf("start: %v", err)
		}
	})
}

func TestContainersAreRemoved(t *testing.T) {
	image := payloadImage(t)
	var container, network string
	t.Run("one", func(t *testing.T) {
		n := NewNetwork(t)
		c := RunContainer(t, RunSpec{Image: image, Network: n, Cmd: []string{"wait"}})
		container, network = c.ID, n.ID
	})
	for kind, id := range map[string]string{"container": container, "network": network} {
		out, err := command(dockerTimeout, nil, "docker", kind, "inspect", id)
		if err != nil {
			t.Fatal(err)
		}
		if out.Code == 0 {
			t.Errorf("%s %s is still there", kind, id)
		}
	}
}

func TestScans(t *testing.T) {
	planted, inEnv, absent := "planted-"+rand.Text(), "inenv-"+rand.Text(), "absent-"+rand.Text()
	c := RunContainer(t, RunSpec{
		Image: payloadImage(t),
		Env:   []string{"PLANTED=" + planted},
		Flags: []string{"--tmpfs", "/memory"},
		Cmd:   []string{"copyenv=/file=PLANTED", "write=/memory/file=" + inEnv, "wait"},
	})
	c.WaitLog("waiting", 1)

	if got := c.FindInExport(planted); !slices.Equal(got, []string{"/file"}) {
		t.Errorf("the planted text is in %q of the export", got)
	}
	for _, needle := range []string{absent, inEnv} {
		if got := c.FindInExport(needle); got != nil {
			t.Errorf("%.6s is in %q of the export", needle, got)
		}
	}
	if got := c.FindInExport("payload"); !slices.Contains(got, "/payload") {
		t.Errorf("a file's name was not found: %q", got)
	}
	if got := c.Diff(); !slices.Contains(got, "A /file") {
		t.Errorf("diff: %q", got)
	}

	if got := c.FindInProc(planted); !slices.Equal(got, []string{"/proc/1/environ"}) {
		t.Errorf("the variable is in %q", got)
	}
	if got := c.FindInProc(inEnv); !slices.Equal(got, []string{"/proc/1/cmdline"}) {
		t.Errorf("the argument is in %q", got)
	}
	if got := c.FindInProc("/payload"); !slices.Contains(got, "/proc/1/exe") {
		t.Errorf("the executable is in %q", got)
	}
	if got := c.FindInProc(absent); got != nil {
		t.Errorf("what is not there is in %q", got)
	}
	processes := c.Processes()
	if len(processes) != 1 {
		t.Fatalf("%d processes", len(processes))
	}
	p := processes[0]
	if p.PID != 1 || p.Exe != "/payload" || p.Args()[0] != "/payload" || p.Field("Uid") != "0 0 0 0" || !slices.Contains(p.Env(), "PLANTED="+planted) {
		t.Errorf("got %+v", p)
	}
	if p.Files["0"] != "/dev/null" {
		t.Errorf("open files: %v", p.Files)
	}
}

// A user's process can be looked into although the container has dropped all
// capabilities.
func TestScanOfAnotherUser(t *testing.T) {
	needle := rand.Text()
	c := RunContainer(t, RunSpec{
		Image: payloadImage(t),
		Env:   []string{"PLANTED=" + needle},
		Flags: []string{"--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"},
		Cmd:   []string{"wait"},
	})
	c.WaitLog("waiting", 1)
	if got := c.FindInProc(needle); !slices.Equal(got, []string{"/proc/1/environ"}) {
		t.Errorf("the variable is in %q", got)
	}
	if p := c.Processes()[0]; p.Field("Uid") != "1000 1000 1000 1000" || p.Field("NoNewPrivs") != "1" || p.Field("CapBnd") != "0000000000000000" {
		t.Errorf("status:\n%s", p.Status)
	}
}

func TestFinderAcrossWrites(t *testing.T) {
	for cut := range len("xxneedlexx") + 1 {
		text := "xxneedlexx"
		f := &finder{needle: []byte("needle")}
		for _, part := range []string{text[:cut], text[cut:]} {
			if _, err := io.WriteString(f, part); err != nil {
				t.Fatal(err)
			}
		}
		if !f.found {
			t.Errorf("not found when cut at %d", cut)
		}
		f = &finder{needle: []byte("needle!")}
		_, _ = io.WriteString(f, text[:cut])
		_, _ = io.WriteString(f, text[cut:])
		if f.found {
			t.Errorf("found what is not there when cut at %d", cut)
		}
	}
}

func TestRelay(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "you asked for %s", r.URL.Path)
	}))
	t.Cleanup(server.Close)
	network := NewNetwork(t)
	url := network.Relay(t, server.URL)
	image := payloadImage(t)

	_, out := RunToEnd(t, RunSpec{Image: image, Network: network, Cmd: []string{"get=" + url + "/v1/thing"}})
	if out.Code != 0 || out.Stdout != "you asked for /v1/thing" {
		t.Errorf("through the relay: %+v", out)
	}
	if _, out := RunToEnd(t, RunSpec{Image: image, Cmd: []string{"get=" + url}}); out.Code != 1 || !strings.Contains(out.Stderr, "unreachable") {
		t.Errorf("without a network: %+v", out)
	}
	if internal := docker(t, dockerTimeout, nil, "network", "inspect", "--format", "{{.Internal}}", network.ID); internal != "true" {
		t.Error("the network is not internal: its containers reach beyond this machine")
	}
}

func TestBuildImage(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "folder", "run"), []byte("#!/bin/sh\necho \"$0 as $(id -u)\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	image := BuildImage(t, "ARG BASE\nFROM ${BASE}\nCOPY in/ /opt/\nUSER nobody\nCMD [\"/opt/folder/run\"]\n",
		map[string]string{"in": dir}, "--build-arg", "BASE="+DebianImage(t))
	_, out := RunToEnd(t, RunSpec{Image: image})
	if want := (Output{"/opt/folder/run as 65534\n", "", 0}); out != want {
		t.Errorf("got %+v, want %+v", out, want)
	}
}

func TestPostgresImage(t *testing.T) {
	image := PostgresImage(t)
	for _, user := range []string{"root", "postgres"} {
		t.Run("as "+user, func(t *testing.T) {
			password := rand.Text()
			file := filepath.Join(t.TempDir(), "password")
			if err := os.WriteFile(file, []byte(password), 0o444); err != nil {
				t.Fatal(err)
			}
			c := RunContainer(t, RunSpec{
				Image:   image,
				Network: NewNetwork(t),
				Env:     []string{"POSTGRES_PASSWORD_FILE=/run/secrets/password"},
				Flags:   []string{"--user", user, "--volume", file + ":/run/secrets/password:ro"},
			})
			c.WaitLog("ready to accept connections", 1)
			if got := login(c, password); got.Code != 0 || got.Stdout != "scram-sha-256\n" {
				t.Errorf("the right password: %+v", got)
			}
			if got := login(c, password+"x"); got.Code == 0 || !strings.Contains(got.Stderr, "password authentication failed") {
				t.Errorf("a wrong password: %+v", got)
			}
			if got := append(c.FindInProc(password), c.FindInExport(password)...); got != nil {
				t.Errorf("the password is in %q", got)
			}
			if p := c.Processes()[0]; p.PID != 1 || !strings.HasSuffix(p.Exe, "/bin/postgres") || p.Field("Uid") == "0 0 0 0" {
				t.Errorf("pid 1 is %+v", p)
			}
			c.Stop()
			if code := c.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}

	t.Run("no password", func(t *testing.T) {
		_, out := RunToEnd(t, RunSpec{Image: image})
		if out.Code != 1 || !strings.Contains(out.Stderr, "POSTGRES_PASSWORD_FILE") {
			t.Errorf("got %+v", out)
		}
	})
}

// login logs in over the network, not over the server's socket, and gives how
// the server keeps the password.
func login(c *Container, password string) Output {
	return c.Exec("nobody", "env", "PGPASSWORD="+password, "psql", "--no-password", "--host", c.IP(), "--username", "postgres",
		"--no-align", "--tuples-only", "--command", "select lower(left(rolpassword, 13)) from pg_authid where rolname = 'postgres'")
}
