//go:build integration

// Package examples runs each example as its README writes it.
package examples

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"secret-init/tools/servers"
)

// What differs from a user's machine, and nothing else does:
//   - There is no registry here. Where the engine has no image of the name that
//     an example starts from, it gets one for the time of the test, made from
//     Debian's packages or from the vault command that make tools builds.
//   - AWS is moto, and so AWS_ENDPOINT_URL and the credentials are moto's.
//   - Where docker has no compose command, docker-compose stands in for it.

// standIns are the images that examples start from, and what is made in the
// place of each; the first is what others are made from.
var standIns = []struct {
	name  string
	build func(testing.TB) string
}{
	{"debian:bookworm-slim", servers.DebianImage},
	{"hashicorp/vault", vaultImage},
	{"mariadb:11", servers.MariaDBImage},
	{"nginx:1.28", servers.NginxImage},
	{"postgres:17", postgresImage},
	{"secret-init", secretInitImage},
}

// checks look at an example while it runs, beyond what its README shows. An
// example has one or the test fails: a folder cannot be forgotten.
var checks = map[string]func(*testing.T, *run){
	"aws":             checkAWS,
	"compose":         checkNothing,
	"ecs":             checkECS,
	"kubernetes":      checkKubernetes,
	"mariadb":         checkMariaDB,
	"nonroot":         checkNonroot,
	"pki-nginx":       checkPKI,
	"postgres":        checkPostgres,
	"remove-ready":    checkRemoveReady,
	"scratch":         checkScratch,
	"sops-docker-run": checkNothing,
	"swarm":           checkSwarm,
	"templates":       checkTemplates,
	"vault-approle":   checkVault,
}

// setups come before an example's commands, and give the variables that those
// need of a machine.
var setups = map[string]func(*testing.T) []string{
	"aws":   motoEnv,
	"ecs":   motoEnv,
	"swarm": swarmEngine,
}

const (
	// exampleTimeout bounds the commands of one README.
	exampleTimeout = 3 * time.Minute
	// lockTimeout is for another run of this test on the same engine: the
	// names of containers and images are the README's own.
	lockTimeout = 10 * time.Minute
)

func TestExamples(t *testing.T) {
	lock(t)
	env := environment(t)
	for _, image := range standIns {
		standIn(t, image.name, image.build)
	}
	buildOnce(t, env)
	readmes, err := filepath.Glob("*/README.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("each", func(t *testing.T) {
		for _, path := range readmes {
			name := filepath.Dir(path)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				check := checks[name]
				if check == nil {
					t.Fatalf("%s has no entry in checks", name)
				}
				r := &run{readme: readReadme(t, path), env: env}
				if setup := setups[name]; setup != nil {
					r.env = append(r.env[:len(r.env):len(r.env)], setup(t)...)
				}
				r.start(t)
				check(t, r)
			})
		}
	})
	for name := range checks {
		if _, err := os.Stat(filepath.Join(name, "README.md")); err != nil {
			t.Errorf("checks names an example that is not there: %v", err)
		}
	}
}

// buildOnce builds the image that most examples name as their own. Both of its
// stages get a name, so that the engine is left without either.
func buildOnce(t *testing.T, env []string) {
	t.Helper()
	t.Cleanup(func() {
		if out, err := command(context.Background(), env, "docker rmi example-stage-app example-stage-secret-init"); err != nil {
			t.Errorf("docker rmi: %v\n%s", err, out)
		}
	})
	for _, stage := range []string{"secret-init", "app"} {
		if out, err := command(t.Context(), env, "docker build -q -f Dockerfile.example --target "+stage+" -t example-stage-"+stage+" ."); err != nil {
			t.Fatalf("Dockerfile.example: %v\n%s", err, out)
		}
	}
}

func checkNothing(*testing.T, *run) {}

