//go:build integration

package main

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"secret-init/tools/servers"
)

// provided is what the platform, and not secret-init, has put there.
const provided = "from the platform\n"

// unreachable is a start with no network and no credentials: whatever is
// fetched fails it.
var unreachable = []string{"DB_PASSWORD=vault:secret/db#password"}

// platformSecrets are a directory of this machine's memory, for bind mounts:
// the tmpfs that Swarm and Kubernetes mount.
func platformSecrets(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "platform-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// put writes a file of this machine with an owner and a mode.
func put(t *testing.T, path, content string, uid int, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, uid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// copyIn puts entries into a container's writable layer, started or not, as
// Compose does with secrets from its environment.
func copyIn(t *testing.T, c *servers.Container, entries ...tar.Header) {
	t.Helper()
	var archive bytes.Buffer
	out := tar.NewWriter(&archive)
	for _, header := range entries {
		// The content travels in a field that a file has no use for.
		content := ""
		if header.Typeflag == tar.TypeReg {
			content, header.Linkname = header.Linkname, ""
			header.Size = int64(len(content))
		}
		if err := out.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker", "cp", "-", c.ID+":/")
	cmd.Stdin = &archive
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("docker cp: %v: %s", err, output)
	}
}

func folder(path string, uid int, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: path + "/", Uid: uid, Gid: uid, Mode: mode}
}

func regular(path, content string, uid int, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: path, Linkname: content, Uid: uid, Gid: uid, Mode: mode}
}

func symlink(path, target string, uid int) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: path, Linkname: target, Uid: uid, Gid: uid, Mode: 0o777}
}

const secretPath = "run/secrets/db_password"

// startCreated starts a container that was created.
func startCreated(t *testing.T, c *servers.Container) testimony {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	c.WaitLog("waiting", 1)
	return testimonies(t, c)[0]
}

// testExisting: secrets that Compose, Swarm or Kubernetes provide, and files
// that only look as if.
func testExisting(t *testing.T, b *bed) {
	t.Run("provided", func(t *testing.T) { testProvided(t, b) })
	t.Run("planted", func(t *testing.T) { testPlanted(t, b) })
	t.Run("leftovers", func(t *testing.T) { testLeftovers(t, b) })
	t.Run("words", func(t *testing.T) { testExistingWords(t, b) })
}

