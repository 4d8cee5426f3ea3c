//go:build !no_vault

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/hashicorp/vault/api"

	"secret-init/sources"
)

// session is a client with a token.
type session struct {
	client *client
	// revoke: the token was obtained for this run, or is to be given up by the user's wish.
	revoke bool
	// expires is when a token that we obtained ends; zero if it does not.
	expires time.Time
	// obtained is the life of a token that we obtained: loggedIn is then true.
	obtained life
	loggedIn bool
	// leased: revoking the token would end something that was delivered.
	leased atomic.Bool
}

// clientFor is the client of the namespace that doc is in.
func (s *session) clientFor(doc sources.Ref) *client {
	if namespace, ok := doc.Params[paramNamespace]; ok {
		return s.client.withNamespace(namespace)
	}
	return s.client
}

// adopt notes what hangs on the session's token, and bounds the document's
// lease by the token's life: Vault revokes a lease with the token it came by.
func (s *session) adopt(document *sources.Document, answer *answer) {
	if answer.leased {
		s.leased.Store(true)
	}
	if document.Lease.ID == "" || s.expires.IsZero() {
		return
	}
	if left := time.Until(s.expires).Truncate(time.Second); left < document.Lease.Duration {
		document.Lease.Duration, document.Lease.Renewable = left, false
	}
}

// end revokes the token, unless it is not ours or something delivered would end with it.
func (s *session) end(ctx context.Context, abandoned bool) error {
	defer s.client.transport.CloseIdleConnections()
	if !s.revoke || s.leased.Load() && !abandoned {
		return nil
	}
	answer, err := s.client.do(ctx, request{method: http.MethodPut, path: "auth/token/revoke-self"})
	if err == nil && answer.status >= 300 {
		err = sources.Errorf(sources.Denied, `allow it in a policy of the token: path "auth/token/revoke-self" { capabilities = ["update"] }`, "Vault answered %d", answer.status)
	}
	if e, ok := errors.AsType[*sources.Error](err); ok {
		e.Subject, e.What = "vault", "could not revoke the token of this start: "+e.What
		return e
	}
	return nil
}

// login makes a client and gets it a token.
func login(ctx context.Context, settings sources.Settings, wrapped *wrapped) (*session, error) {
	client, err := newClient(settings)
	if err != nil {
		return nil, err
	}
	l := &loginSettings{settingsReader: settingsReader{settings}, client: client, wrapped: wrapped}
	chosen, err := l.method()
	if err != nil {
		return nil, err
	}
	session := &session{client: client}
	if session.revoke, err = flag(settings, "VAULT_REVOKE_TOKEN"); err != nil {
		return nil, err
	}
	if chosen.token != nil {
		token, err := chosen.token(ctx, l)
		if err != nil {
			return nil, err
		}
		if strings.ContainsFunc(token, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }) {
			return nil, sources.Errorf(sources.Invalid, "set VAULT_TOKEN to the token alone, or VAULT_TOKEN_FILE to a file with nothing else in it", "cannot be read: the token holds characters that no token has")
		}
		client.api.SetToken(token)
		session.revoke = session.revoke && token != ""
		return session, nil
	}
	l.name, l.mount = chosen.name, strings.TrimPrefix(strings.Trim(l.get("VAULT_AUTH_PATH"), "/"), "auth/")
	if l.mount == "" {
		l.mount = chosen.mount
	}
	auth, err := l.login(ctx, chosen)
	if err != nil {
		return nil, err
	}
	client.api.SetToken(auth.ClientToken)
	// A batch token cannot be revoked. Its prefix tells it (Vault 1.10; b. before).
	session.revoke = !strings.HasPrefix(auth.ClientToken, "hvb.") && !strings.HasPrefix(auth.ClientToken, "b.")
	session.loggedIn = true
	session.obtained = life{Granted: time.Now(), TTL: time.Duration(auth.LeaseDuration) * time.Second, Renewable: auth.Renewable}
	if auth.LeaseDuration > 0 {
		session.expires = time.Now().Add(time.Duration(auth.LeaseDuration) * time.Second)
	}
	return session, nil
}

