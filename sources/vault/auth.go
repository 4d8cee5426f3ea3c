//go:build !no_vault

package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"

	"secret-init/sources"
)

const hintNoAuth = "set VAULT_TOKEN, VAULT_TOKEN_FILE, or VAULT_ROLE_ID with VAULT_SECRET_ID; VAULT_AUTH_METHOD chooses another way"

// session is a client with a token.
type session struct {
	client *client
	// revoke: the token was obtained for this run, or is to be given up by the user's wish.
	revoke bool
	// expires is when a token that we obtained ends; zero if it does not.
	expires time.Time
	// leased: revoking the token would end something that was delivered.
	leased atomic.Bool
}

// method is one way to get a token.
type method struct {
	name string
	// mount is where it is mounted by default; empty for a token that is given.
	mount string
	// possible: the settings that are its alone are there.
	possible func(settingsReader) bool
	// begin makes ready to log in at auth/<mount>.
	begin func(s settingsReader, mount string) (api.AuthMethod, error)
}

// methods are in the order in which they are listed to the user.
var methods = []method{
	{
		name:     "token",
		possible: func(s settingsReader) bool { return s.has("VAULT_TOKEN") },
	},
	{
		name:     "approle",
		mount:    "approle",
		possible: func(s settingsReader) bool { return s.get("VAULT_ROLE_ID") != "" },
		begin: func(s settingsReader, mount string) (api.AuthMethod, error) {
			role, err := s.need("approle", "VAULT_ROLE_ID")
			if err != nil {
				return nil, err
			}
			secret, err := s.needSecret("approle", "VAULT_SECRET_ID")
			if err != nil {
				return nil, err
			}
			return approle.NewAppRoleAuth(role, &approle.SecretID{FromString: secret}, approle.WithMountPath(mount))
		},
	},
}

// login makes a client and gets it a token.
func login(ctx context.Context, settings sources.Settings) (*session, error) {
	client, err := newClient(settings)
	if err != nil {
		return nil, err
	}
	s := settingsReader{settings}
	chosen, err := s.method()
	if err != nil {
		return nil, err
	}
	session := &session{client: client}
	if session.revoke, err = flag(settings, "VAULT_REVOKE_TOKEN"); err != nil {
		return nil, err
	}
	if chosen.begin == nil {
		token, err := s.needSecret(chosen.name, "VAULT_TOKEN")
		if err != nil {
			return nil, err
		}
		if strings.ContainsFunc(token, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }) {
			return nil, sources.Errorf(sources.Invalid, "", "cannot be read: VAULT_TOKEN holds characters that no token has")
		}
		client.api.SetToken(token)
		return session, nil
	}
	mount := strings.Trim(s.get("VAULT_AUTH_PATH"), "/")
	mount = strings.TrimPrefix(mount, "auth/")
	if mount == "" {
		mount = chosen.mount
	}
	how, err := chosen.begin(s, mount)
	if err != nil {
		if _, ok := errors.AsType[*sources.Error](err); !ok {
			err = sources.Errorf(sources.Invalid, "", "cannot be read: the settings for the login with %s are incomplete", chosen.name)
		}
		return nil, err
	}
	secret, err := client.api.Auth().Login(ctx, how)
	if err != nil {
		return nil, client.loginError(ctx, err, chosen.name, mount)
	}
	session.revoke = secret.Auth.ClientToken != "" && !isBatch(secret.Auth.ClientToken)
	if secret.Auth.LeaseDuration > 0 {
		session.expires = time.Now().Add(time.Duration(secret.Auth.LeaseDuration) * time.Second)
	}
	return session, nil
}

// isBatch: a batch token cannot be revoked. Its prefix tells it (Vault 1.10, and b. before).
func isBatch(token string) bool {
	return strings.HasPrefix(token, "hvb.") || strings.HasPrefix(token, "b.")
}

// loginError is why auth/<mount> gave no token. A login's 400 and 403 mean
// the credentials: Vault tells no more, and neither do we.
func (c *client) loginError(ctx context.Context, err error, name, mount string) error {
	said, ok := errors.AsType[*api.ResponseError](err)
	if !ok {
		if errors.Is(err, errNoLogin) || strings.Contains(err.Error(), "empty response from credential provider") {
			return sources.Errorf(sources.Invalid, "see what there is with: vault auth list; VAULT_AUTH_PATH names another mount",
				"cannot be read: no auth method answers at auth/%s", mount)
		}
		return c.connectionError(ctx, err)
	}
	a := &answer{status: said.StatusCode, header: http.Header{}, messages: said.Errors}
	switch {
	case says(a, "no handler for route"):
		return c.loginError(ctx, errNoLogin, name, mount)
	case said.StatusCode == http.StatusBadRequest || said.StatusCode == http.StatusForbidden:
		if says(a, "http request to an https server") {
			break
		}
		// Since 1.13 a wrong password and a mount that is not there look the same.
		return sources.Errorf(sources.Denied, "see what is mounted with: vault auth list; VAULT_AUTH_PATH names another mount",
			"cannot be read: the login with %s was refused (%d): the credentials are wrong or used up, or nothing is mounted at auth/%s", name, said.StatusCode, mount)
	}
	return operation{path: "auth/" + mount + "/login"}.failed(a)
}

