//go:build integration

package vault_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"secret-init/sources"
	"secret-init/sources/sourcetest"
	"secret-init/sources/vault"
	"secret-init/tools/servers"
)

// fixture is a source under test and the server it reads from.
type fixture struct {
	*servers.Vault
	env sourcetest.Env
}

func start(t *testing.T) fixture {
	v := servers.StartVault(t)
	return fixture{v, sourcetest.Env{"VAULT_ADDR": v.Address, "VAULT_TOKEN": v.RootToken}}
}

// with is the environment that reaches the server and has no way to log in but these.
func (f fixture) with(more sourcetest.Env) sourcetest.Env {
	env := sourcetest.Env{"VAULT_ADDR": f.Address}
	maps.Copy(env, more)
	return env
}

// fetcher reads with exactly the settings in env: nothing of the process's own environment.
func fetcher(t *testing.T, env sourcetest.Env) *sources.Fetcher {
	t.Helper()
	return &sources.Fetcher{
		Registry: sources.NewRegistry(vault.Backend),
		Settings: sources.Settings{
			Getenv: func(name string) string { return env[name] },
			Warn:   func(s string) { t.Log("warning:", s) },
		},
		Setenv: func(string, string) error { return nil },
	}
}

// fetch reads refs with one fetcher, closes it, and gives the selected values and errors.
func fetch(t *testing.T, env sourcetest.Env, refs ...string) (values []string, errs []error) {
	t.Helper()
	return fetchWithin(t, 20*time.Second, env, refs...)
}

func fetchWithin(t *testing.T, timeout time.Duration, env sourcetest.Env, refs ...string) (values []string, errs []error) {
	t.Helper()
	f := fetcher(t, env)
	var parsed []sources.Ref
	for _, s := range refs {
		ref, err := f.Registry.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, ref)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	for i, fetched := range f.Fetch(ctx, parsed) {
		err := fetched.Err
		var secret sources.Secret
		if err == nil {
			secret, err = fetched.Document.Select(parsed[i])
		}
		values, errs = append(values, string(secret.Reveal())), append(errs, err)
	}
	if err := f.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return values, errs
}

func fetchOne(t *testing.T, env sourcetest.Env, ref string) (string, error) {
	t.Helper()
	values, errs := fetch(t, env, ref)
	return values[0], errs[0]
}

func want(t *testing.T, env sourcetest.Env, ref, value string) {
	t.Helper()
	got, err := fetchOne(t, env, ref)
	if err != nil {
		t.Errorf("%s: %v (%s)", ref, err, sources.HintOf(err))
	} else if got != value {
		t.Errorf("%s = %q, want %q", ref, got, value)
	}
}

func TestConformance(t *testing.T) {
	f := start(t)
	f.Enable("transit", "transit", nil)
	f.Write("transit/keys/app", nil)
	sourcetest.Run(t, sourcetest.Harness{
		Backend: vault.Backend,
		Env:     f.env,
		PutFields: func(_ *testing.T, name string, fields map[string]string) string {
			f.PutKV(name, fields)
			return "vault:secret/" + name
		},
		Missing: "vault:secret/absent",
		Denied: func(t *testing.T) (string, sourcetest.Env) {
			f.PutKV("denied", map[string]string{"value": sourcetest.Canary})
			return "vault:secret/denied", f.with(sourcetest.Env{"VAULT_TOKEN": "hvs." + sourcetest.Canary})
		},
		// What Vault cannot decrypt, and quotes in its own errors.
		Malformed: func(*testing.T) string {
			return "vault:transit/decrypt/app?method=write&ciphertext=vault:v1:" + sourcetest.Canary + "#plaintext"
		},
		At: func(url string) (string, sourcetest.Env) {
			return "vault:secret/db#password", sourcetest.Env{"VAULT_ADDR": url, "VAULT_TOKEN": "hvs." + sourcetest.Canary}
		},
	})
}

