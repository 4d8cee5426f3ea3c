//go:build integration

package vault_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"secret-init/sources"
	"secret-init/sources/sourcetest"
	"secret-init/sources/vault"
	"secret-init/tools/servers"
)

const (
	readDB = `path "secret/data/db" { capabilities = ["read"] }`
	ref    = "vault:secret/db#password"
)

// startForLogins has one document, and a policy "app" that may read it.
func startForLogins(t *testing.T) fixture {
	f := start(t)
	f.PutKV("db", map[string]string{"password": "s3cret"})
	f.Policy("app", readDB)
	return f
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantDenied: a login with these settings is refused, with no canary in the error.
func wantDenied(t *testing.T, env sourcetest.Env) {
	t.Helper()
	_, err := fetchOne(t, env, ref)
	if sources.ClassOf(err) != sources.Denied || err == nil {
		t.Errorf("class %v, want denied: %v", sources.ClassOf(err), err)
	}
	if strings.Contains(err.Error()+sources.HintOf(err), sourcetest.Canary) {
		t.Errorf("the canary is in %q (%s)", err, sources.HintOf(err))
	}
}

// appRole makes a role with one policy, and returns its role id and a secret id.
func (f fixture) appRole(name, policy string) (role, secret string) {
	if _, ok := f.Read("sys/auth")["approle/"]; !ok {
		f.EnableAuth("approle", "approle")
	}
	f.Policy(name, policy)
	f.Write("auth/approle/role/"+name, map[string]any{"token_policies": name, "token_ttl": "10m"})
	data := f.Read("auth/approle/role/" + name + "/role-id")["data"].(map[string]any)
	return data["role_id"].(string), f.secretID("approle", name)
}

func (f fixture) secretID(mount, role string) string {
	made := f.Write("auth/"+mount+"/role/"+role+"/secret-id", map[string]any{})["data"].(map[string]any)
	return made["secret_id"].(string)
}

func TestToken(t *testing.T) {
	f := startForLogins(t)
	t.Run("in a file", func(t *testing.T) {
		want(t, f.with(sourcetest.Env{"VAULT_TOKEN_FILE": write(t, "token", " "+f.RootToken+"\n")}), ref, "s3cret")
	})
	t.Run("given, and not revoked unless asked for", func(t *testing.T) {
		token := f.Token("app")
		want(t, f.with(sourcetest.Env{"VAULT_TOKEN": token}), ref, "s3cret")
		if !f.TokenValid(token) {
			t.Error("the given token was revoked")
		}
		want(t, f.with(sourcetest.Env{"VAULT_TOKEN": token, "VAULT_REVOKE_TOKEN": "true"}), ref, "s3cret")
		if f.TokenValid(token) {
			t.Error("the token still works")
		}
	})
	t.Run("wrapped", func(t *testing.T) {
		token := f.Wrap(http.MethodPut, "auth/token/create", map[string]any{"policies": []string{"app"}})
		env := f.with(sourcetest.Env{"VAULT_WRAPPED_TOKEN": token})
		want(t, env, ref, "s3cret")
		// It works once.
		_, err := fetchOne(t, env, ref)
		if sources.ClassOf(err) != sources.Denied || !strings.Contains(err.Error(), "somebody has used it before") {
			t.Errorf("the second use: %v", err)
		}
		wantDenied(t, f.with(sourcetest.Env{"VAULT_WRAPPED_TOKEN": "hvs." + sourcetest.Canary}))
	})
	t.Run("of an agent", func(t *testing.T) {
		// The stand-in adds the token, as a Vault Agent does.
		f.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("X-Vault-Token") == "" {
				r.Header.Set("X-Vault-Token", f.RootToken)
			}
			return false
		})
		defer f.Forget()
		want(t, f.with(sourcetest.Env{"VAULT_AUTH_METHOD": "none"}), ref, "s3cret")
	})
}

