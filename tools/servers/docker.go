//go:build integration

package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The limits of one docker command, of a container's whole run, and of making
// an image.
const (
	dockerTimeout = time.Minute
	waitTimeout   = 2 * time.Minute
	imageTimeout  = 15 * time.Minute
)

// dockerLabel marks what the tests make. Its value is this run's own, so that
// what a killed run left behind can be told from what another run is using:
// docker ps --all --filter label=secret-init-test
const dockerLabel = "secret-init-test"

var (
	dockerRun     = fmt.Sprintf("%d-%08x", os.Getpid(), rand.Uint32())
	dockerCounter atomic.Int64
)

// dockerName is a name that nothing else on this engine has.
func dockerName() string {
	return fmt.Sprintf("%s-%s-%d", dockerLabel, dockerRun, dockerCounter.Add(1))
}

// Output is what a finished command left.
type Output struct {
	Stdout, Stderr string
	Code           int
}

// command runs a command to its end. Its error is that it could not be
// started or did not end in time; an exit code is none.
func command(timeout time.Duration, stdin io.Reader, name string, args ...string) (Output, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	// A child that keeps the pipes open must not outlast the limit.
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	out := Output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if ctx.Err() != nil {
		return out, fmt.Errorf("%s %s did not end within %v", name, args[0], timeout)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return out, err
}

// docker runs a docker command that has to succeed, and gives its output
// without the last newline.
func docker(tb testing.TB, timeout time.Duration, stdin io.Reader, args ...string) string {
	tb.Helper()
	out, err := command(timeout, stdin, "docker", args...)
	if err != nil {
		tb.Fatal(err)
	}
	if out.Code != 0 {
		tb.Fatalf("docker %s: exit code %d\n%s%s", args[0], out.Code, out.Stdout, out.Stderr)
	}
	return strings.TrimSuffix(out.Stdout, "\n")
}

// dockerCleanup removes something when the test ends.
func dockerCleanup(tb testing.TB, args ...string) {
	tb.Cleanup(func() {
		out, err := command(dockerTimeout, nil, "docker", args...)
		if err != nil || out.Code != 0 {
			tb.Errorf("docker %s: exit code %d, %v\n%s", strings.Join(args, " "), out.Code, err, out.Stderr)
		}
	})
}

// RunSpec says how to run a container.
type RunSpec struct {
	// Image is a tag.
	Image string
	// Flags are further ones of docker run, as "--read-only".
	Flags []string
	// Env are variables, as NAME=VALUE.
	Env []string
	// Network is the one to be in. Without it, and without a --network in
	// Flags, the container has none but its own loopback.
	Network *Network
	// Cmd replaces the image's command, or is what its entry point gets.
	Cmd []string
}

// Container is one that a test runs. Its methods fail that test.
type Container struct {
	ID string
	tb testing.TB
}

// CreateContainer makes a container without starting it. It is removed, with
// its anonymous volumes, when the test ends.
func CreateContainer(tb testing.TB, spec RunSpec) *Container {
	tb.Helper()
	args := []string{"create", "--name", dockerName(), "--label", dockerLabel + "=" + dockerRun}
	switch {
	case spec.Network != nil:
		args = append(args, "--network", spec.Network.ID)
	case !slices.ContainsFunc(spec.Flags, func(flag string) bool { return strings.HasPrefix(flag, "--net") }):
		args = append(args, "--network", "none")
	}
	for _, variable := range spec.Env {
		args = append(args, "--env", variable)
	}
	args = append(append(append(args, spec.Flags...), spec.Image), spec.Cmd...)
	c := &Container{ID: docker(tb, dockerTimeout, nil, args...), tb: tb}
	dockerCleanup(tb, "rm", "--force", "--volumes", c.ID)
	tb.Cleanup(func() {
		if out, err := command(dockerTimeout, nil, "docker", "logs", "--tail", "40", c.ID); err == nil && tb.Failed() {
			tb.Logf("container %.12s said:\n%s%s", c.ID, out.Stdout, out.Stderr)
		}
	})
	return c
}

// FindContainer is one that somebody else has made, and removes.
func FindContainer(tb testing.TB, id string) *Container { return &Container{ID: id, tb: tb} }

// RunContainer makes and starts a container, and does not wait for its end.
func RunContainer(tb testing.TB, spec RunSpec) *Container {
	tb.Helper()
	c := CreateContainer(tb, spec)
	if err := c.Start(); err != nil {
		tb.Fatal(err)
	}
	return c
}

// RunToEnd makes and starts a container, and gives what it said and its exit
// code.
func RunToEnd(tb testing.TB, spec RunSpec) (*Container, Output) {
	tb.Helper()
	c := RunContainer(tb, spec)
	code := c.Wait()
	out := c.Logs()
	out.Code = code
	return c, out
}

// Start starts it. The error is the engine's: the container's first process
// could not be made.
func (c *Container) Start() error {
	c.tb.Helper()
	out, err := command(dockerTimeout, nil, "docker", "start", c.ID)
	if err != nil {
		return err
	}
	if out.Code != 0 {
		return fmt.Errorf("docker start: exit code %d: %s", out.Code, out.Stderr)
	}
	return nil
}

// Exec runs a command in the container as a user ("" is the image's). It runs
// in the container's configured environment, not in that of its processes.
func (c *Container) Exec(user string, cmd ...string) Output {
	c.tb.Helper()
	out, err := command(dockerTimeout, nil, "docker", append([]string{"exec", "--user", user, c.ID}, cmd...)...)
	if err != nil {
		c.tb.Fatal(err)
	}
	return out
}

// MustExec is Exec of a command that has to succeed; it gives what that
// printed to standard output, without the last newline.
func (c *Container) MustExec(user string, cmd ...string) string {
	c.tb.Helper()
	out := c.Exec(user, cmd...)
	if out.Code != 0 {
		c.tb.Fatalf("%q in the container: exit code %d\n%s%s", cmd, out.Code, out.Stdout, out.Stderr)
	}
	return strings.TrimSuffix(out.Stdout, "\n")
}

// Logs is what the container has said so far, of all its starts; Code is 0.
func (c *Container) Logs() Output {
	c.tb.Helper()
	out, err := command(dockerTimeout, nil, "docker", "logs", c.ID)
	if err != nil || out.Code != 0 {
		c.tb.Fatalf("docker logs: exit code %d, %v\n%s", out.Code, err, out.Stderr)
	}
	return out
}

// WaitLog waits until the container has said text, on either stream, times
// times: the logs of the starts before a restart stay. It fails at once when
// the container has ended without.
func (c *Container) WaitLog(text string, times int) {
	c.tb.Helper()
	said := func() bool {
		out := c.Logs()
		return strings.Count(out.Stdout, text)+strings.Count(out.Stderr, text) >= times
	}
	WaitFor(c.tb, fmt.Sprintf("the container's log line %q", text), func(context.Context) bool {
		// What it said last counts even if it has ended since.
		running := c.Running()
		if said() {
			return true
		}
		if !running {
			c.tb.Fatalf("the container ended without saying %q", text)
		}
		return false
	})
}

// Wait waits for the container's end and gives its exit code.
func (c *Container) Wait() int {
	c.tb.Helper()
	code, err := strconv.Atoi(docker(c.tb, waitTimeout, nil, "wait", c.ID))
	if err != nil {
		c.tb.Fatal(err)
	}
	return code
}

// Inspect is all that `docker inspect` prints, as JSON.
func (c *Container) Inspect() string {
	c.tb.Helper()
	return docker(c.tb, dockerTimeout, nil, "inspect", c.ID)
}

// Format is `docker inspect` through a Go template, as "{{.State.Status}}".
func (c *Container) Format(template string) string {
	c.tb.Helper()
	return docker(c.tb, dockerTimeout, nil, "inspect", "--format", template, c.ID)
}

// Running reports whether the container has started and not ended.
func (c *Container) Running() bool {
	c.tb.Helper()
	return c.Format("{{.State.Running}}") == "true"
}

// IP is the container's address in its one network.
func (c *Container) IP() string {
	c.tb.Helper()
	ip := c.Format("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
	if ip == "" {
		c.tb.Fatal("the container has no address")
	}
	return ip
}

// Kill sends a signal, as "TERM", to the container's pid 1.
func (c *Container) Kill(signal string) {
	c.tb.Helper()
	docker(c.tb, dockerTimeout, nil, "kill", "--signal", signal, c.ID)
}

// Stop sends the image's stop signal, and KILL after ten seconds.
func (c *Container) Stop() {
	c.tb.Helper()
	docker(c.tb, dockerTimeout, nil, "stop", "--time", "10", c.ID)
}

// Restart stops the container as Stop does and starts it again.
func (c *Container) Restart() {
	c.tb.Helper()
	docker(c.tb, dockerTimeout, nil, "restart", "--time", "10", c.ID)
}

// Diff lists what `docker diff` does: A, C or D, a blank and a path of the
// writable layer. Mounts, and so tmpfs and volumes, are not in it.
func (c *Container) Diff() []string {
	c.tb.Helper()
	return strings.FieldsFunc(docker(c.tb, dockerTimeout, nil, "diff", c.ID), func(r rune) bool { return r == '\n' })
}

// Pause freezes all processes of the container, and Unpause lets them go on.
func (c *Container) Pause() {
	c.tb.Helper()
	docker(c.tb, dockerTimeout, nil, "pause", c.ID)
}

// Unpause undoes Pause.
func (c *Container) Unpause() {
	c.tb.Helper()
	docker(c.tb, dockerTimeout, nil, "unpause", c.ID)
}