// readme is what an example's README promises.
type readme struct {
	// commands are the first sh block, cleanup is the last, under "remove".
	commands, cleanup string
	// output are the lines of the text blocks.
	output []string
	// folder is where the commands keep their files: .cache/example-NAME.
	folder string
}

var (
	block      = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")
	folderName = regexp.MustCompile(`\.cache/(example-[a-z0-9-]+)`)
)

func readReadme(t *testing.T, path string) readme {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r readme
	var scripts []string
	for _, match := range block.FindAllStringSubmatch(string(text), -1) {
		switch match[1] {
		case "sh":
			scripts = append(scripts, match[2])
		case "text":
			r.output = append(r.output, strings.Split(strings.TrimSuffix(match[2], "\n"), "\n")...)
		}
	}
	if len(scripts) != 2 || len(r.output) == 0 {
		t.Fatalf("%s has %d sh blocks and %d lines of text blocks: it needs the commands, what one sees, and how to remove it", path, len(scripts), len(r.output))
	}
	r.commands, r.cleanup = scripts[0], scripts[1]
	if match := folderName.FindString(r.commands); match != "" {
		r.folder = filepath.Join(servers.Root(), match)
	}
	return r
}

// run is an example that is running.
type run struct {
	readme
	env    []string
	output string
}

// start runs the commands, compares what they print, and has the cleanup run
// at the test's end.
func (r *run) start(t *testing.T) {
	t.Helper()
	before := left(t)
	t.Cleanup(func() {
		cleanup := r.cleanup
		if t.Failed() {
			// Some of it may not have come to be.
			cleanup = "set +e\n" + cleanup
		}
		// t.Context has ended by now.
		if out, err := command(context.Background(), r.env, cleanup); err != nil {
			t.Errorf("the README's commands to remove it: %v\n%s", err, out)
		}
		names := regexp.MustCompile(`\bexample-[a-z0-9-]+`).FindAllString(r.commands+r.cleanup, -1)
		now := left(t)
		for _, name := range names {
			if strings.Contains(now, name) && !strings.Contains(before, name) {
				t.Errorf("%s is left in the engine after the cleanup:\n%s", name, now)
			}
		}
		if r.folder != "" {
			if _, err := os.Stat(r.folder); err == nil {
				t.Errorf("%s is left after the cleanup", r.folder)
			}
		}
	})
	out, err := command(t.Context(), r.env, r.commands)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.output = out
	rest := out
	for _, line := range r.readme.output {
		end := expected(line).FindStringIndex(rest)
		if end == nil {
			t.Fatalf("the README's line %q is not in the output, or not in its place:\n%s", line, out)
		}
		rest = rest[end[1]:]
	}
	for _, value := range r.sopsValues(t) {
		if strings.Contains(out, value) {
			t.Errorf("a secret's value is in the output:\n%s", out)
		}
	}
}