func TestAppRole(t *testing.T) {
	f := startForLogins(t)
	role, secret := f.appRole("app", readDB)
	env := f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret})
	t.Run("secret id by value and by file", func(t *testing.T) {
		want(t, env, ref, "s3cret")
		want(t, f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID_FILE": write(t, "id", secret+"\n")}), ref, "s3cret")
		wantDenied(t, f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": sourcetest.Canary}))
		wantDenied(t, f.with(sourcetest.Env{"VAULT_ROLE_ID": sourcetest.Canary, "VAULT_SECRET_ID": secret}))
	})
	t.Run("secret id wrapped", func(t *testing.T) {
		wrapped := f.Wrap(http.MethodPut, "auth/approle/role/app/secret-id", map[string]any{})
		wrappedEnv := f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_WRAPPED_TOKEN_FILE": write(t, "wrapped", wrapped)})
		want(t, wrappedEnv, ref, "s3cret")
		wantDenied(t, wrappedEnv)
	})
	t.Run("secret id wrapped, and the login fails once after it", func(t *testing.T) {
		wrapped := f.Wrap(http.MethodPut, "auth/approle/role/app/secret-id", map[string]any{})
		failures := 0
		f.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/v1/auth/approle/login" || failures > 0 {
				return false
			}
			failures++
			w.WriteHeader(http.StatusBadGateway)
			return true
		})
		defer f.Forget()
		want(t, f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_WRAPPED_TOKEN": wrapped}), ref, "s3cret")
	})
	t.Run("without a secret id", func(t *testing.T) {
		f.Write("auth/approle/role/bound", map[string]any{"token_policies": "app", "bind_secret_id": false,
			"secret_id_bound_cidrs": "127.0.0.1/32", "role_id": "bound"})
		want(t, f.with(sourcetest.Env{"VAULT_AUTH_METHOD": "approle", "VAULT_ROLE_ID": "bound"}), ref, "s3cret")
	})
	t.Run("at another path", func(t *testing.T) {
		f.EnableAuth("team/roles", "approle")
		f.Write("auth/team/roles/role/r", map[string]any{"token_policies": "app", "role_id": "fixed"})
		want(t, f.with(sourcetest.Env{"VAULT_ROLE_ID": "fixed", "VAULT_SECRET_ID": f.secretID("team/roles", "r"), "VAULT_AUTH_PATH": "auth/team/roles"}), ref, "s3cret")
	})
	t.Run("its token is revoked", func(t *testing.T) {
		f.Forget()
		want(t, env, ref, "s3cret")
		tokens := f.Headers("X-Vault-Token")
		if last := tokens[len(tokens)-1]; last == "" || f.TokenValid(last) {
			t.Error("the token still works")
		}
	})
	t.Run("a batch token cannot be, and is left", func(t *testing.T) {
		f.Write("auth/approle/role/batch", map[string]any{"token_policies": "app", "token_type": "batch", "token_ttl": "1m", "role_id": "batch"})
		want(t, f.with(sourcetest.Env{"VAULT_ROLE_ID": "batch", "VAULT_SECRET_ID": f.secretID("approle", "batch")}), ref, "s3cret")
	})
}

