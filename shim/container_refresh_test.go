//go:build integration

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"secret-init/tools/servers"
)

// testRefreshed is --refresh as PID 1 of containers, in each of the places,
// for a command that is another user and may rewrite nothing.
func testRefreshed(t *testing.T, b *bed) {
	for name, flags := range map[string][]string{
		"tmpfs":     {"--tmpfs", "/run/secrets"},
		"own mount": {"--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"},
		"shm":       nil,
		"no root":   {"--user", "1234:1234", "--tmpfs", "/run/secrets:uid=1234,mode=0700"},
		// Neither another user's file nor another user's directory can be read.
		"few capabilities": {"--cap-drop", "ALL", "--cap-add", "CHOWN", "--cap-add", "KILL", "--cap-add", "SETUID", "--cap-add", "SETGID", "--tmpfs", "/run/secrets"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := newSopsFile(t, "canary-1")
			dir := filepath.Dir(file.path)
			for _, path := range []string{dir, file.path} {
				if err := os.Chmod(path, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			env := []string{
				"SOPS_AGE_KEY=" + file.key.Identity, "SECRET_INIT_REFRESH=300ms", "SECRET_INIT_CONFIG=/etc/app/config.yaml",
				"A=sops:/etc/app/secrets.json#a", "B=sops:/etc/app/secrets.json#b",
			}
			if name != "no root" {
				env = append(env, "SECRET_INIT_USER=app")
			}
			target := ""
			config := "log-level: info\n"
			if name == "tmpfs" || name == "own mount" {
				target = "/etc/target.key"
				config += "secrets:\n  b:\n    target: " + target + "\n"
			}
			put(t, filepath.Join(dir, "config.yaml"), config, 0, 0o644)
			c := servers.RunContainer(t, servers.RunSpec{
				Image: b.debian, Env: env, Flags: append([]string{"--volume", dir + ":/etc/app:ro"}, flags...),
				Cmd: []string{"bash", "-c", `trap 'echo "HUP $(cat $A_FILE) $(cat $B_FILE)"' HUP; echo "started $(cat $A_FILE) $(id -u) $(stat -Lc "%u %a" $A_FILE)"; while :; do sleep 0.05; done`},
			})
			c.WaitLog("started canary-1 1234 1234 400", 1)
			change := func(value string) {
				file.put(value)
				if err := os.Chmod(file.path, 0o644); err != nil {
					t.Fatal(err)
				}
				c.WaitLog("HUP "+value+" "+value, 1)
			}
			change("canary-2")
			if target != "" {
				if got := c.MustExec("1234", "cat", target); got != "canary-2" {
					t.Errorf("the absolute target has %q", got)
				}
			}
			if got := c.MustExec("1234", "/secret-init", "env", "--", "sh", "-c", "cat $A_FILE $B_FILE"); got != "canary-2canary-2" {
				t.Errorf("secret-init env: %q", got)
			}
			for _, p := range c.Processes() {
				if p.PID == 1 && len(p.Environ) > 0 {
					t.Errorf("PID 1 has the environment %q", p.Environ)
				}
			}
			if name != "no root" {
				if out := c.Exec("1234", "sh", "-c", `cat /proc/1/fd/* 2>/dev/null; ln -sf x $(/secret-init env -- sh -c 'dirname $A_FILE')/..data`); out.Code == 0 || strings.Contains(out.Stdout, "canary") {
					t.Errorf("the command's user got at the session, or at the link: %+v", out)
				}
			}
			c.Restart()
			c.WaitLog("started canary-2 1234 1234 400", 1)
			change("canary-3")
			c.Stop()
			out := c.Logs()
			if !strings.Contains(out.Stderr, "secret files removed") || strings.Contains(out.Stderr, "warning") {
				t.Errorf("it said:\n%s", out.Stderr)
			}
			if left := c.FindInExport("canary-3"); left != nil {
				t.Errorf("the value is in %q", left)
			}
		})
	}
}
