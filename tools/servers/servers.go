// Package servers starts the real servers and commands that the integration
// tests talk to: each on a free port of the loopback interface, each stopped
// by the test that started it. What cannot be started fails the test: a skip
// would hide it.
package servers

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// Root is the folder of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Tool is the path of a command that `make tools` put into .cache/bin, or
// else of one on PATH.
func Tool(tb testing.TB, names ...string) string {
	tb.Helper()
	for _, name := range names {
		if path := filepath.Join(Root(), ".cache", "bin", name); executable(path) {
			return path
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	tb.Fatalf("none of %q is on this machine: run make tools", names)
	return ""
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// FreePort is a TCP port of 127.0.0.1 that nothing listened on a moment ago.
func FreePort(tb testing.TB) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	return port
}

// Start runs a server until the test ends. Its output goes to a file that is
// shown when the test failed.
func Start(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	log, err := os.Create(filepath.Join(tb.TempDir(), "server.log"))
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if output, err := os.ReadFile(log.Name()); err == nil && tb.Failed() {
			tb.Logf("%s said:\n%s", filepath.Base(cmd.Path), output[max(0, len(output)-4000):])
		}
	})
}

// WaitFor polls until ready reports true; the test fails after a minute.
func WaitFor(tb testing.TB, what string, ready func(context.Context) bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for !ready(ctx) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			tb.Fatalf("%s was not ready within a minute", what)
		}
	}
}
