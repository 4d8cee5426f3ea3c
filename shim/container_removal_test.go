//go:build integration

package main

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"secret-init/tools/servers"
)

// testRemoval: files go once startup has finished, and come back with the
// next start.
func testRemoval(t *testing.T, b *bed) {
	t.Run("postgres", func(t *testing.T) { testPostgresRemoval(t, b) })
	t.Run("places", func(t *testing.T) { testRemovalPlaces(t, b) })
	t.Run("exec probe", func(t *testing.T) { testExecProbe(t, b) })
}

// testPostgresRemoval starts the database as the official image does: with a
// temporary server while it initialises, which needs the password later on.
func testPostgresRemoval(t *testing.T, b *bed) {
	image := servers.BuildImage(t, "FROM "+b.postgres+"\nCOPY temporary-server.sh /usr/local/bin/\n"+
		`CMD ["temporary-server.sh", "postgres"]`+"\n", map[string]string{
		"temporary-server.sh": filepath.Join(servers.Root(), "tools/images/postgres/temporary-server.sh"),
	})
	start := func(t *testing.T, network *servers.Network, probe string, flags ...string) *servers.Container {
		return servers.RunContainer(t, servers.RunSpec{Image: image, Network: network, Flags: flags, Env: []string{
			"POSTGRES_PASSWORD=sops:/etc/app/secrets.enc.yaml#user", "SOPS_AGE_KEY=" + b.key.Identity,
			"SECRET_INIT_OWNER=postgres", "SECRET_INIT_REMOVE=ready", "SECRET_INIT_READY=" + probe, "SECRET_INIT_LOG_LEVEL=info",
		}})
	}
	for name, probe := range map[string]string{
		"tcp":    "tcp:5432",
		"notify": "notify",
		"exec":   "exec:pg_isready --quiet --host 127.0.0.1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, servers.NewNetwork(t), probe)
			for run := 1; run <= 2; run++ {
				c.WaitLog("secret files removed", run)
				c.WaitLog("database system is ready to accept connections", run)
				if got := logIn(c, "app"); got.Code != 0 || got.Stdout != "scram-sha-256\n" {
					t.Errorf("run %d: the right password: %+v", run, got)
				}
				if got := logIn(c, "wrong"); got.Code == 0 {
					t.Errorf("run %d: any password logs in", run)
				}
				wantNothingLeft(t, c)
				if out := c.Logs(); strings.Count(out.Stdout, "the temporary server is up") != 1 || strings.Contains(out.Stderr, "warning") {
					t.Errorf("run %d: %+v", run, out)
				}
				if run == 1 {
					c.Restart()
				}
			}
			c.Stop()
			if code := c.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}

	// What the tests above rely on: a probe that the temporary server fools
	// takes the password away before it is read.
	t.Run("fooled", func(t *testing.T) {
		t.Parallel()
		c := start(t, nil, "exec:pg_isready --quiet")
		if code, out := c.Wait(), c.Logs(); code == 0 || !strings.Contains(out.Stderr, "the password has gone too early") {
			t.Errorf("exit code %d, %+v", code, out)
		}
	})

	// PostgreSQL says READY=1 itself, and a manager of the host hears it.
	t.Run("relay", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		c := start(t, nil, "notify", "--volume", dir+":/run/manager", "--env", "NOTIFY_SOCKET=/run/manager/notify")
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		for heard := ""; !slices.Contains(strings.Split(heard, "\n"), "READY=1"); {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("READY=1 has not come, but %q: %v", heard, err)
			}
			heard += "\n" + string(buf[:n])
			if strings.Contains(heard, "MAINPID") {
				t.Errorf("a pid of the container: %q", heard)
			}
		}
		c.WaitLog("secret files removed", 1)
	})
}

// wantNothingLeft: no file, no link, no directory and no mount of ours is there.
func wantNothingLeft(t *testing.T, c *servers.Container) {
	t.Helper()
	if got := c.MustExec("0", "sh", "-c", "ls -A /run/secrets /dev/shm /run/secret-init 2>/dev/null | grep -i -E 'secret|password|key' | grep -v :$; grep ' - tmpfs secret-init ' /proc/1/mountinfo; true"); got != "" {
		t.Errorf("left behind: %q", got)
	}
}

