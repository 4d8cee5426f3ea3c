package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Vault is a real Vault server with its storage in memory, unsealed, with KV
// version 2 at secret/ and version 1 at kv1/.
type Vault struct {
	// Address is what a client under test is given: a counting reverse proxy
	// of ours in front of Direct.
	Address string
	// Direct is the server's own plain listener, for setting it up uncounted.
	Direct string
	// TLS is the server's own https listener, in front of which nothing
	// stands; CAFile certifies it.
	TLS, CAFile string
	// RootToken may do all.
	RootToken string

	tb        testing.TB
	unsealKey string
	mu        sync.Mutex
	requests  []*http.Request
	intercept func(http.ResponseWriter, *http.Request) bool
}

const vaultConfig = `
%s
disable_mlock = true
api_addr      = "http://127.0.0.1:%[2]s"
cluster_addr  = "http://127.0.0.1:%[3]s"
listener "tcp" {
  address         = "127.0.0.1:%[2]s"
  cluster_address = "127.0.0.1:%[3]s"
  tls_disable     = true
}
listener "tcp" {
  address         = "127.0.0.1:%[4]s"
  cluster_address = "127.0.0.1:%[5]s"
  tls_cert_file   = "%[6]s"
  tls_key_file    = "%[7]s"
}
`

// StartVault starts a server that lives until the test ends. Its first use on
// a machine needs the binary that `make tools` builds, or bao or vault on PATH.
func StartVault(tb testing.TB) *Vault {
	tb.Helper()
	v := runVault(tb, `storage "inmem" {}`)
	v.initialise()
	v.Unseal()
	v.Enable("secret", "kv", map[string]string{"version": "2"})
	v.Enable("kv1", "kv", map[string]string{"version": "1"})
	// A new KV version 2 mount answers 400 until it has set itself up.
	WaitFor(tb, "the KV mount", func(ctx context.Context) bool {
		_, err := v.call(ctx, http.MethodGet, "secret/config", nil)
		return err == nil
	})
	return v
}

// StartVaultPair starts a cluster of two: the second is a standby of the
// first. With the first sealed it finds no active node, since two of two are
// needed to choose one.
func StartVaultPair(tb testing.TB) (active, standby *Vault) {
	tb.Helper()
	storage := func(node string) string {
		return fmt.Sprintf("storage \"raft\" {\n  path = %q\n  node_id = %q\n}", tb.TempDir(), node)
	}
	active = runVault(tb, storage("a"))
	active.initialise()
	active.Unseal()
	WaitFor(tb, "the first node's election", func(ctx context.Context) bool {
		_, err := active.call(ctx, http.MethodPut, "sys/mounts/kv1", map[string]any{"type": "kv"})
		return err == nil
	})
	standby = runVault(tb, storage("b"))
	standby.RootToken, standby.unsealKey = active.RootToken, active.unsealKey
	standby.Write("sys/storage/raft/join", map[string]any{"leader_api_addr": active.Direct})
	// Joining answers before it has been done.
	WaitFor(tb, "the standby", func(ctx context.Context) bool {
		_, _ = standby.call(ctx, http.MethodPut, "sys/unseal", map[string]any{"key": active.unsealKey})
		_, err := standby.call(ctx, http.MethodGet, "sys/health?standbyok=true", nil)
		return err == nil
	})
	return active, standby
}

