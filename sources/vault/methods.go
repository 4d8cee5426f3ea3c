//go:build !no_vault

package vault

import (
	"context"
	"errors"
	"os"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
	"github.com/hashicorp/vault/api/auth/kubernetes"
	"github.com/hashicorp/vault/api/auth/userpass"

	"secret-init/sources"
)

// loginSettings is what a method draws on.
type loginSettings struct {
	settingsReader
	client  *client
	wrapped *wrapped
	// name is the method's; mount is where it is, below auth/.
	name, mount string
}

// method is one way to get a token: token gives it, or begin makes ready for
// a login at auth/<mount>.
type method struct {
	name string
	// mount is the default.
	mount string
	// possible: the settings that are its alone are there. A method without
	// it is chosen by VAULT_AUTH_METHOD only.
	possible func(settingsReader) bool
	token    func(context.Context, *loginSettings) (string, error)
	begin    func(context.Context, *loginSettings) (api.AuthMethod, error)
}

// methods are in the order in which they are listed to the user.
var methods = []method{
	{
		name:     "token",
		possible: func(s settingsReader) bool { return s.has("VAULT_TOKEN") },
		token:    func(_ context.Context, l *loginSettings) (string, error) { return l.needSecret("token", "VAULT_TOKEN") },
	},
	{
		// With a role id the wrapped answer is a secret id, and the method approle.
		name:     "wrapped",
		possible: func(s settingsReader) bool { return s.has("VAULT_WRAPPED_TOKEN") && s.get("VAULT_ROLE_ID") == "" },
		token:    wrappedToken,
	},
	{
		name:     "approle",
		mount:    "approle",
		possible: func(s settingsReader) bool { return s.get("VAULT_ROLE_ID") != "" },
		begin:    beginAppRole,
	},
	{
		name:  "kubernetes",
		mount: "kubernetes",
		possible: func(s settingsReader) bool {
			_, err := os.Stat(serviceAccountToken)
			return s.get("VAULT_ROLE") != "" && !s.has("VAULT_JWT") && err == nil
		},
		begin: beginKubernetes,
	},
	{
		name:     "jwt",
		mount:    "jwt",
		possible: func(s settingsReader) bool { return s.has("VAULT_JWT") },
		begin:    beginJWT,
	},
	{
		// The same request: an OIDC mount takes a JWT for roles of the type jwt.
		name:  "oidc",
		mount: "oidc",
		begin: beginJWT,
	},
	{
		name:  "aws",
		mount: "aws",
		possible: func(s settingsReader) bool {
			if s.get("VAULT_ROLE") == "" || s.has("VAULT_JWT") {
				return false
			}
			for _, name := range []string{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
				"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"} {
				if s.get(name) != "" {
					return true
				}
			}
			return false
		},
		begin: beginAWS,
	},
	{
		name:     "cert",
		mount:    "cert",
		possible: func(s settingsReader) bool { return s.get("VAULT_CLIENT_CERT") != "" },
		begin:    beginCert,
	},
	{
		name:     "userpass",
		mount:    "userpass",
		possible: func(s settingsReader) bool { return s.get("VAULT_USERNAME") != "" },
		begin: func(_ context.Context, l *loginSettings) (api.AuthMethod, error) {
			name, password, err := l.userAndPassword()
			if err != nil {
				return nil, err
			}
			return userpass.NewUserpassAuth(name, &userpass.Password{FromString: password}, userpass.WithMountPath(l.mount))
		},
	},
	{
		name:     "ldap",
		mount:    "ldap",
		possible: func(s settingsReader) bool { return s.get("VAULT_USERNAME") != "" },
		begin: func(_ context.Context, l *loginSettings) (api.AuthMethod, error) {
			name, password, err := l.userAndPassword()
			return post{"auth/" + l.mount + "/login/" + name, map[string]any{"password": password}}, err
		},
	},
	{
		// A Vault Agent or Vault Proxy at VAULT_ADDR adds its own token.
		name:  "none",
		token: func(context.Context, *loginSettings) (string, error) { return "", nil },
	},
}

// post is a login that is one request, for which Vault's client has no module
// (or one that brings a second AWS SDK).
type post struct {
	path string
	body map[string]any
}

