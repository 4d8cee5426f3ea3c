//go:build integration

package vault_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"secret-init/sources"
	"secret-init/sources/sourcetest"
)

// process is what one short-lived process does: it takes the session up,
// works, and hands it over.
func process(t *testing.T, env sourcetest.Env, states map[string][]byte, work func(ctx context.Context, f *sources.Fetcher)) (after map[string][]byte, next time.Time) {
	t.Helper()
	f := fetcher(t, env)
	f.Once, f.States = true, states
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	work(ctx, f)
	after, next = f.HandOver()
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
	return after, next
}

// giveUp is the last one.
func giveUp(t *testing.T, env sourcetest.Env, states map[string][]byte) error {
	t.Helper()
	f := fetcher(t, env)
	f.Once, f.States = true, states
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	f.OpenKept(ctx)
	return f.Close(ctx)
}

func TestKeptLease(t *testing.T) {
	f := start(t)
	postgres := f.database(t)
	f.Write("database/roles/app", map[string]any{"default_ttl": "4s", "max_ttl": "9s"})
	role, secret := f.appRole("app", `path "database/creds/app" { capabilities = ["read"] }`)
	given := f.Token("app")
	tests := map[string]struct {
		env sourcetest.Env
		// obtained: the token is ours, and revoked with all that hangs on it.
		obtained bool
	}{
		"by a token that we obtained":    {f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret}), true},
		"by a token that the user gave":  {f.with(sourcetest.Env{"VAULT_TOKEN": given}), false},
		"by one that is to be revoked":   {f.with(sourcetest.Env{"VAULT_TOKEN": f.Token("app"), "VAULT_REVOKE_TOKEN": "true"}), true},
		"by one that may not revoke one": {f.with(sourcetest.Env{"VAULT_TOKEN": f.Token("app")}), false},
	}
	ref, err := fetcher(t, f.env).Registry.Parse("vault:database/creds/app")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			may := `path "database/creds/app" { capabilities = ["read"] }`
			if name != "by one that may not revoke one" {
				may += ` path "sys/leases/revoke" { capabilities = ["update"] }`
			}
			f.Policy("app", may)
			f.Forget()
			var user, password string
			var lease sources.Lease
			states, _ := process(t, test.env, map[string][]byte{}, func(ctx context.Context, fetcher *sources.Fetcher) {
				fetched := fetcher.Fetch(ctx, []sources.Ref{ref})[0]
				if fetched.Err != nil {
					t.Fatal(fetched.Err)
				}
				lease = fetched.Document.Lease
				for key, value := range map[string]*string{"username": &user, "password": &password} {
					ref.Key = key
					got, err := fetched.Document.Select(ref)
					if err != nil {
						t.Fatal(err)
					}
					*value = string(got.Reveal())
				}
				ref.Key = ""
			})
			token := f.lastToken()
			began := time.Now()
			works := func() bool { _, err := postgres.Login(user, password, "SELECT 1"); return err == nil }
			if lease.Duration != 4*time.Second || !lease.Renewable || !f.TokenValid(token) || !works() {
				t.Fatalf("lease %+v, handed over with a valid token: %v, and a valid user: %v", lease, f.TokenValid(token), works())
			}
			renew := func(due bool) (got sources.Lease, err error) {
				states, _ = process(t, test.env, states, func(ctx context.Context, fetcher *sources.Fetcher) { got, err = fetcher.Renew(ctx, ref, lease, due) })
				return got, err
			}
			f.Forget()
			if got, err := renew(false); err != nil || got != lease || f.Requests()["PUT sys/leases/renew"] != 0 {
				t.Errorf("not due: %+v, %v, requests %v", got, err, f.Requests())
			}
			time.Sleep(time.Until(began.Add(3 * time.Second)))
			if got, err := renew(true); err != nil || got.Duration != 4*time.Second {
				t.Fatalf("renewed for %+v, %v", got, err)
			}
			if n := f.Requests()["PUT auth/approle/login"]; n != 0 {
				t.Errorf("%d new logins", n)
			}
			time.Sleep(time.Until(began.Add(6200 * time.Millisecond)))
			if !works() {
				t.Error("the user did not outlive the first lease")
			}
			// Near the end of max_ttl there is less than was asked for.
			if got, err := renew(true); err != nil || got.Duration >= 4*time.Second {
				t.Errorf("renewed for %+v, %v, past max_ttl", got, err)
			}
			err := giveUp(t, test.env, states)
			if name == "by one that may not revoke one" {
				if sources.ClassOf(err) != sources.Denied || sources.HintOf(err) == "" {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Errorf("%v", err)
			}
			if f.TokenValid(token) == test.obtained {
				t.Errorf("the token is valid: %v", f.TokenValid(token))
			}
			// Vault answers before it revokes a token's leases. This one has
			// more than a second left.
			for patience := time.Now().Add(time.Second); works() && time.Now().Before(patience); {
				time.Sleep(20 * time.Millisecond)
			}
			if works() {
				t.Error("the user outlived the end")
			}
		})
	}
}