// runVault runs a server that is neither initialised nor unsealed.
func runVault(tb testing.TB, storage string) *Vault {
	tb.Helper()
	binary := Tool(tb, "vault", "bao")
	dir := tb.TempDir()
	port, tlsPort := FreePort(tb), FreePort(tb)
	ca := NewCA(tb, "vault test authority")
	cert := ca.Issue(tb, "localhost")
	config := filepath.Join(dir, "vault.hcl")
	text := fmt.Sprintf(vaultConfig, storage, port, FreePort(tb), tlsPort, FreePort(tb), cert.CertFile, cert.KeyFile)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(binary, "server", "-config="+config)
	// Vault 1.13's dependencies embed a certificate with a negative serial
	// number, which Go has refused since 1.23.
	cmd.Env = []string{"GODEBUG=x509negativeserial=1", "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	Start(tb, cmd)

	v := &Vault{tb: tb, Direct: "http://127.0.0.1:" + port, TLS: "https://127.0.0.1:" + tlsPort, CAFile: ca.CertFile}
	v.Address = v.startProxy()
	WaitFor(tb, "vault", func(ctx context.Context) bool {
		_, err := v.call(ctx, http.MethodGet, "sys/seal-status", nil)
		return err == nil
	})
	return v
}

func (v *Vault) initialise() {
	v.tb.Helper()
	initialised := v.Write("sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1})
	v.RootToken = initialised["root_token"].(string)
	v.unsealKey = initialised["keys"].([]any)[0].(string)
}

func (v *Vault) startProxy() string {
	target, err := url.Parse(v.Direct)
	if err != nil {
		v.tb.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.mu.Lock()
		v.requests = append(v.requests, r.Clone(context.WithoutCancel(r.Context())))
		intercept := v.intercept
		v.mu.Unlock()
		if intercept == nil || !intercept(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	v.tb.Cleanup(server.Close)
	return server.URL
}

// Requests counts, as "METHOD path" without /v1/, what came through Address
// since the last Forget.
func (v *Vault) Requests() map[string]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	counts := map[string]int{}
	for _, r := range v.requests {
		counts[r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1/")]++
	}
	return counts
}

// Headers are the values of one header in the requests since the last Forget.
func (v *Vault) Headers(name string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var values []string
	for _, r := range v.requests {
		values = append(values, r.Header.Get(name))
	}
	return values
}

// Forget starts the count anew, and ends any Intercept.
func (v *Vault) Forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.requests, v.intercept = nil, nil
}

// Intercept lets answer stand in for the server at Address: a request for
// which it returns true is answered by it alone.
func (v *Vault) Intercept(answer func(http.ResponseWriter, *http.Request) bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.intercept = answer
}

// Seal seals the server.
func (v *Vault) Seal() {
	v.tb.Helper()
	v.Write("sys/seal", nil)
}

// Unseal unseals it and waits until it serves.
func (v *Vault) Unseal() {
	v.tb.Helper()
	v.Write("sys/unseal", map[string]any{"key": v.unsealKey})
	WaitFor(v.tb, "the unsealed vault", func(ctx context.Context) bool {
		_, err := v.call(ctx, http.MethodGet, "sys/health", nil)
		return err == nil
	})
}

// Enable mounts a secrets engine.
func (v *Vault) Enable(path, kind string, options map[string]string) {
	v.tb.Helper()
	v.Write("sys/mounts/"+path, map[string]any{"type": kind, "options": options})
}

// EnableAuth mounts an auth method.
func (v *Vault) EnableAuth(path, kind string) {
	v.tb.Helper()
	v.Write("sys/auth/"+path, map[string]any{"type": kind})
}

// Policy writes a policy.
func (v *Vault) Policy(name, hcl string) {
	v.tb.Helper()
	v.Write("sys/policies/acl/"+name, map[string]any{"policy": hcl})
}

// Token makes a token with these policies.
func (v *Vault) Token(policies ...string) string {
	v.tb.Helper()
	auth := v.Write("auth/token/create", map[string]any{"policies": policies, "ttl": "1h"})["auth"].(map[string]any)
	return auth["client_token"].(string)
}

// TokenValid reports whether the server still accepts a token.
func (v *Vault) TokenValid(token string) bool {
	v.tb.Helper()
	_, err := v.call(context.Background(), http.MethodPut, "auth/token/lookup", map[string]any{"token": token})
	return err == nil
}

// Write writes to an API path as root; the test fails if that fails.
func (v *Vault) Write(path string, body any) map[string]any {
	v.tb.Helper()
	answer, err := v.call(context.Background(), http.MethodPut, path, body)
	if err != nil {
		v.tb.Fatal(err)
	}
	return answer
}

// Wrap writes to an API path as root and returns the wrapping token of the answer.
func (v *Vault) Wrap(method, path string, body any) string {
	v.tb.Helper()
	answer, err := v.request(context.Background(), method, path, body, http.Header{"X-Vault-Wrap-Ttl": {"5m"}})
	if err != nil {
		v.tb.Fatal(err)
	}
	return answer["wrap_info"].(map[string]any)["token"].(string)
}

// Read reads an API path as root; the test fails if that fails.
func (v *Vault) Read(path string) map[string]any {
	v.tb.Helper()
	answer, err := v.call(context.Background(), http.MethodGet, path, nil)
	if err != nil {
		v.tb.Fatal(err)
	}
	return answer
}

// PutKV stores a document of the KV version 2 mount secret/.
func (v *Vault) PutKV(path string, data any) {
	v.tb.Helper()
	v.Write("secret/data/"+path, map[string]any{"data": data})
}

func (v *Vault) call(ctx context.Context, method, path string, body any) (map[string]any, error) {
	return v.request(ctx, method, path, body, http.Header{})
}

func (v *Vault) request(ctx context.Context, method, path string, body any, header http.Header) (map[string]any, error) {
	payload, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	if raw, ok := body.(json.RawMessage); ok {
		payload = raw
	}
	if body == nil {
		payload = nil
	}
	// The path may hold characters that a URL must escape.
	path, query, _ := strings.Cut(path, "?")
	target := v.Direct + (&url.URL{Path: "/v1/" + path, RawQuery: query}).String()
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	req.Header = header
	req.Header.Set("X-Vault-Token", v.RootToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("vault: %s %s: %s: %s", method, path, resp.Status, text)
	}
	var answer map[string]any
	if len(text) > 0 {
		err = json.Unmarshal(text, &answer)
	}
	return answer, err
}