var errNoLogin = errors.New("no such auth method")

// end revokes the token, unless it is not ours or something delivered would end with it.
func (s *session) end(ctx context.Context) error {
	defer s.client.transport.CloseIdleConnections()
	if !s.revoke || s.leased.Load() {
		return nil
	}
	answer, err := s.client.do(ctx, request{method: http.MethodPut, path: "auth/token/revoke-self"})
	if err == nil && answer.status >= 300 {
		err = sources.Errorf(sources.Denied, `let a policy of it say: path "auth/token/revoke-self" { capabilities = ["update"] }`, "Vault answered %d", answer.status)
	}
	if e, ok := errors.AsType[*sources.Error](err); ok {
		e.Subject, e.What = "vault", "could not revoke the token of this start: "+e.What
		return e
	}
	return nil
}

// settingsReader reads settings of which each is a value or a file.
type settingsReader struct{ sources.Settings }

func (s settingsReader) get(name string) string { return strings.TrimSpace(s.Getenv(name)) }

// has reports whether NAME or NAME_FILE is set.
func (s settingsReader) has(name string) bool {
	return s.get(name) != "" || s.get(name+"_FILE") != ""
}

func (s settingsReader) need(method, name string) (string, error) {
	if value := s.get(name); value != "" {
		return value, nil
	}
	return "", sources.Errorf(sources.Invalid, "set "+name, "cannot be read: the login with %s needs %s", method, name)
}

// needSecret is the value of NAME, or the content of the file that NAME_FILE
// names, without the blanks around it.
func (s settingsReader) needSecret(method, name string) (string, error) {
	value, file := s.get(name), s.get(name+"_FILE")
	switch {
	case value != "" && file != "":
		return "", sources.Errorf(sources.Invalid, "unset one of them", "cannot be read: both %s and %s_FILE are set", name, name)
	case value != "":
		return value, nil
	case file == "":
		return "", sources.Errorf(sources.Invalid, fmt.Sprintf("set %s or %s_FILE", name, name), "cannot be read: the login with %s needs %s", method, name)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fileError(name+"_FILE", file, err)
	}
	if value = strings.TrimSpace(string(content)); value == "" {
		return "", sources.Errorf(sources.Invalid, "", "cannot be read: %s_FILE names an empty file, %s", name, file)
	}
	return value, nil
}

func fileError(name, path string, err error) error {
	class, why := sources.Invalid, "it cannot be read"
	switch {
	case errors.Is(err, os.ErrNotExist):
		why = "it does not exist"
	case errors.Is(err, os.ErrPermission):
		class, why = sources.Denied, "permission denied"
	}
	return sources.Errorf(class, "is it mounted into the container, and readable?", "cannot be read: %s names %s: %s", name, path, why)
}

// method is the one that VAULT_AUTH_METHOD names, else the only possible one.
func (s settingsReader) method() (method, error) {
	var names, possible []string
	for _, m := range methods {
		names = append(names, m.name)
		if m.possible(s) {
			possible = append(possible, m.name)
		}
	}
	name := s.get("VAULT_AUTH_METHOD")
	if name == "" {
		switch len(possible) {
		case 0:
			return method{}, sources.Errorf(sources.Invalid, hintNoAuth, "cannot be read: there is nothing to log in to Vault with")
		case 1:
			name = possible[0]
		default:
			return method{}, sources.Errorf(sources.Invalid, "set VAULT_AUTH_METHOD to the one that is meant", "cannot be read: there are several ways to log in to Vault: %s", strings.Join(possible, ", "))
		}
	}
	i := slices.IndexFunc(methods, func(m method) bool { return m.name == name })
	if i < 0 {
		return method{}, sources.Errorf(sources.Invalid, "it takes: "+strings.Join(names, ", "), "cannot be read: VAULT_AUTH_METHOD=%s is not a way to log in", name)
	}
	return methods[i], nil
}