// testRemovalPlaces: in each kind of place the files go, and what the
// platform has provided stays.
func testRemovalPlaces(t *testing.T, b *bed) {
	for name, flags := range map[string][]string{
		"shm":       nil,
		"tmpfs":     {"--tmpfs", "/run/secrets"},
		"own mount": {"--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"},
	} {
		for _, user := range []string{"", "app"} {
			t.Run(name+" "+user, func(t *testing.T) {
				t.Parallel()
				config := put(t, filepath.Join(t.TempDir(), "secret-init.yaml"), "secrets:\n  tls: {from: 'sops:/etc/app/secrets.enc.yaml#user', target: /etc/app/tls.key}\n", 0, 0o644)
				platform := put(t, filepath.Join(platformSecrets(t), "theirs"), provided, 0, 0o444)
				spec := servers.RunSpec{
					Image: b.debian, Cmd: []string{"sh", "-c", held},
					Flags: append([]string{"--volume", config + ":/etc/secret-init.yaml:ro", "--volume", platform + ":/run/platform/theirs:ro"}, flags...),
					Env: b.env("THEIRS=vault:secret/db#password", "THEIRS_FILE=/run/platform/theirs", "SECRET_INIT_REMOVE=ready",
						"SECRET_INIT_READY=file:/tmp/up", "SECRET_INIT_LOG_LEVEL=info", "SECRET_INIT_SIGNAL_GROUP=true"),
				}
				if user != "" {
					spec.Env = append(spec.Env, "SECRET_INIT_USER="+user)
				}
				c := servers.RunContainer(t, spec)
				for run := 1; run <= 2; run++ {
					c.WaitLog("held", run)
					before := c.MustExec("0", "sh", "-c", "ls /run/secrets; readlink /etc/app/tls.key; grep -c ' - tmpfs secret-init ' /proc/1/mountinfo; true")
					mounts := "0"
					if name == "own mount" {
						mounts = "1"
					}
					for _, want := range []string{"db_password", "tls", "/tls", mounts} {
						if !strings.Contains("\n"+before+"\n", want+"\n") {
							t.Errorf("run %d: %q is not there before: %q", run, want, before)
						}
					}
					c.MustExec(user, "touch", "/tmp/up")
					c.WaitLog("secret files removed", run)
					wantNothingLeft(t, c)
					if got := c.Exec("0", "sh", "-c", "cat /run/platform/theirs; test ! -L /etc/app/tls.key"); got.Code != 0 || got.Stdout != provided {
						t.Errorf("run %d: afterwards: %+v", run, got)
					}
					if pid1 := c.Processes()[0]; pid1.PID != 1 || pid1.Field("Uid") != "0 0 0 0" || string(pid1.Environ) != "" {
						t.Errorf("run %d: PID 1 is %s with the environment %q", run, pid1.Field("Uid"), pid1.Environ)
					}
					// The command has the directory open, as its working directory, all the time.
					if out := c.Logs(); strings.Contains(out.Stderr, "warning") {
						t.Errorf("run %d: %s", run, out.Stderr)
					}
					if run == 1 {
						c.MustExec("0", "rm", "/tmp/up")
						c.Restart()
					}
				}
			})
		}
	}
}

// held is a command that keeps the place busy.
const held = `cd "$(dirname "$(readlink -f "$DB_PASSWORD_FILE")")" && exec 3<"$DB_PASSWORD_FILE" && echo held && sleep 600`

// testExecProbe: the probe's command is who the command is, and knows what it
// knows.
func testExecProbe(t *testing.T, b *bed) {
	t.Parallel()
	const probe = `exec:exec 2>/tmp/errors; { id -u; id -G; grep -E '^(NoNewPrivs|CapEff|SigBlk|SigIgn)' /proc/self/status; cat "$DB_PASSWORD_FILE" | sha256sum; env | sort; } >/tmp/probe; test -e /tmp/up`
	c := servers.RunContainer(t, servers.RunSpec{
		Image: b.debian, Cmd: []string{"sleep", "600"},
		Env: b.env("SECRET_INIT_USER=app", "SECRET_INIT_REMOVE=ready", "SECRET_INIT_READY="+probe, "SECRET_INIT_LOG_LEVEL=info"),
	})
	var said string
	servers.WaitFor(t, "an answer", func(context.Context) bool {
		got := c.Exec("app", "cat", "/tmp/probe")
		said = got.Stdout
		return got.Code == 0 && strings.Contains(said, "USER=app")
	})
	for _, want := range []string{"1234", "1234 2001", "CapEff:\t" + strings.Repeat("0", 16), "NoNewPrivs:\t1", "SigBlk:\t" + strings.Repeat("0", 16), "HOME=/home/app", "DB_PASSWORD_FILE=/run/secrets/db_password"} {
		if !slices.Contains(strings.Split(said, "\n"), want) {
			t.Errorf("%q is not in what the probe says:\n%s", want, said)
		}
	}
	for _, unwanted := range []string{"SOPS_AGE_KEY", "SECRET_INIT", "sops:"} {
		if strings.Contains(said, unwanted) {
			t.Errorf("the probe knows of %s", unwanted)
		}
	}
	// Dozens of attempts leave nothing behind.
	time.Sleep(3 * time.Second)
	for _, p := range c.Processes() {
		if p.Exe == "" {
			t.Errorf("process %d is a zombie", p.PID)
		}
		if p.PID == 1 && len(p.Files) > 12 {
			t.Errorf("PID 1 has %s descriptors open: %v", strconv.Itoa(len(p.Files)), p.Files)
		}
	}
	if got := append(c.FindInProc(b.key.Identity), c.FindInProc("DB_PASSWORD=sops:")...); got != nil {
		t.Errorf("a credential or a reference is in %q", got)
	}
	c.MustExec("app", "touch", "/tmp/up")
	c.WaitLog("secret files removed", 1)
	wantNothingLeft(t, c)
}