// TestKeptToken: a token is renewed while it can be, and then there is a new one.
func TestKeptToken(t *testing.T) {
	f := start(t)
	f.PutKV("db", map[string]string{"password": "s3cret"})
	role, secret := f.appRole("app", readDB)
	f.Write("auth/approle/role/app", map[string]any{"token_policies": "app", "token_ttl": "3s", "token_max_ttl": "6s", "secret_id_num_uses": 0})
	env := f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret})
	ref, err := fetcher(t, env).Registry.Parse("vault:secret/db")
	if err != nil {
		t.Fatal(err)
	}
	states := map[string][]byte{}
	var next time.Time
	read := func() string {
		t.Helper()
		f.Forget()
		states, next = process(t, env, states, func(ctx context.Context, fetcher *sources.Fetcher) {
			if fetched := fetcher.Fetch(ctx, []sources.Ref{ref})[0]; fetched.Err != nil {
				t.Error(fetched.Err)
			}
		})
		return f.lastToken()
	}
	first := read()
	began := time.Now()
	if wait := time.Until(next); wait < time.Second || wait > 2*time.Second {
		t.Errorf("a token of 3s is due in %v", wait)
	}
	if again := read(); again != first || f.Requests()["PUT auth/token/renew-self"] != 0 {
		t.Errorf("too early: requests %v", f.Requests())
	}
	time.Sleep(time.Until(began.Add(2 * time.Second)))
	if again := read(); again != first || f.Requests()["PUT auth/token/renew-self"] != 1 {
		t.Errorf("due: requests %v", f.Requests())
	}
	time.Sleep(time.Until(began.Add(4500 * time.Millisecond)))
	second := read()
	if second == first || f.Requests()["PUT auth/approle/login"] != 1 {
		t.Errorf("near the last end: requests %v", f.Requests())
	}
	t.Run("revoked by somebody else", func(t *testing.T) {
		f.Write("auth/token/revoke", map[string]any{"token": second})
		states, _ = process(t, env, states, func(ctx context.Context, fetcher *sources.Fetcher) {
			if fetched := fetcher.Fetch(ctx, []sources.Ref{ref})[0]; sources.ClassOf(fetched.Err) != sources.Denied {
				t.Errorf("error %v", fetched.Err)
			}
		})
		if third := read(); third == second || !f.TokenValid(third) {
			t.Error("no new login")
		}
	})
	t.Run("Vault is down when the token is due", func(t *testing.T) {
		token := read()
		time.Sleep(2 * time.Second)
		f.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		})
		states, _ = process(t, env, states, func(ctx context.Context, fetcher *sources.Fetcher) {
			if fetched := fetcher.Fetch(ctx, []sources.Ref{ref})[0]; sources.ClassOf(fetched.Err) != sources.Unavailable {
				t.Errorf("error %v", fetched.Err)
			}
		})
		f.Forget()
		if again := read(); again != token {
			t.Error("a new login, though the token could be renewed")
		}
	})
	last := read()
	if err := giveUp(t, env, states); err != nil {
		t.Error(err)
	}
	if f.TokenValid(last) {
		t.Error("the token is left")
	}
}

// TestKeptFails: a start that fails before it hands its session over gives it up.
func TestKeptFails(t *testing.T) {
	f := start(t)
	postgres := f.database(t)
	role, secret := f.appRole("app", `path "database/creds/app" { capabilities = ["read"] }`)
	env := f.with(sourcetest.Env{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret})
	fetcher := fetcher(t, env)
	fetcher.States = map[string][]byte{}
	ref, err := fetcher.Registry.Parse("vault:database/creds/app")
	if err != nil {
		t.Fatal(err)
	}
	fetched := fetcher.Fetch(t.Context(), []sources.Ref{ref})[0]
	if fetched.Err != nil {
		t.Fatal(fetched.Err)
	}
	ref.Key = "username"
	user, _ := fetched.Document.Select(ref)
	if err := fetcher.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if f.TokenValid(f.lastToken()) {
		t.Error("the token is left")
	}
	if n, err := postgres.Login("postgres", postgres.Password, "SELECT count(*) FROM pg_roles WHERE rolname = '"+string(user.Reveal())+"'"); n != "0" {
		t.Errorf("the user is left: %s, %v", n, err)
	}
}