// Login implements api.AuthMethod.
func (p post) Login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	return client.Logical().WriteWithContext(ctx, p.path, p.body)
}

func wrappedToken(ctx context.Context, l *loginSettings) (string, error) {
	if err := l.unwrap(ctx); err != nil {
		return "", err
	}
	if l.wrapped.token == "" {
		return "", sources.Errorf(sources.Invalid, "set VAULT_ROLE_ID too where it wraps a secret id", "cannot be read: VAULT_WRAPPED_TOKEN does not wrap a token")
	}
	return l.wrapped.token, nil
}

func beginAppRole(ctx context.Context, l *loginSettings) (api.AuthMethod, error) {
	role, err := l.need(l.name, "VAULT_ROLE_ID")
	if err != nil {
		return nil, err
	}
	var secret string
	switch {
	case l.has("VAULT_WRAPPED_TOKEN") && l.has("VAULT_SECRET_ID"):
		return nil, sources.Errorf(sources.Invalid, "unset one of them", "cannot be read: both VAULT_SECRET_ID and VAULT_WRAPPED_TOKEN are set")
	case l.has("VAULT_WRAPPED_TOKEN"):
		if err := l.unwrap(ctx); err != nil {
			return nil, err
		}
		if secret = l.wrapped.secretID; secret == "" {
			return nil, sources.Errorf(sources.Invalid, "wrap one with: vault write -wrap-ttl=5m -f auth/"+l.mount+"/role/ROLE/secret-id",
				"cannot be read: VAULT_WRAPPED_TOKEN does not wrap a secret id")
		}
	case !l.has("VAULT_SECRET_ID") && l.get("VAULT_AUTH_METHOD") == "approle":
		// A role may be bound by addresses alone (bind_secret_id=false). Who
		// names the method means that; else the secret id was forgotten.
		return post{"auth/" + l.mount + "/login", map[string]any{"role_id": role}}, nil
	default:
		if secret, err = l.needSecret(l.name, "VAULT_SECRET_ID"); err != nil {
			return nil, err
		}
	}
	return approle.NewAppRoleAuth(role, &approle.SecretID{FromString: secret}, approle.WithMountPath(l.mount))
}

// serviceAccountToken is where Kubernetes puts it. A variable for the tests alone.
var serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

func beginKubernetes(_ context.Context, l *loginSettings) (api.AuthMethod, error) {
	role, err := l.need(l.name, "VAULT_ROLE")
	if err != nil {
		return nil, err
	}
	var jwt string
	if l.has("VAULT_JWT") {
		jwt, err = l.needSecret(l.name, "VAULT_JWT")
	} else {
		jwt, err = readSecret("the login with kubernetes needs", serviceAccountToken)
		if e, ok := errors.AsType[*sources.Error](err); ok {
			e.Hint = "set automountServiceAccountToken: true in the pod, or VAULT_JWT_FILE to the token's file"
		}
	}
	if err != nil {
		return nil, err
	}
	return kubernetes.NewKubernetesAuth(role, kubernetes.WithMountPath(l.mount), kubernetes.WithServiceAccountToken(jwt))
}

// beginJWT needs no role: the mount may have a default one.
func beginJWT(_ context.Context, l *loginSettings) (api.AuthMethod, error) {
	jwt, err := l.needSecret(l.name, "VAULT_JWT")
	return post{"auth/" + l.mount + "/login", l.withRole(map[string]any{"jwt": jwt}, "role")}, err
}

// beginCert: the certificate itself goes with the TLS handshake.
func beginCert(_ context.Context, l *loginSettings) (api.AuthMethod, error) {
	_, err := l.need(l.name, "VAULT_CLIENT_CERT")
	return post{"auth/" + l.mount + "/login", l.withRole(map[string]any{}, "name")}, err
}

func (l *loginSettings) withRole(body map[string]any, field string) map[string]any {
	if role := l.get("VAULT_ROLE"); role != "" {
		body[field] = role
	}
	return body
}

func (l *loginSettings) userAndPassword() (name, password string, err error) {
	if name, err = l.need(l.name, "VAULT_USERNAME"); err == nil {
		password, err = l.needSecret(l.name, "VAULT_PASSWORD")
	}
	return name, password, err
}
