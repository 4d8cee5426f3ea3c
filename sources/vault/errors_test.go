//go:build integration

package vault_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"secret-init/sources"
	"secret-init/sources/sourcetest"
	"secret-init/sources/vault"
	"secret-init/tools/servers"
)

var update = flag.Bool("update", false, "write testdata/errors.txt anew")

// errorCase is one row of testdata/errors.txt.
type errorCase struct {
	name, ref string
	class     sources.Class
	// env is laid over that of the root token; an empty value unsets.
	env sourcetest.Env
	// before arranges the server's state.
	before func()
}

// canned answers every read of secret/db in Vault's place: what one node of
// 1.13 cannot be brought to say.
func (f fixture) canned(status int, header http.Header, body string) func() {
	return f.cannedAt("secret/data/db", status, header, body)
}

// cannedAt does the same for another path of the API.
func (f fixture) cannedAt(path string, status int, header http.Header, body string) func() {
	return func() {
		f.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/v1/"+path {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			maps.Copy(w.Header(), header)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		})
	}
}

func (f fixture) errorCases(t *testing.T) []errorCase {
	const db = "vault:secret/db#password"
	f.PutKV("db", map[string]string{"username": "app", "password": sourcetest.Canary})
	for _, name := range []string{"deleted", "destroyed"} {
		f.PutKV(name, map[string]string{"password": sourcetest.Canary})
	}
	f.Write("secret/delete/deleted", map[string]any{"versions": []int{1}})
	f.Write("secret/destroy/destroyed", map[string]any{"versions": []int{1}})
	f.Write("kv1/db", map[string]string{"password": sourcetest.Canary})
	f.Enable("transit", "transit", nil)
	f.Write("transit/keys/app", nil)
	f.Enable("pki", "pki", nil)
	f.Policy("nothing", `path "secret/data/other" { capabilities = ["read"] }`)
	role, _ := f.appRole("app", `path "secret/data/other" { capabilities = ["read"] }`)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	_, port, err := net.SplitHostPort(closed.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	wrong := "hvs." + sourcetest.Canary
	approle := sourcetest.Env{"VAULT_TOKEN": "", "VAULT_ROLE_ID": role, "VAULT_SECRET_ID": sourcetest.Canary}
	messages := func(text string) string { return `{"errors":["` + text + " " + sourcetest.Canary + `"]}` }
	return []errorCase{
		{name: "no VAULT_ADDR", ref: db, env: sourcetest.Env{"VAULT_ADDR": ""}},
		{name: "VAULT_ADDR without a scheme", ref: db, env: sourcetest.Env{"VAULT_ADDR": "vault:8200"}},
		{name: "nothing to log in with", ref: db, class: sources.Denied, env: sourcetest.Env{"VAULT_TOKEN": ""}},
		{name: "a role id alone", ref: db, class: sources.Denied, env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_ROLE_ID": role}},
		{name: "two ways to log in", ref: db, env: sourcetest.Env{"VAULT_ROLE_ID": role}},
		{name: "an unknown way to log in", ref: db, env: sourcetest.Env{"VAULT_AUTH_METHOD": "kerberos"}},
		{name: "a token and a token file", ref: db, env: sourcetest.Env{"VAULT_TOKEN_FILE": "/nonexistent/token"}},
		{name: "a token file that does not exist", ref: db, class: sources.Denied, env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_TOKEN_FILE": "/nonexistent/token"}},
		{name: "a token file that is empty", ref: db, class: sources.Denied, env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_WRAPPED_TOKEN_FILE": "/dev/null"}},
		{name: "a token with a blank in it", ref: db, env: sourcetest.Env{"VAULT_TOKEN": "Bearer " + wrong}},
		{name: "a user without a password", ref: db, class: sources.Denied, env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_AUTH_METHOD": "ldap", "VAULT_USERNAME": "app"}},
		{name: "a user of which directory", ref: db, env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_USERNAME": "app"}},
		{name: "kubernetes without a role", ref: db, class: sources.Denied, env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_AUTH_METHOD": "kubernetes"}},
		{name: "kubernetes outside of Kubernetes", ref: db, class: sources.Denied, env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_AUTH_METHOD": "kubernetes", "VAULT_ROLE": "app"}},
		{name: "jwt without a token", ref: db, class: sources.Denied, env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_AUTH_METHOD": "jwt", "VAULT_ROLE": "app"}},
		{name: "cert without a certificate", ref: db, class: sources.Denied, env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_AUTH_METHOD": "cert"}},
		{name: "a certificate without its key", ref: db, env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_CLIENT_CERT": "/nonexistent/cert.pem"}},
		{name: "a wrapping token that was used", ref: db, class: sources.Denied, env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_WRAPPED_TOKEN": wrong}},
		{name: "a wrapped secret id without a role id", ref: db,
			env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_WRAPPED_TOKEN": f.Wrap(http.MethodPut, "auth/approle/role/app/secret-id", map[string]any{})}},
		{name: "a wrong token", ref: db, class: sources.Denied, env: sourcetest.Env{"VAULT_TOKEN": wrong}},
		{name: "a token that lacks the policy", ref: db, class: sources.Denied, env: sourcetest.Env{"VAULT_TOKEN": f.Token("nothing")}},
		{name: "a token that lacks the policy for a request", ref: "vault:transit/decrypt/app?method=write&ciphertext=x", class: sources.Denied,
			env: sourcetest.Env{"VAULT_TOKEN": f.Token("nothing")}},
		{name: "a wrong secret id", ref: db, class: sources.Denied,
			env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_ROLE_ID": role, "VAULT_SECRET_ID": sourcetest.Canary}},
		{name: "no auth method at the path", ref: db, class: sources.Denied,
			env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_ROLE_ID": role, "VAULT_SECRET_ID": sourcetest.Canary, "VAULT_AUTH_PATH": "roles"}},
		{name: "a document that does not exist", ref: "vault:secret/absent", class: sources.NotFound},
		{name: "a document of KV version 1 that does not exist", ref: "vault:kv1/absent", class: sources.NotFound},
		{name: "no such mount", ref: "vault:nowhere/db", class: sources.NotFound},
		{name: "a key that does not exist", ref: "vault:secret/db#pasword", class: sources.NotFound},
		{name: "a version that does not exist", ref: "vault:secret/db?version=9", class: sources.NotFound},
		{name: "a version of KV version 1", ref: "vault:kv1/db?version=1"},
		{name: "deleted", ref: "vault:secret/deleted", class: sources.NotFound},
		{name: "destroyed", ref: "vault:secret/destroyed", class: sources.NotFound},
		{name: "read instead of requested", ref: "vault:pki/issue/web"},
		{name: "requested instead of read", ref: "vault:transit/export/encryption-key/app?method=write"},
		{name: "a request with a wrong field", ref: "vault:transit/decrypt/app?method=write&ciphertext=" + sourcetest.Canary},
		{name: "a request to an unknown role", ref: "vault:pki/issue/web?method=write&common_name=x", class: sources.NotFound},
		{name: "nothing listens", ref: db, class: sources.Unavailable, env: sourcetest.Env{"VAULT_ADDR": "http://" + closed.Addr().String()}},
		{name: "an address that no server has", ref: db, env: sourcetest.Env{"VAULT_ADDR": "http://[::]:" + port}},
		{name: "https, and the server speaks http", ref: db, env: sourcetest.Env{"VAULT_ADDR": strings.Replace(f.Address, "http:", "https:", 1)}},
		{name: "http, and the server speaks https", ref: db, env: sourcetest.Env{"VAULT_ADDR": strings.Replace(f.TLS, "https:", "http:", 1)}},
		{name: "an unknown authority", ref: db, env: sourcetest.Env{"VAULT_ADDR": f.TLS}},
		{name: "a certificate for another name", ref: db,
			env: sourcetest.Env{"VAULT_ADDR": f.TLS, "VAULT_CACERT": f.CAFile, "VAULT_TLS_SERVER_NAME": "vault.example"}},
		{name: "a certificate file that does not exist", ref: db, env: sourcetest.Env{"VAULT_CACERT": "/nonexistent/ca.pem"}},
		{name: "a node that lags behind (stand-in)", ref: db, class: sources.Unavailable,
			before: f.canned(412, nil, messages("required index state not present"))},
		{name: "the rate limit (stand-in)", ref: db, class: sources.Unavailable, before: f.canned(429, nil, messages("request path x: rate limit quota exceeded"))},
		{name: "a fault of the server (stand-in)", ref: db, class: sources.Unavailable, before: f.canned(500, nil, messages("internal error"))},
		{name: "a proxy without a server (stand-in)", ref: db, class: sources.Unavailable, before: f.canned(502, nil, sourcetest.Canary)},
		{name: "a standby (stand-in)", ref: db, class: sources.Unavailable,
			before: f.canned(500, nil, messages("local node not active but active cluster node not found"))},
		{name: "a standby that redirects (stand-in)", ref: db, class: sources.Unavailable,
			before: f.canned(307, http.Header{"Location": {"https://active.example:8200/v1/secret/data/db"}}, "")},
		{name: "a redirect to another server (stand-in)", ref: db, before: f.canned(301, http.Header{"Location": {"https://vault.example/v1/secret/data/db"}}, "")},
		{name: "a web page (stand-in)", ref: db, before: f.canned(200, http.Header{"Content-Type": {"text/html; charset=utf-8"}}, "<html>"+sourcetest.Canary)},
		{name: "JSON that breaks off (stand-in)", ref: db, before: f.canned(200, nil, `{"data": {"data": {"password": "`+sourcetest.Canary)},
		{name: "an answer of 33 MiB (stand-in)", ref: db, before: f.canned(200, nil, strings.Repeat(" ", 33<<20))},
		{name: "an answer that says it has 33 MiB (stand-in)", ref: db, before: f.canned(200, http.Header{"Content-Length": {"34603008"}}, "{")},
		{name: "a status that Vault does not have (stand-in)", ref: db, before: f.canned(418, nil, messages("teapot"))},
		{name: "no content (stand-in)", ref: db, before: f.canned(204, nil, "")},
		{name: "no data (stand-in)", ref: db, before: f.canned(200, nil, "{}")},
		{name: "data that is not of KV version 2 (stand-in)", ref: db, before: f.canned(200, nil, `{"data": {"password": "`+sourcetest.Canary+`"}}`)},
		{name: "a mount of something else (stand-in)", ref: db, before: f.cannedAt("sys/internal/ui/mounts/secret/db", 200, nil, `{"password": "`+sourcetest.Canary+`"}`)},
		{name: "a login that is not JSON (stand-in)", ref: db, env: approle, before: f.cannedAt("auth/approle/login", 200, nil, "<"+sourcetest.Canary)},
		{name: "a login without a token (stand-in)", ref: db, class: sources.Denied, env: approle, before: f.cannedAt("auth/approle/login", 200, nil, `{"data": {}}`)},
		{name: "a login that is not there (stand-in)", ref: db, env: approle, before: f.cannedAt("auth/approle/login", 404, nil, `{"errors":[]}`)},
		{name: "a wrapping token's answer that is not JSON (stand-in)", ref: db, env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_WRAPPED_TOKEN": wrong},
			before: f.cannedAt("sys/wrapping/unwrap", 200, nil, "<"+sourcetest.Canary)},
		{name: "a wrapped token with a role id", ref: db,
			env: sourcetest.Env{"VAULT_TOKEN": "", "VAULT_ROLE_ID": role, "VAULT_WRAPPED_TOKEN": f.Wrap(http.MethodPut, "auth/token/create", map[string]any{})}},
		// The last: it stays so.
		{name: "sealed", ref: db, class: sources.Unavailable, before: f.Seal},
	}
}

var changing = regexp.MustCompile(`127\.0\.0\.1:\d+|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

// TestErrors compares the two lines that a user sees with testdata/errors.txt.
func TestErrors(t *testing.T) {
	f := start(t)
	var golden bytes.Buffer
	for _, c := range f.errorCases(t) {
		t.Run(c.name, func(t *testing.T) {
			if c.before != nil {
				c.before()
				defer f.Forget()
			}
			env := maps.Clone(f.env)
			maps.Copy(env, c.env)
			timeout := 20 * time.Second
			if c.class == sources.Unavailable {
				timeout = 300 * time.Millisecond
			}
			_, errs := fetchWithin(t, timeout, env, c.ref)
			err := errs[0]
			if err == nil {
				t.Fatal("no error")
			}
			if class := sources.ClassOf(err); class != c.class {
				t.Errorf("class %v, want %v", class, c.class)
			}
			fmt.Fprintf(&golden, "# %s\nerror: %v\n", c.name, err)
			if hint := sources.HintOf(err); hint != "" {
				fmt.Fprintf(&golden, "hint: %s\n", hint)
			}
			golden.WriteByte('\n')
		})
	}
	text := changing.ReplaceAll(golden.Bytes(), []byte("…"))
	if bytes.Contains(text, []byte(sourcetest.Canary)) {
		t.Error("the canary is in an error")
	}
	const path = "testdata/errors.txt"
	if *update {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("the errors are not those of %s; now they are:\n%s", path, text)
	}
}

// TestRetry lets the stand-in fail once; the second attempt reaches Vault.
func TestRetry(t *testing.T) {
	f := start(t)
	f.PutKV("db", map[string]string{"password": "s3cret"})
	for _, status := range []int{412, 429, 500, 502, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			var failures atomic.Int32
			f.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/v1/secret/data/db" || failures.Add(1) > 1 {
					return false
				}
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(status)
				return true
			})
			defer f.Forget()
			started := time.Now()
			want(t, f.env, "vault:secret/db#password", "s3cret")
			if took := time.Since(started); took < time.Second {
				t.Errorf("tried again after %v, and Retry-After says 1 s", took)
			}
		})
	}
	t.Run("Vault's own rate limit", func(t *testing.T) {
		f.Write("sys/quotas/rate-limit/slow", map[string]any{"path": "secret/", "rate": 1, "interval": "1s"})
		defer f.Write("sys/quotas/rate-limit/slow", map[string]any{"path": "secret/", "rate": 1000, "interval": "1s"})
		f.Forget()
		_, errs := fetch(t, f.env, "vault:secret/db?version=1#password", "vault:secret/db#password")
		if errs[0] != nil || errs[1] != nil {
			t.Error(errs)
		}
		if n := f.Requests()["GET secret/data/db"]; n < 3 {
			t.Errorf("%d reads: the limit was never met", n)
		}
	})
	t.Run("sealed, and unsealed in time", func(t *testing.T) {
		f.Seal()
		done := make(chan struct{})
		go func() {
			defer close(done)
			want(t, f.env, "vault:secret/db#password", "s3cret")
		}()
		time.Sleep(300 * time.Millisecond)
		f.Unseal()
		<-done
	})
}

// TestStandby has a real cluster: a standby asks the active node, and without
// one says so.
func TestStandby(t *testing.T) {
	active, standby := servers.StartVaultPair(t)
	active.Write("kv1/db", map[string]string{"password": "s3cret"})
	env := sourcetest.Env{"VAULT_ADDR": standby.Address, "VAULT_TOKEN": active.RootToken}
	want(t, env, "vault:kv1/db#password", "s3cret")
	active.Seal()
	_, errs := fetchWithin(t, 2*time.Second, env, "vault:kv1/db#password")
	if sources.ClassOf(errs[0]) != sources.Unavailable || !strings.Contains(errs[0].Error(), "is a standby") {
		t.Error(errs[0])
	}
}

func TestRedirect(t *testing.T) {
	f := start(t)
	f.PutKV("db", map[string]string{"password": "s3cret"})
	var reached atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(other.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		f.canned(status, http.Header{"Location": {other.URL + "/v1/secret/data/db"}}, "")()
		_, errs := fetchWithin(t, 300*time.Millisecond, f.env, "vault:secret/db#password")
		if errs[0] == nil || !strings.Contains(errs[0].Error(), "to another server") {
			t.Errorf("%d: %v", status, errs[0])
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests reached the other server", n)
	}
	f.canned(307, http.Header{"Location": {"/v1/secret/data/moved"}}, "")()
	f.PutKV("moved", map[string]string{"password": "same server"})
	want(t, f.env, "vault:secret/db#password", "same server")
}

// TestDeadline: neither a login nor a revocation outlives its context, and
// Fetcher is not there to cut it off.
func TestDeadline(t *testing.T) {
	f := start(t)
	f.PutKV("db", map[string]string{"password": "s3cret"})
	role, secret := f.appRole("app", readDB)
	hang := func(path string) {
		f.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == path {
				// The server notices that the client is gone only once it has read the body.
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			}
			return r.URL.Path == path
		})
	}
	env := f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret})
	within := func(what string, call func(context.Context) error) {
		const timeout = 200 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		started := time.Now()
		if err := call(ctx); sources.ClassOf(err) != sources.Unavailable || err == nil {
			t.Errorf("%s: %v", what, err)
		}
		if late := time.Since(started) - timeout; late > 100*time.Millisecond {
			t.Errorf("%s: %v after the deadline", what, late)
		}
	}
	source, err := vault.Backend.Open(fetcher(t, env).Settings)
	if err != nil {
		t.Fatal(err)
	}
	doc := sources.Ref{Scheme: "vault", Path: "secret/db"}
	read := func(ctx context.Context) error { _, err := source.Fetch(ctx, doc); return err }
	for _, path := range []string{"/v1/auth/approle/login", "/v1/sys/internal/ui/mounts/secret/db", "/v1/secret/data/db"} {
		hang(path)
		within(path, read)
	}
	f.Forget()
	if err := read(t.Context()); err != nil {
		t.Fatal(err)
	}
	hang("/v1/auth/token/revoke-self")
	within("revocation", source.Close)
}

// TestRoads are the ways to a server that is not simply at a host and a port.
func TestRoads(t *testing.T) {
	f := start(t)
	f.PutKV("db", map[string]string{"password": "s3cret"})
	target, err := url.Parse(f.Direct)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("a unix socket", func(t *testing.T) {
		listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: httputil.NewSingleHostReverseProxy(target), ReadHeaderTimeout: time.Minute}
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(func() { _ = server.Close() })
		want(t, f.with(sourcetest.Env{"VAULT_ADDR": "unix://" + listener.Addr().String(), "VAULT_TOKEN": f.RootToken}), ref, "s3cret")
	})
	t.Run("a proxy", func(t *testing.T) {
		var asked atomic.Value
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Store(r.URL.Host)
			httputil.NewSingleHostReverseProxy(target).ServeHTTP(w, r)
		}))
		t.Cleanup(proxy.Close)
		want(t, f.with(sourcetest.Env{"VAULT_ADDR": "http://vault.test:8200", "VAULT_TOKEN": f.RootToken, "VAULT_PROXY_ADDR": proxy.URL}), ref, "s3cret")
		if asked.Load() != "vault.test:8200" {
			t.Errorf("the proxy was asked for %v", asked.Load())
		}
	})
}

func TestTLS(t *testing.T) {
	f := start(t)
	f.PutKV("db", map[string]string{"password": "s3cret"})
	const ref = "vault:secret/db#password"
	env := func(more sourcetest.Env) sourcetest.Env {
		more["VAULT_ADDR"], more["VAULT_TOKEN"] = f.TLS, f.RootToken
		return more
	}
	ca, err := os.ReadFile(f.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(folder+"/ca.pem", ca, 0o600); err != nil {
		t.Fatal(err)
	}
	client := servers.NewCA(t, "clients").Issue(t, "client")
	want(t, env(sourcetest.Env{"VAULT_CACERT": f.CAFile}), ref, "s3cret")
	want(t, env(sourcetest.Env{"VAULT_CACERT_BYTES": string(ca)}), ref, "s3cret")
	want(t, env(sourcetest.Env{"VAULT_CAPATH": folder}), ref, "s3cret")
	want(t, env(sourcetest.Env{"VAULT_CACERT": f.CAFile, "VAULT_TLS_SERVER_NAME": "localhost"}), ref, "s3cret")
	want(t, env(sourcetest.Env{"VAULT_SKIP_VERIFY": "true"}), ref, "s3cret")
	want(t, env(sourcetest.Env{"VAULT_CACERT": f.CAFile, "VAULT_CLIENT_CERT": client.CertFile, "VAULT_CLIENT_KEY": client.KeyFile}), ref, "s3cret")
}