// login sends the one request that gives a token.
func (l *loginSettings) login(ctx context.Context, m method) (*api.SecretAuth, error) {
	how, err := m.begin(ctx, l)
	if err != nil {
		if _, ok := errors.AsType[*sources.Error](err); !ok {
			err = sources.Errorf(sources.Denied, hintNoAuth, "cannot be read: the login with %s lacks a setting", l.name)
		}
		return nil, err
	}
	// What the library makes of an answer has lost its header.
	last := &answer{header: http.Header{}}
	sending, done := linger(ctx)
	defer done()
	secret, err := how.Login(sending, l.client.api.WithResponseCallbacks(func(r *api.Response) { last.status, last.header = r.StatusCode, r.Header }))
	if err != nil {
		return nil, l.loginError(ctx, err, last)
	}
	if last.status >= 300 && last.status < 400 {
		return nil, redirected(last)
	}
	if secret == nil && last.status == http.StatusNotFound {
		return nil, l.nobody()
	}
	if secret == nil {
		// Vault 1.13.0 answers a wrong LDAP password with 204.
		return nil, l.refused()
	}
	if secret.Auth == nil || secret.Auth.ClientToken == "" {
		return nil, sources.Errorf(sources.Denied, "allow the role to do without a second factor: nobody is there to give it", "cannot be read: access denied: the login with %s gave no token", l.name)
	}
	return secret.Auth, nil
}

const hintAuthPath = "check the credentials; set VAULT_AUTH_PATH where the mount is another; look with: vault auth list"

// loginError is why auth/<mount> gave no token. A login's 400 and 403 mean
// the credentials: Vault tells no more, and neither do we.
func (l *loginSettings) loginError(ctx context.Context, err error, a *answer) error {
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return sources.Errorf(sources.Invalid, hintAddress, "cannot be read: the answer to the login is not Vault's JSON")
	}
	said, ok := errors.AsType[*api.ResponseError](err)
	if !ok {
		return l.client.connectionError(ctx, err)
	}
	a.status, a.messages = said.StatusCode, said.Errors
	if a.status == http.StatusNotFound {
		return l.nobody()
	}
	failed := operation{path: "auth/" + l.mount + "/login", write: true}.failed(a)
	if isPlainHTTP(a) || a.status != http.StatusBadRequest && a.status != http.StatusForbidden && !saysWrongCredentials(a) {
		return failed
	}
	return l.refused()
}

func (l *loginSettings) nobody() error {
	return sources.Errorf(sources.Invalid, hintAuthPath, "cannot be read: no auth method answers at auth/%s", l.mount)
}

// saysWrongCredentials: Vault 1.13.0 answers them with 500. To try such a
// login again would lock the user out.
func saysWrongCredentials(a *answer) bool {
	return says(a, "invalid secret id") || says(a, "invalid role or secret id") || says(a, "invalid role id") || says(a, "invalid username or password")
}

// refused names the mount too: since 1.13 a wrong password and a mount that
// is not there look the same.
func (l *loginSettings) refused() error {
	return sources.Errorf(sources.Denied, hintAuthPath,
		"cannot be read: access denied: the credentials for the login with %s are wrong or used up, or nothing is mounted at auth/%s", l.name, l.mount)
}

// wrapped keeps what a wrapping token has given: it gives it once, and the
// login that follows may have to be tried again.
type wrapped struct{ token, secretID string }

// unwrap exchanges VAULT_WRAPPED_TOKEN for what it wraps.
func (l *loginSettings) unwrap(ctx context.Context) error {
	if *l.wrapped != (wrapped{}) {
		return nil
	}
	token, err := l.needSecret("wrapped", "VAULT_WRAPPED_TOKEN")
	if err != nil {
		return err
	}
	answer, err := l.client.do(ctx, request{method: http.MethodPut, path: "sys/wrapping/unwrap", token: token})
	if err != nil {
		return err
	}
	if answer.status >= 300 {
		failed := operation{path: "sys/wrapping/unwrap", write: true}.failed(answer)
		if answer.status == http.StatusForbidden || answer.status == http.StatusBadRequest {
			failed = sources.Errorf(sources.Denied, hintWrapping, "cannot be read: %s", whatWrapping)
		}
		return failed
	}
	defer clear(answer.body)
	var content struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
		Data struct {
			Token    string `json:"token"`
			SecretID string `json:"secret_id"`
		} `json:"data"`
	}
	if json.Unmarshal(answer.body, &content) != nil {
		return sources.Errorf(sources.Invalid, hintAddress, "cannot be read: the answer to the wrapping token is not Vault's JSON")
	}
	l.wrapped.secretID, l.wrapped.token = content.Data.SecretID, content.Auth.Token
	if l.wrapped.token == "" {
		l.wrapped.token = content.Data.Token
	}
	return nil
}
