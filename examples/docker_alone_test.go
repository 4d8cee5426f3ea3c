//go:build integration

package examples

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"secret-init/tools/servers"
)

// golangImage has this machine's Go, and of the official image what a build
// needs besides: make, and the certificates of the module proxy.
func golangImage(tb testing.TB) string {
	root, err := command(context.Background(), os.Environ(), "go env GOROOT")
	if err != nil {
		tb.Fatalf("go env: %v\n%s", err, root)
	}
	files := map[string]string{"go": strings.TrimSpace(root), "make": servers.Tool(tb, "make")}
	copies := "COPY go /usr/local/go\nCOPY make /usr/bin/make\n"
	if _, err := os.Stat("/etc/ssl/certs/ca-certificates.crt"); err == nil {
		files["certificates"] = "/etc/ssl/certs/ca-certificates.crt"
		copies += "COPY certificates /etc/ssl/certs/ca-certificates.crt\n"
	}
	return servers.BuildImage(tb, "FROM "+servers.DebianImage(tb)+"\n"+copies+"ENV PATH=/usr/local/go/bin:/usr/bin:/bin HOME=/root\n", files)
}

// compileTimeout is for all of the program's libraries, from nothing.
const compileTimeout = 15 * time.Minute

// TestDockerAlone builds the image as a user does who has neither Go nor make,
// and puts a secret through it. One source stands for all: the libraries of
// the others take minutes to compile from nothing.
func TestDockerAlone(t *testing.T) {
	lock(t)
	env := environment(t)
	standIn(t, "golang:1.26", golangImage)
	r := &run{env: env}
	const image = "example-docker-alone"
	ctx, cancel := context.WithTimeout(t.Context(), compileTimeout)
	defer cancel()
	if out, err := commandWithin(ctx, env, "docker build -q -t "+image+" --build-arg VERSION=v1-test --build-arg SOURCES=vault -f tools/Dockerfile ."); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := command(context.Background(), env, "docker rmi "+image); err != nil {
			t.Errorf("docker rmi: %v\n%s", err, out)
		}
	})
	if got := r.must(t, "docker run --rm "+image+" version"); got != "secret-init v1-test" {
		t.Errorf("version: %q", got)
	}
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte("secrets:\n  a: {from: file:/secret}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := r.must(t, `docker run --rm -v "$PWD/go.mod:/secret:ro" -v `+config+`:/etc/secret-init.yaml:ro -e SECRET_INIT_LOG_LEVEL=info `+image+" --supervise -- /secret-init version")
	if !strings.Contains(out, "secret-init v1-test") || !strings.Contains(out, "secrets delivered count=1") {
		t.Errorf("a start in the image: %s", out)
	}
}
