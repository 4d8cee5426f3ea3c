//go:build integration

package main

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	"secret-init/tools/servers"
)

// inherited prints what a process gets from whoever executed it.
const inherited = `
grep -E '^(Umask|Uid|Gid|Groups|Sig(Blk|Ign)|Cap...|NoNewPrivs|Seccomp|CoreDumping|THP_enabled|Speculation.*):' /proc/self/status
cat /proc/self/limits /proc/self/oom_score_adj /proc/self/coredump_filter /proc/self/personality
cut -d' ' -f19,40,41 /proc/self/stat
pwd
for fd in /proc/$$/fd/*; do echo "${fd##*/} $(readlink "$fd" | sed 's/pipe:.*/pipe/')"; done
tr '\0' '\n' </proc/$$/environ | sort
`

// testPID1: pid 1 is the command itself, and as if secret-init had not been.
func testPID1(t *testing.T, b *bed) {
	t.Run("inherits", func(t *testing.T) {
		t.Parallel()
		// Ignored and blocked signals, a descriptor, a umask, limits, a folder:
		// none of these is the default.
		setup := `umask 027; exec 7</etc/hostname; exec env --ignore-signal=HUP,QUIT,PIPE,TERM,CHLD,TTOU,URG,RTMIN --block-signal=USR2,WINCH nice -n 3 "$@"`
		started := func(env []string, before ...string) []string {
			cmd := append([]string{"-c", setup, "setup"}, before...)
			_, out := servers.RunToEnd(t, servers.RunSpec{
				Image: b.debian, Env: b.env(env...), Cmd: append(cmd, "bash", "-c", inherited),
				Flags: []string{"--entrypoint", "bash", "--hostname", "same", "--workdir", "/usr", "--ulimit", "nofile=1000:5000", "--ulimit", "core=0:1000"},
			})
			if out.Code != 0 || out.Stderr != "" {
				t.Fatalf("%+v", out)
			}
			return strings.Split(out.Stdout, "\n")
		}
		ours := func(line string) bool {
			name, _, _ := strings.Cut(line, "=")
			return slices.Contains([]string{"DB_PASSWORD", "DB_PASSWORD_FILE", "SOPS_AGE_KEY", "SECRET_INIT_SUPERVISE"}, name)
		}
		without := slices.DeleteFunc(started(nil), ours)
		for how, env := range map[string][]string{"exec": nil, "supervise": {"SECRET_INIT_SUPERVISE=true"}} {
			with := started(env, "/secret-init", "--")
			var added []string
			for _, line := range with {
				if ours(line) {
					added = append(added, line)
				}
			}
			if !slices.Equal(added, []string{"DB_PASSWORD_FILE=/run/secrets/db_password"}) {
				t.Errorf("%s: added to the environment: %q", how, added)
			}
			with = slices.DeleteFunc(with, ours)
			if !slices.Equal(with, without) {
				t.Errorf("%s: without secret-init:\n%s\nwith it:\n%s", how, strings.Join(without, "\n"), strings.Join(with, "\n"))
			}
			for _, want := range []string{"Umask:\t0027", "7 /etc/hostname", "/usr"} {
				if !slices.Contains(with, want) {
					t.Errorf("%s: %q is not in\n%s", how, want, strings.Join(with, "\n"))
				}
			}
		}
	})

	t.Run("nothing left", func(t *testing.T) {
		t.Parallel()
		c := servers.RunContainer(t, servers.RunSpec{Image: b.debian, Env: b.env(), Cmd: []string{"sleep", "600"}})
		servers.WaitFor(t, "sleep", func(context.Context) bool { return strings.HasSuffix(c.Processes()[0].Exe, "/sleep") })
		processes := c.Processes()
		if len(processes) != 1 || processes[0].PID != 1 || !slices.Equal(processes[0].Args(), []string{"sleep", "600"}) {
			t.Fatalf("processes: %+v", processes)
		}
		p := processes[0]
		if len(p.Files) != 3 || p.Files["0"] != "/dev/null" {
			t.Errorf("open descriptors: %v", p.Files)
		}
		if p.Field("Threads") != "1" || p.Field("SigCgt") != strings.Repeat("0", 16) {
			t.Errorf("status:\n%s", p.Status)
		}
		if got := append(c.FindInProc(password), c.FindInProc(b.key.Identity)...); got != nil {
			t.Errorf("a secret is in %q", got)
		}
		// docker exec gets the configured environment, so that the reference
		// is there; the value must not be.
		if env := c.MustExec("", "env"); strings.Contains(env, password) {
			t.Errorf("docker exec has the value:\n%s", env)
		}
	})

	// While it is still fetching, secret-init is pid 1, and TERM ends it.
	t.Run("TERM while fetching", func(t *testing.T) {
		t.Parallel()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan struct{}, 100)
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				asked <- struct{}{}
			}
		}()
		t.Cleanup(func() { _ = listener.Close() })
		network := servers.NewNetwork(t)
		c := servers.RunContainer(t, servers.RunSpec{Image: b.debian, Network: network, Env: []string{
			"DB_PASSWORD=vault:secret/db#password", "VAULT_TOKEN=x", "VAULT_ADDR=" + network.Relay(t, "http://"+listener.Addr().String()),
		}})
		<-asked
		c.Kill("TERM")
		if code, out := c.Wait(), c.Logs(); code != 128+15 || out.Stdout != "" || !strings.Contains(out.Stderr, "SIGTERM") {
			t.Errorf("exit code %d, %+v", code, out)
		}
		if left := c.Diff(); slices.ContainsFunc(left, func(line string) bool { return strings.Contains(line, "secrets") }) {
			t.Errorf("left behind: %q", left)
		}
	})
}
