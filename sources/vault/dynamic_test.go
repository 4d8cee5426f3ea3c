//go:build integration

package vault_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

	"secret-init/sources"
	"secret-init/sources/sourcetest"
	"secret-init/tools/servers"
)

// fetchDocument gives the document itself, and leaves the fetcher open.
func fetchDocument(t *testing.T, env sourcetest.Env, s string) (*sources.Fetcher, *sources.Document) {
	t.Helper()
	f := fetcher(t, env)
	parsed, err := f.Registry.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	fetched := f.Fetch(ctx, []sources.Ref{parsed})[0]
	if fetched.Err != nil {
		t.Fatalf("%v (%s)", fetched.Err, sources.HintOf(fetched.Err))
	}
	return f, fetched.Document
}

// lastToken is the token of the last request that came through the proxy.
func (f fixture) lastToken() string {
	tokens := f.Headers("X-Vault-Token")
	return tokens[len(tokens)-1]
}

func (f fixture) database(t *testing.T) *servers.Postgres {
	t.Helper()
	postgres := servers.StartPostgres(t)
	f.Enable("database", "database", nil)
	f.Write("database/config/app", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "app", "username": "postgres", "password": postgres.Password,
		"connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:" + postgres.Port + "/postgres?sslmode=disable",
	})
	f.Write("database/roles/app", map[string]any{
		"db_name": "app", "default_ttl": "1h", "max_ttl": "2h",
		"creation_statements": `CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
	})
	return postgres
}

func TestDatabase(t *testing.T) {
	f := start(t)
	postgres := f.database(t)
	role, secret := f.appRole("app", `path "database/creds/app" { capabilities = ["read"] }`)
	env := f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret})
	f.Forget()
	values, errs := fetch(t, env, "vault:database/creds/app#username", "vault:database/creds/app#password")
	if errs[0] != nil || errs[1] != nil {
		t.Fatal(errs)
	}
	if n := f.Requests()["GET database/creds/app"]; n != 1 {
		t.Errorf("%d reads for two keys of one lease", n)
	}
	// The fetcher is closed: had it revoked its token, the lease and with it the user would be gone.
	if !f.TokenValid(f.lastToken()) {
		t.Error("the token on which the lease hangs was revoked")
	}
	who, err := postgres.Login(values[0], values[1], "SELECT current_user")
	if err != nil || who != values[0] {
		t.Errorf("login with the delivered user: %v", err)
	}
	t.Run("the lease ends no later than its token", func(t *testing.T) {
		_, document := fetchDocument(t, env, "vault:database/creds/app")
		lease := document.Lease
		if lease.ID == "" || lease.Duration > 10*time.Minute || lease.Duration < 9*time.Minute || lease.Renewable {
			t.Errorf("lease %v, and the token lives 10 minutes", lease.Duration)
		}
		_, document = fetchDocument(t, f.env, "vault:database/creds/app")
		if document.Lease.Duration != time.Hour || !document.Lease.Renewable {
			t.Errorf("lease %v, want an hour", document.Lease.Duration)
		}
	})
	t.Run("no such role", func(t *testing.T) {
		_, err := fetchOne(t, f.env, "vault:database/creds/none")
		if sources.ClassOf(err) != sources.NotFound {
			t.Error(err)
		}
	})
	if t.Failed() {
		return
	}
	t.Run("a given token is not revoked while a lease hangs on it, though asked for", func(t *testing.T) {
		token := f.Token("app")
		if _, err := fetchOne(t, f.with(sourcetest.Env{"VAULT_TOKEN": token, "VAULT_REVOKE_TOKEN": "true"}), "vault:database/creds/app#password"); err != nil {
			t.Fatal(err)
		}
		if !f.TokenValid(token) {
			t.Error("the token was revoked, and the lease with it")
		}
	})
}

func TestPKI(t *testing.T) {
	f := start(t)
	f.Enable("pki", "pki", nil)
	f.Write("pki/root/generate/internal", map[string]any{"common_name": "test root", "ttl": "10h"})
	f.Write("pki/roles/web", map[string]any{"allow_any_name": true, "enforce_hostnames": false})
	const cert = "vault:pki/issue/web?method=write&common_name=app.test&ttl=1h"
	role, secret := f.appRole("app", `path "pki/issue/web" { capabilities = ["update"] }`)
	env := f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret})
	f.Forget()
	values, errs := fetch(t, env, cert+"#certificate", cert+"#private_key", cert+"#/ca_chain/0")
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	if counts := f.Requests(); counts["PUT pki/issue/web"] != 1 || counts["PUT auth/token/revoke-self"] != 1 {
		t.Errorf("requests: %v", counts)
	}
	block, _ := pem.Decode([]byte(values[0]))
	if block == nil || !strings.Contains(values[1], "PRIVATE KEY") || !strings.Contains(values[2], "CERTIFICATE") {
		t.Fatal("not a certificate, a key and an authority")
	}
	issued, err := x509.ParseCertificate(block.Bytes)
	if err != nil || issued.Subject.CommonName != "app.test" {
		t.Errorf("the certificate is for %q (%v)", issued.Subject.CommonName, err)
	}
	t.Run("a file instead of JSON", func(t *testing.T) {
		got, err := fetchOne(t, f.env, "vault:pki/ca/pem")
		if err != nil || !strings.HasPrefix(got, "-----BEGIN CERTIFICATE-----") {
			t.Errorf("error %v", err)
		}
	})
}

func TestTransit(t *testing.T) {
	f := start(t)
	f.Enable("transit", "transit", nil)
	f.Write("transit/keys/app", nil)
	plain := base64.StdEncoding.EncodeToString([]byte("s3cret\x00\xff"))
	data := f.Write("transit/encrypt/app", map[string]any{"plaintext": plain})["data"].(map[string]any)
	cipher := strings.NewReplacer("%", "%25", "&", "%26", "#", "%23").Replace(data["ciphertext"].(string))
	want(t, f.env, "vault:transit/decrypt/app?method=write&decode=base64&ciphertext="+cipher+"#plaintext", "s3cret\x00\xff")
}

// TestWrapped reads what a wrapping token wraps, with the token itself.
func TestWrapped(t *testing.T) {
	f := start(t)
	f.PutKV("db", map[string]string{"password": "s3cret"})
	token := f.Wrap(http.MethodGet, "secret/data/db", nil)
	want(t, f.with(sourcetest.Env{"VAULT_TOKEN": token}), "vault:sys/wrapping/unwrap?method=write#/data/password", "s3cret")
}

func TestCubbyholeAndTokens(t *testing.T) {
	f := start(t)
	f.Write("cubbyhole/app", map[string]string{"password": "mine"})
	want(t, f.env, "vault:cubbyhole/app#password", "mine")
	// What has no data, but a token: the command's own child token.
	f.Policy("maker", `path "auth/token/create" { capabilities = ["update"] }`)
	role, secret := f.appRole("app", `path "auth/token/create" { capabilities = ["update"] }`)
	token, err := fetchOne(t, f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret}), "vault:auth/token/create?method=write&ttl=5m#client_token")
	if err != nil || !f.TokenValid(token) {
		t.Errorf("the delivered token does not work: %v", err)
	}
}

// TestAWSEngine has moto in the place of AWS: Vault makes the user there.
func TestAWSEngine(t *testing.T) {
	f := start(t)
	moto := servers.StartMoto(t)
	f.Enable("aws", "aws", nil)
	f.Write("aws/config/root", map[string]any{"access_key": "AKIATEST", "secret_key": "test", "region": "us-east-1", "iam_endpoint": moto.URL, "sts_endpoint": moto.URL})
	f.Write("aws/roles/app", map[string]any{"credential_type": "iam_user",
		"policy_document": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`})
	f.Forget()
	values, errs := fetch(t, f.env, "vault:aws/creds/app#access_key", "vault:aws/creds/app#secret_key")
	if errs[0] != nil || errs[1] != nil || values[0] == "" || values[1] == "" {
		t.Fatal(errs)
	}
	if n := f.Requests()["GET aws/creds/app"]; n != 1 || moto.Requests("CreateAccessKey") != 1 {
		t.Errorf("%d reads and %d new access keys for two keys of one lease", n, moto.Requests("CreateAccessKey"))
	}
}

// TestNamespace looks at the header alone: namespaces need Vault Enterprise,
// and this Vault passes over it.
func TestNamespace(t *testing.T) {
	f := start(t)
	f.PutKV("db", map[string]string{"password": "s3cret"})
	f.EnableAuth("userpass", "userpass")
	f.Policy("app", readDB)
	f.Write("auth/userpass/users/app", map[string]any{"password": "pw", "token_policies": "app"})
	env := f.with(sourcetest.Env{"VAULT_AUTH_METHOD": "userpass", "VAULT_USERNAME": "app", "VAULT_PASSWORD": "pw", "VAULT_NAMESPACE": "org/"})
	f.Forget()
	want(t, env, "vault:secret/db?namespace=org/team#password", "s3cret")
	got := strings.Join(f.Headers("X-Vault-Namespace"), " ")
	// Login, mount look-up, read, revocation.
	if got != "org org/team org/team org" {
		t.Errorf("namespaces %q", got)
	}
}