func TestReading(t *testing.T) {
	f := start(t)
	t.Run("KV version 2, as the vault command and as the API take it", func(t *testing.T) {
		f.PutKV("db", map[string]string{"password": "s3cret"})
		want(t, f.env, "vault:secret/db#password", "s3cret")
		want(t, f.env, "vault:secret/data/db#password", "s3cret")
		want(t, f.env, "vault:/secret/db/#password", "s3cret")
	})
	t.Run("KV version 2 document below a folder named data", func(t *testing.T) {
		f.PutKV("data/db", map[string]string{"password": "inner"})
		want(t, f.env, "vault:secret/data/data/db#password", "inner")
	})
	t.Run("KV version 1 with a field named data", func(t *testing.T) {
		f.Write("kv1/app", map[string]any{"data": map[string]string{"password": "nested"}, "metadata": map[string]int{"version": 7}})
		want(t, f.env, "vault:kv1/app#/data/password", "nested")
		want(t, f.env, "vault:kv1/app", `{"data":{"password":"nested"},"metadata":{"version":7}}`)
		f.Write("kv1/data/app", map[string]any{"password": "below data"})
		want(t, f.env, "vault:kv1/data/app#password", "below data")
	})
	t.Run("KV version 2 with a field named data", func(t *testing.T) {
		f.PutKV("odd", map[string]any{"data": "x", "metadata": "y"})
		want(t, f.env, "vault:secret/odd#data", "x")
	})
	t.Run("a mount of several parts", func(t *testing.T) {
		f.Enable("team/a/kv", "kv", map[string]string{"version": "2"})
		servers.WaitFor(t, "the mount", func(context.Context) bool {
			_, err := fetchOne(t, f.env, "vault:team/a/kv/none")
			return sources.ClassOf(err) == sources.NotFound
		})
		f.Write("team/a/kv/data/db", map[string]any{"data": map[string]string{"p": "deep"}})
		want(t, f.env, "vault:team/a/kv/db#p", "deep")
	})
	t.Run("numbers, objects and the whole document as Vault spells them", func(t *testing.T) {
		// KV version 1: version 2 itself turns numbers into floats.
		f.Write("kv1/types", json.RawMessage(`{"big":12345678901234567890,"price":1.10,"on":true,"list":[1,"<&>"]}`))
		want(t, f.env, "vault:kv1/types#big", "12345678901234567890")
		want(t, f.env, "vault:kv1/types#price", "1.10")
		want(t, f.env, "vault:kv1/types#on", "true")
		want(t, f.env, "vault:kv1/types#/list/1", "<&>")
	})
	t.Run("a path with blanks, a plus and percent signs", func(t *testing.T) {
		f.PutKV("a b+c%41", map[string]string{"p": "odd name"})
		want(t, f.env, "vault:secret/a b+c%2541#p", "odd name")
	})
	t.Run("versions", func(t *testing.T) {
		f.PutKV("versions", map[string]string{"p": "one"})
		f.PutKV("versions", map[string]string{"p": "two"})
		want(t, f.env, "vault:secret/versions?version=1#p", "one")
		want(t, f.env, "vault:secret/data/versions?version=1#p", "one")
		want(t, f.env, "vault:secret/versions#p", "two")
		ref, err := sources.ParseRef("vault:secret/versions")
		if err != nil {
			t.Fatal(err)
		}
		fetched := fetcher(t, f.env).Fetch(t.Context(), []sources.Ref{ref})[0]
		if fetched.Err != nil || fetched.Document.Version != "2" || fetched.Document.Lease != (sources.Lease{}) {
			t.Errorf("version %q, lease %v, error %v", fetched.Document.Version, fetched.Document.Lease, fetched.Err)
		}
	})
	t.Run("the mount cannot be looked up", func(t *testing.T) {
		defer f.Forget()
		f.refuse("sys/internal/ui/mounts/", 403)
		want(t, f.env, "vault:kv1/data/app#password", "below data")
		// Without the mount the answer of an API path stays what it is.
		want(t, f.env, "vault:secret/data/db#/data/password", "s3cret")
		_, err := fetchOne(t, f.env, "vault:secret/db#password")
		if sources.ClassOf(err) != sources.NotFound || !strings.Contains(sources.HintOf(err), "data/ after the mount") {
			t.Errorf("%v (%s)", err, sources.HintOf(err))
		}
	})
	t.Run("a token that may read one document alone", func(t *testing.T) {
		f.Policy("one", `path "secret/data/db" { capabilities = ["read"] }`)
		want(t, f.with(sourcetest.Env{"VAULT_TOKEN": f.Token("one")}), "vault:secret/db#password", "s3cret")
	})
	t.Run("--from", func(t *testing.T) {
		f.PutKV("all", map[string]string{"user": "app", "password": "p"})
		ref, err := sources.ParseRef("vault:secret/all")
		if err != nil {
			t.Fatal(err)
		}
		fetched := fetcher(t, f.env).Fetch(t.Context(), []sources.Ref{ref})[0]
		if fetched.Err != nil {
			t.Fatal(fetched.Err)
		}
		members, err := fetched.Document.Members(ref)
		if err != nil || len(members) != 2 {
			t.Errorf("%d members, error %v", len(members), err)
		}
	})
}

// refuse answers requests below an API path with a status, in Vault's place.
func (f fixture) refuse(prefix string, status int) {
	f.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/v1/"+prefix) {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"errors":["permission denied"]}`))
		return true
	})
}

func TestRequests(t *testing.T) {
	f := start(t)
	role, secret := f.appRole("app", `path "secret/data/*" { capabilities = ["read"] }
path "kv1/*" { capabilities = ["read"] }`)
	env := f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret})
	var refs []string
	for _, name := range strings.Split("abcdefghij", "") {
		f.PutKV(name, map[string]string{"username": "u", "password": "p"})
		refs = append(refs, "vault:secret/"+name+"#username", "vault:secret/"+name+"#password")
	}
	f.Write("kv1/k", map[string]string{"p": "v1"})
	f.Write("kv1/data/k", map[string]string{"p": "another"})
	// On a version 2 mount the two spellings are one document, on the other they are two.
	refs = append(refs, "vault:secret/data/a#password", "vault:secret/data/absent", "vault:secret/absent", "vault:kv1/k#p", "vault:kv1/data/k#p")
	f.Forget()
	values, errs := fetch(t, env, refs...)
	if one, two := values[len(refs)-2], values[len(refs)-1]; one != "v1" || two != "another" || values[len(refs)-5] != "p" {
		t.Errorf("kv1/k is %q, kv1/data/k %q", one, two)
	}
	for i, name := range []string{"data/absent", "absent"} {
		if err := errs[20+i+1]; sources.ClassOf(err) != sources.NotFound || err.Error() != "vault secret/"+name+" does not exist" {
			t.Error(err)
		}
		errs[20+i+1] = nil
	}
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	counts := f.Requests()
	logins, lookups, reads := 0, 0, 0
	for what, n := range counts {
		switch {
		case strings.Contains(what, "auth/approle/login"):
			logins += n
		case strings.Contains(what, "sys/internal/ui/mounts/"):
			lookups += n
		case strings.Contains(what, "secret/data/"), strings.Contains(what, "kv1/"):
			reads += n
			if n != 1 {
				t.Errorf("%s: %d requests", what, n)
			}
		}
	}
	// 25 references into 13 documents of 2 mounts, one of which is not there.
	if logins != 1 || lookups != 2 || reads != 13 {
		t.Errorf("%d logins, %d mount look-ups and %d reads, want 1, 2 and 13: %v", logins, lookups, reads, counts)
	}
}