// signer makes a key, and its public half in PEM.
func signer(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func sign(t *testing.T, key *ecdsa.PrivateKey, more jwt.MapClaims) string {
	t.Helper()
	claims := jwt.MapClaims{"iss": "test", "aud": "vault", "sub": "app", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(claims, more)
	token, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestJWT(t *testing.T) {
	f := startForLogins(t)
	key, public := signer(t)
	for _, mount := range []string{"jwt", "oidc"} {
		f.EnableAuth(mount, mount)
		f.Write("auth/"+mount+"/config", map[string]any{"jwt_validation_pubkeys": public, "default_role": "usual"})
		for _, role := range []string{"app", "usual"} {
			f.Write("auth/"+mount+"/role/"+role, map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": "app"})
		}
	}
	token := sign(t, key, nil)
	want(t, f.with(sourcetest.Env{"VAULT_ROLE": "app", "VAULT_JWT_FILE": write(t, "jwt", token+"\n")}), ref, "s3cret")
	want(t, f.with(sourcetest.Env{"VAULT_JWT": token}), ref, "s3cret")
	want(t, f.with(sourcetest.Env{"VAULT_AUTH_METHOD": "oidc", "VAULT_ROLE": "app", "VAULT_JWT": token}), ref, "s3cret")
	other, _ := signer(t)
	wantDenied(t, f.with(sourcetest.Env{"VAULT_ROLE": "app", "VAULT_JWT": sign(t, other, jwt.MapClaims{"sub": sourcetest.Canary})}))
}

func TestKubernetes(t *testing.T) {
	f := startForLogins(t)
	key, _ := signer(t)
	claims := jwt.MapClaims{"sub": "system:serviceaccount:shop:app", "aud": []string{"vault"}, "kubernetes.io": map[string]any{
		"namespace": "shop", "serviceaccount": map[string]string{"name": "app", "uid": "1"}}}
	token := sign(t, key, claims)
	// The stand-in speaks http; Vault wants a certificate all the same.
	ca, err := os.ReadFile(f.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	f.EnableAuth("kubernetes", "kubernetes")
	f.Write("auth/kubernetes/config", map[string]any{"kubernetes_host": tokenReview(t, token), "kubernetes_ca_cert": string(ca), "disable_local_ca_jwt": true, "disable_iss_validation": true})
	f.Write("auth/kubernetes/role/app", map[string]any{"bound_service_account_names": "app", "bound_service_account_namespaces": "shop", "token_policies": "app"})
	t.Run("from where Kubernetes puts it", func(t *testing.T) {
		defer vault.SetServiceAccountToken(write(t, "token", token))()
		want(t, f.with(sourcetest.Env{"VAULT_ROLE": "app"}), ref, "s3cret")
	})
	t.Run("from a projected volume", func(t *testing.T) {
		want(t, f.with(sourcetest.Env{"VAULT_AUTH_METHOD": "kubernetes", "VAULT_ROLE": "app", "VAULT_JWT_FILE": write(t, "token", token)}), ref, "s3cret")
	})
	t.Run("a token that the cluster does not know", func(t *testing.T) {
		claims["jti"] = sourcetest.Canary
		wantDenied(t, f.with(sourcetest.Env{"VAULT_AUTH_METHOD": "kubernetes", "VAULT_ROLE": "app", "VAULT_JWT": sign(t, key, claims)}))
	})
}

func TestCertificate(t *testing.T) {
	f := startForLogins(t)
	authority := servers.NewCA(t, "clients")
	client, stranger := authority.Issue(t, "app"), servers.NewCA(t, "strangers").Issue(t, "app")
	ca, err := os.ReadFile(authority.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	f.EnableAuth("cert", "cert")
	f.Write("auth/cert/certs/app", map[string]any{"certificate": string(ca), "token_policies": "app"})
	env := sourcetest.Env{"VAULT_ADDR": f.TLS, "VAULT_CACERT": f.CAFile, "VAULT_CLIENT_CERT": client.CertFile, "VAULT_CLIENT_KEY": client.KeyFile}
	want(t, env, ref, "s3cret")
	env["VAULT_ROLE"] = "app"
	want(t, env, ref, "s3cret")
	env["VAULT_CLIENT_CERT"], env["VAULT_CLIENT_KEY"] = stranger.CertFile, stranger.KeyFile
	wantDenied(t, env)
}

func TestUserAndPassword(t *testing.T) {
	f := startForLogins(t)
	f.EnableAuth("userpass", "userpass")
	f.Write("auth/userpass/users/app", map[string]any{"password": "pw", "token_policies": "app"})
	f.EnableAuth("ldap", "ldap")
	f.Write("auth/ldap/config", map[string]any{"url": ldapServer(t, "cn=app,dc=test", "pw"), "userdn": "dc=test", "userattr": "cn", "token_policies": "app"})
	for _, method := range []string{"userpass", "ldap"} {
		env := f.with(sourcetest.Env{"VAULT_AUTH_METHOD": method, "VAULT_USERNAME": "app", "VAULT_PASSWORD_FILE": write(t, "password", "pw\n")})
		want(t, env, ref, "s3cret")
		wantDenied(t, f.with(sourcetest.Env{"VAULT_AUTH_METHOD": method, "VAULT_USERNAME": "app", "VAULT_PASSWORD": sourcetest.Canary}))
	}
}

// TestAWS has moto in the place of AWS: Vault sends it the request that we signed.
func TestAWS(t *testing.T) {
	f := startForLogins(t)
	moto := servers.StartMoto(t)
	env := f.with(moto.Env())
	for name, value := range moto.Env() {
		t.Setenv(name, value)
	}
	f.EnableAuth("aws", "aws")
	f.Write("auth/aws/config/client", map[string]any{"sts_endpoint": moto.URL, "sts_region": "us-east-1", "iam_server_id_header_value": "vault.test",
		"access_key": "AKIATEST", "secret_key": "test"})
	f.Write("auth/aws/role/app", map[string]any{"auth_type": "iam", "bound_iam_principal_arn": "arn:aws:iam::123456789012:user/moto",
		"resolve_aws_unique_ids": false, "token_policies": "app"})
	var stsEndpoints []string
	f.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		var login struct {
			URL []byte `json:"iam_request_url"`
		}
		if json.Unmarshal(body, &login) == nil && login.URL != nil {
			stsEndpoints = append(stsEndpoints, string(login.URL))
		}
		return false
	})
	env["VAULT_ROLE"], env["VAULT_AWS_IAM_SERVER_ID"] = "app", "vault.test"
	want(t, env, ref, "s3cret")
	env["VAULT_AWS_STS_REGION"] = "eu-central-1"
	want(t, env, ref, "s3cret")
	if got := strings.Join(stsEndpoints, " "); got != "https://sts.amazonaws.com/ https://sts.eu-central-1.amazonaws.com/" {
		t.Errorf("signed for %s", got)
	}
	if n := moto.Requests("GetCallerIdentity"); n == 0 {
		t.Error("Vault has not sent the request on")
	}
	env["VAULT_AWS_IAM_SERVER_ID"] = "another.test"
	wantDenied(t, env)
}