// expected is a README's line of output; ... stands for anything in it. Compose
// puts a container's name before a line.
func expected(line string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)` + strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, `.*`) + `\s*?$`)
}

// sopsValues are the secrets of the example's own SOPS file, where it has one.
func (r *run) sopsValues(t *testing.T) map[string]string {
	t.Helper()
	values := map[string]string{}
	key := filepath.Join(r.folder, "key.txt")
	if _, err := os.Stat(key); err != nil {
		return nil
	}
	identity := servers.Sops{Env: []string{"SOPS_AGE_KEY_FILE=" + key}}
	if err := yaml.Unmarshal(identity.Decrypt(t, filepath.Join(r.folder, "secrets.enc.yaml"), "yaml"), values); err != nil {
		t.Fatal(err)
	}
	return values
}

// last is the last of the README's commands: the one that starts the container.
func (r *run) last() string {
	lines := strings.Split(strings.TrimSuffix(r.commands, "\n"), "\n")
	first := len(lines) - 1
	for first > 0 && strings.HasSuffix(lines[first-1], `\`) {
		first--
	}
	return strings.Join(lines[first:], "\n")
}

// command runs a script in the repository's folder and gives what it printed.
func command(ctx context.Context, env []string, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, exampleTimeout)
	defer cancel()
	return commandWithin(ctx, env, script)
}

// commandWithin is command with a deadline of its own.
func commandWithin(ctx context.Context, env []string, script string) (string, error) {
	began := time.Now()
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", script)
	cmd.Dir, cmd.Env = servers.Root(), env
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done within %v: %w", time.Since(began).Round(time.Second), ctx.Err())
	}
	return out.String(), err
}

// exitCode is the one that command's error tells; -1 for another error.
func exitCode(err error) int {
	var exit *exec.ExitError
	if err == nil {
		return 0
	}
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// must is command for something that has to succeed.
func (r *run) must(t *testing.T, script string) string {
	t.Helper()
	out, err := command(t.Context(), r.env, script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSuffix(out, "\n")
}

// left lists what of any example is in the engine.
func left(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, list := range []string{
		"docker ps --all --format '{{.Names}}'",
		"docker images --format '{{.Repository}}'",
		"docker volume ls --format '{{.Name}}'",
		"docker network ls --format '{{.Name}}'",
	} {
		out, err := command(context.Background(), os.Environ(), list+" | grep ^example- || true")
		if err != nil {
			t.Errorf("%s: %v\n%s", list, err, out)
		}
		all.WriteString(out)
	}
	return all.String()
}

// environment is a user's: the tools on PATH, a HOME, and none of the
// settings of this machine's own sources.
func environment(t *testing.T) []string {
	t.Helper()
	home, root := t.TempDir(), servers.Root()
	env := []string{
		"HOME=" + home,
		"PATH=" + filepath.Join(root, ".cache", "bin") + ":" + filepath.Join(root, "bin") + ":" + os.Getenv("PATH"),
		"LC_ALL=C.UTF-8",
	}
	composePlugin(t, home)
	for _, name := range []string{"DOCKER_HOST", "DOCKER_CONTEXT"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	// Go's caches are below the real HOME.
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOFLAGS"} {
		value, err := command(t.Context(), os.Environ(), "go env "+name)
		if err != nil {
			t.Fatalf("go env: %v\n%s", err, value)
		}
		env = append(env, name+"="+strings.TrimSpace(value))
	}
	return env
}

// composePlugin gives docker a compose command where it has none: the
// docker-compose of this machine.
func composePlugin(t *testing.T, home string) {
	t.Helper()
	if _, err := command(t.Context(), os.Environ(), "docker compose version"); err == nil {
		return
	}
	folder := filepath.Join(home, ".docker", "cli-plugins")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	script := `#!/bin/sh
if [ "$1" = docker-cli-plugin-metadata ]; then
	echo '{"SchemaVersion": "0.1.0", "Vendor": "docker-compose"}'
	exit
fi
shift
exec ` + servers.Tool(t, "docker-compose") + ` "$@"
`
	if err := os.WriteFile(filepath.Join(folder, "docker-compose"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// lock waits for another run of this test on this machine.
func lock(t *testing.T) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(servers.Root(), ".cache", "examples.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(200 * time.Millisecond) {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			t.Fatalf("%s: %v", file.Name(), err)
		}
	}
}

// standIn gives an image a name for the time of the test, unless the engine
// has an image of that name.
func standIn(t *testing.T, name string, build func(testing.TB) string) {
	t.Helper()
	if _, err := command(t.Context(), os.Environ(), "docker image inspect "+name); err == nil {
		return
	}
	if out, err := command(t.Context(), os.Environ(), "docker tag "+build(t)+" "+name); err != nil {
		t.Fatalf("docker tag: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := command(context.Background(), os.Environ(), "docker rmi "+name); err != nil {
			t.Errorf("docker rmi %s: %v\n%s", name, err, out)
		}
	})
}