// testProvided: no network, no credentials, and yet the command starts, again
// after a restart, with the platform's file left as it is.
func testProvided(t *testing.T, b *bed) {
	kubernetes := func(t *testing.T) string {
		dir := platformSecrets(t)
		put(t, dir+"/..2026_11_21_04_00_00.1/db_password", provided, 0, 0o644)
		for link, target := range map[string]string{"..data": "..2026_11_21_04_00_00.1", "db_password": "..data/db_password"} {
			if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		// The kubelet's mode for a secret volume.
		if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, flags := range map[string]func(t *testing.T) []string{
		"compose file": func(t *testing.T) []string {
			return []string{"--volume", put(t, t.TempDir()+"/secret", provided, 0, 0o444) + ":/run/secrets/db_password:ro"}
		},
		"compose file of a user": func(t *testing.T) []string {
			return []string{"--volume", put(t, t.TempDir()+"/secret", provided, 1000, 0o644) + ":/run/secrets/db_password:ro"}
		},
		"compose file, writable mount": func(t *testing.T) []string {
			return []string{"--volume", put(t, t.TempDir()+"/secret", provided, 0, 0o444) + ":/run/secrets/db_password"}
		},
		"swarm": func(t *testing.T) []string {
			dir := platformSecrets(t)
			put(t, dir+"/db_password", provided, 0, 0o444)
			return []string{"--volume", dir + ":/run/secrets:ro"}
		},
		"kubernetes": func(t *testing.T) []string {
			return []string{"--volume", kubernetes(t) + ":/run/secrets:ro"}
		},
		"kubernetes elsewhere": func(t *testing.T) []string {
			return []string{"--volume", kubernetes(t) + ":/etc/db:ro", "--env", "DB_PASSWORD_FILE=/etc/db/db_password"}
		},
	} {
		for _, who := range []string{"", "--user 1000", "--env SECRET_INIT_USER=app", "--read-only --cap-drop ALL", "--cap-add SYS_ADMIN"} {
			t.Run(name+" "+who, func(t *testing.T) {
				t.Parallel()
				c, w := witness(t, servers.RunSpec{Image: b.debian, Env: unreachable, Flags: append(flags(t), strings.Fields(who)...)})
				path := "/run/secrets/db_password"
				if strings.HasSuffix(name, "elsewhere") {
					path = "/etc/db/db_password"
				}
				for range 2 {
					s := w.Secrets["DB_PASSWORD_FILE"]
					if w.Env["DB_PASSWORD_FILE"] != path || s.Value != provided || s.Error != "" {
						t.Fatalf("%s=%q: %+v", path, w.Env["DB_PASSWORD_FILE"], s)
					}
					if _, left := w.Env["DB_PASSWORD"]; left {
						t.Error("the reference is still in the environment")
					}
					w = again(t, c)
				}
				if out := c.Logs(); out.Stderr != "" {
					t.Errorf("said:\n%s", out.Stderr)
				}
			})
		}
	}

	for _, who := range []string{"", "--env SECRET_INIT_USER=app", "--user 1000"} {
		t.Run("compose environment "+who, func(t *testing.T) {
			t.Parallel()
			c := servers.CreateContainer(t, servers.RunSpec{Image: b.debian, Env: unreachable, Flags: strings.Fields(who)})
			copyIn(t, c, regular(secretPath, provided, 0, 0o444))
			w := startCreated(t, c)
			for range 2 {
				if s := w.Secrets["DB_PASSWORD_FILE"]; s.Value != provided || s.Real != "/"+secretPath {
					t.Fatalf("%+v", s)
				}
				w = again(t, c)
			}
		})
	}

	t.Run("unreadable", func(t *testing.T) {
		t.Parallel()
		file := put(t, t.TempDir()+"/secret", provided, 1000, 0o400)
		c, w := witness(t, servers.RunSpec{
			Image: b.debian, Env: append([]string{"SECRET_INIT_USER=app"}, unreachable...),
			Flags: []string{"--volume", file + ":/run/secrets/db_password:ro"},
		})
		if w.Env["DB_PASSWORD_FILE"] != "/run/secrets/db_password" || w.Secrets["DB_PASSWORD_FILE"].Value != "" {
			t.Errorf("%+v", w)
		}
		if want := "secret-init: warning: DB_PASSWORD: the provided /run/secrets/db_password cannot be read by uid 1234"; !strings.HasPrefix(c.Logs().Stderr, want) {
			t.Errorf("said %q, want %q", c.Logs().Stderr, want)
		}
	})

	// One is provided, the other fetched: ours must not hide theirs, nor the
	// service account that Kubernetes mounts beneath /run/secrets.
	for _, flags := range []string{"", "--cap-add SYS_ADMIN", "--env SECRET_INIT_USER=app", "--read-only", "--read-only --cap-add SYS_ADMIN"} {
		t.Run("beside ours "+flags, func(t *testing.T) {
			t.Parallel()
			dir := platformSecrets(t)
			put(t, dir+"/token", provided, 0, 0o644)
			file := put(t, t.TempDir()+"/secret", provided, 0, 0o444)
			_, w := witness(t, servers.RunSpec{
				Image: b.debian,
				Env: b.env("API_KEY=vault:secret/api#key",
					"TOKEN_FILE=/run/secrets/kubernetes.io/serviceaccount/token"),
				Flags: append([]string{
					"--volume", file + ":/run/secrets/api_key:ro", "--volume", dir + ":/run/secrets/kubernetes.io/serviceaccount:ro",
				}, strings.Fields(flags)...),
			})
			for name, want := range map[string]string{"DB_PASSWORD_FILE": password, "API_KEY_FILE": provided, "TOKEN_FILE": provided} {
				if s := w.Secrets[name]; s.Value != want || s.Error != "" {
					t.Errorf("%s: %+v", name, s)
				}
			}
			if s := w.Secrets["DB_PASSWORD_FILE"]; s.Filesystem != "tmpfs" {
				t.Errorf("%+v", s)
			}
		})
	}
}

// testPlanted: what the application could have written for its next start is
// replaced, with a warning, and never believed.
func testPlanted(t *testing.T, b *bed) {
	const planted = "planted"
	for name, test := range map[string]struct {
		flags   string
		entries []tar.Header
		// sidestepped: no link can safely be put there either, so that the
		// variable names the place itself.
		sidestepped bool
	}{
		"file of a user":      {"--user 1000", []tar.Header{folder("run/secrets", 1000, 0o755), regular(secretPath, planted, 1000, 0o444)}, false},
		"link of a user":      {"--user 1000", []tar.Header{folder("run/secrets", 1000, 0o755), symlink(secretPath, "/etc/hostname", 1000)}, false},
		"file for --user":     {"--env SECRET_INIT_USER=1000:1000", []tar.Header{folder("run/secrets", 1000, 0o755), regular(secretPath, planted, 1000, 0o444)}, true},
		"link for --user":     {"--env SECRET_INIT_USER=1000:1000", []tar.Header{folder("run/secrets", 1000, 0o755), symlink(secretPath, "/etc/hostname", 1000)}, true},
		"root's, in a user's": {"--env SECRET_INIT_USER=1000:1000", []tar.Header{folder("run/secrets", 1000, 0o755), regular(secretPath, planted, 0, 0o444)}, true},
		"group can write":     {"--env SECRET_INIT_USER=1000:1000", []tar.Header{folder("run/secrets", 0, 0o755), {Typeflag: tar.TypeReg, Name: secretPath, Linkname: planted, Gid: 1000, Mode: 0o664}}, false},
		"all can write":       {"", []tar.Header{folder("run/secrets", 0, 0o755), regular(secretPath, planted, 0, 0o666)}, false},
		"all can replace":     {"--env SECRET_INIT_USER=1000:1000", []tar.Header{folder("run/secrets", 0, 0o777), regular(secretPath, planted, 0, 0o444)}, true},
		"user's, root reads":  {"", []tar.Header{folder("run/secrets", 0, 0o755), regular(secretPath, planted, 1000, 0o444)}, false},
		"a folder above":      {"--env SECRET_INIT_USER=1000:1000", []tar.Header{folder("run", 1000, 0o755), folder("run/secrets", 0, 0o755), regular(secretPath, planted, 0, 0o444)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := servers.CreateContainer(t, servers.RunSpec{Image: b.debian, Env: b.env(), Flags: strings.Fields(test.flags)})
			copyIn(t, c, test.entries...)
			w := startCreated(t, c)
			s := w.Secrets["DB_PASSWORD_FILE"]
			if s.Value != password || s.Filesystem != "tmpfs" {
				t.Errorf("%+v", s)
			}
			if test.sidestepped {
				if w.Env["DB_PASSWORD_FILE"] != s.Real {
					t.Errorf("%s is the application's to change", w.Env["DB_PASSWORD_FILE"])
				}
				if want := "secret-init: warning: /run/secrets/db_password is not from here, and cannot be replaced: the secret is at /dev/shm/secret-init-*/db_password\n"; normal(c.Logs().Stderr) != want {
					t.Errorf("said %q", c.Logs().Stderr)
				}
			} else if said := c.Logs().Stderr; !strings.HasPrefix(said, "secret-init: warning: ") || !strings.Contains(said, "/run/secrets/db_password: replacing") {
				t.Errorf("said %q", said)
			}
			if got := c.MustExec("0", "cat", "/etc/hostname"); strings.Contains(got, password) {
				t.Error("the planted link was followed")
			}
		})
	}
}

// testLeftovers: what an earlier start wrote is known as ours, so that a
// rotated value arrives with a restart. The directory is one that outlives
// the container's run, like a Kubernetes emptyDir in memory.
func testLeftovers(t *testing.T, b *bed) {
	for _, flags := range []string{"", "--user 1000", "--env SECRET_INIT_USER=app"} {
		t.Run("restart "+flags, func(t *testing.T) {
			t.Parallel()
			dir := platformSecrets(t)
			if strings.HasPrefix(flags, "--user") {
				if err := os.Chown(dir, 1000, 0); err != nil {
					t.Fatal(err)
				}
			}
			c, w := witness(t, servers.RunSpec{
				Image: b.debian, Env: b.env("USER_NAME=sops:/etc/app/secrets.enc.yaml#user"), Flags: append([]string{"--volume", dir + ":/run/secrets"}, strings.Fields(flags)...),
			})
			if s := w.Secrets["DB_PASSWORD_FILE"]; s.Value != password || s.Real != "/run/secrets/db_password" {
				t.Fatalf("%+v", s)
			}
			file := filepath.Join(t.TempDir(), "new.yaml")
			b.key.Sops().EncryptFile(t, file, "yaml", []byte("password: rotated\nuser: app\n"))
			rotated, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			copyIn(t, c, regular("etc/app/secrets.enc.yaml", string(rotated), 0, 0o644))
			if s := again(t, c).Secrets["DB_PASSWORD_FILE"]; s.Value != "rotated" {
				t.Errorf("after the restart: %+v", s)
			}
			if out := c.Logs(); out.Stderr != "" {
				t.Errorf("said:\n%s", out.Stderr)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range entries {
				if name := entry.Name(); name != "db_password" && name != "user_name" && !strings.HasPrefix(name, ".secret-init") {
					t.Errorf("left behind: %s", name)
				}
			}
			if len(entries) != 3 {
				t.Errorf("%d entries", len(entries))
			}
		})
	}
}

// testExistingWords: --existing error and replace.
func testExistingWords(t *testing.T, b *bed) {
	t.Run("error", func(t *testing.T) {
		t.Parallel()
		file := put(t, t.TempDir()+"/secret", provided, 0, 0o444)
		_, out := servers.RunToEnd(t, servers.RunSpec{
			Image: b.debian, Env: b.env("SECRET_INIT_EXISTING=error"), Flags: []string{"--volume", file + ":/run/secrets/db_password:ro"},
		})
		want := "secret-init: error: DB_PASSWORD: /run/secrets/db_password is already provided\nsecret-init: hint: set --existing use to take it, or --existing replace to fetch it\n"
		if out.Code != 64 || out.Stdout != "" || out.Stderr != want {
			t.Errorf("%+v", out)
		}
	})
	t.Run("replace", func(t *testing.T) {
		t.Parallel()
		c := servers.CreateContainer(t, servers.RunSpec{Image: b.debian, Env: b.env("SECRET_INIT_EXISTING=replace")})
		copyIn(t, c, regular(secretPath, provided, 0, 0o444))
		w := startCreated(t, c)
		if s := w.Secrets["DB_PASSWORD_FILE"]; s.Value != password || s.Filesystem != "tmpfs" {
			t.Errorf("%+v", s)
		}
	})
	// A mount cannot be replaced: its file is left as it is, and the variable
	// leads to ours, never to theirs.
	t.Run("replace a mount", func(t *testing.T) {
		t.Parallel()
		file := put(t, t.TempDir()+"/secret", provided, 0, 0o444)
		c, w := witness(t, servers.RunSpec{
			Image: b.debian, Env: b.env("SECRET_INIT_EXISTING=replace"), Flags: []string{"--volume", file + ":/run/secrets/db_password:ro"},
		})
		if s := w.Secrets["DB_PASSWORD_FILE"]; s.Value != password || w.Env["DB_PASSWORD_FILE"] != s.Real || s.Filesystem != "tmpfs" {
			t.Errorf("%s: %+v", w.Env["DB_PASSWORD_FILE"], s)
		}
		if want := "secret-init: warning: /run/secrets/db_password is a mount, and cannot be replaced: the secret is at /dev/shm/secret-init-*/db_password\n"; normal(c.Logs().Stderr) != want {
			t.Errorf("said %q", c.Logs().Stderr)
		}
		if content, err := os.ReadFile(file); err != nil || string(content) != provided {
			t.Errorf("the platform's file: %q, %v", content, err)
		}
	})
}
