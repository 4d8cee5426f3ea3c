//go:build !no_vault

package vault

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"secret-init/sources"
)

const hintAddress = "set VAULT_ADDR to the address of Vault itself"

// phrase recognises one of Vault's own messages, which are never shown. Where
// the status alone decides, failed does.
type phrase struct {
	text, what, hint string
	class            sources.Class
}

// phrases are as Vault 1.13 and later spell them, in lower case.
var phrases = []phrase{
	{"vault is sealed", "cannot be read: Vault is sealed", "unseal it with: vault operator unseal", sources.Unavailable},
	{"active cluster node not found", "cannot be read: this Vault node is a standby and knows no active node", "look with: vault status", sources.Unavailable},
	{"vault is in standby mode", "cannot be read: this Vault node is a standby", "look with: vault status", sources.Unavailable},
	{plainHTTP, "cannot be read: the server speaks https, and VAULT_ADDR says http", "set VAULT_ADDR=https://…", sources.Invalid},
	{"upgrading from non-versioned to versioned data", "cannot be read: the mount is changing to KV version 2", "raise --timeout to try longer", sources.Unavailable},
	{"missing client token", "cannot be read: access denied (403): Vault saw no token", hintNoAuth, sources.Denied},
	{"wrapping token is not valid or does not exist", "cannot be read: " + whatWrapping, hintWrapping, sources.Denied},
	{"no handler for route", "does not exist: nothing is mounted at this path", "look with: vault secrets list", sources.NotFound},
	{"unknown role", "does not exist: the secrets engine has no such role", "write the role's name as the last part of the path", sources.NotFound},
	{"encryption key not found", "does not exist: the secrets engine has no such key", "write the key's name as the last part of the path", sources.NotFound},
}

// failed turns an answer with an error's status into an error.
func (op operation) failed(a *answer) *sources.Error {
	for _, known := range phrases {
		if says(a, known.text) {
			err := sources.Errorf(known.class, known.hint, "%s", known.what)
			err.RetryAfter = retryAfter(a)
			return err
		}
	}
	switch a.status {
	case http.StatusForbidden:
		return op.denied()
	case http.StatusNotFound:
		return op.notFound(a)
	case http.StatusMethodNotAllowed:
		if op.write {
			return sources.Errorf(sources.Invalid, "leave method=write out", "cannot be read: it takes no requests (405)")
		}
		return sources.Errorf(sources.Invalid, "add method=write and the request's own fields", "cannot be read: it answers requests alone (405)")
	case http.StatusBadRequest:
		if op.write {
			return sources.Errorf(sources.Invalid, "look with: vault path-help "+op.path, "cannot be read: Vault finds the request wrong (400): its fields are missing or wrong")
		}
		return sources.Errorf(sources.Invalid, "look with: vault path-help "+op.path, "cannot be read: Vault finds the request wrong (400)")
	case http.StatusPreconditionFailed:
		return unavailable(a, "cannot be read yet: this Vault node has not caught up with the others (412)", "set VAULT_ADDR to the active node; raise --timeout to try longer")
	case http.StatusTooManyRequests:
		return unavailable(a, "cannot be read now: Vault's rate limit is reached (429)", "look with: vault list sys/quotas/rate-limit")
	}
	switch {
	case a.status >= 500:
		return unavailable(a, fmt.Sprintf("cannot be read now: Vault answered %d", a.status), "look with: vault status")
	case a.status >= 300 && a.status < 400:
		return redirected(a)
	}
	return sources.Errorf(sources.Invalid, hintAddress, "cannot be read: Vault answered %d", a.status)
}

const (
	plainHTTP    = "http request to an https server"
	whatWrapping = "the wrapping token has expired, or somebody has used it before"
	hintWrapping = "set VAULT_WRAPPED_TOKEN to a new one, since it works once; and find out who used this one"
)

func isPlainHTTP(a *answer) bool { return says(a, plainHTTP) }

func says(a *answer, text string) bool {
	for _, message := range a.messages {
		if strings.Contains(strings.ToLower(message), text) {
			return true
		}
	}
	return false
}

func unavailable(a *answer, what, hint string) *sources.Error {
	err := sources.Errorf(sources.Unavailable, hint, "%s", what)
	err.RetryAfter = retryAfter(a)
	return err
}

// retryAfter reads the header of that name: seconds, or a date (RFC 9110, 10.2.3).
func retryAfter(a *answer) time.Duration {
	text := a.header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

func (op operation) denied() *sources.Error {
	capability := "read"
	if op.write {
		capability = "update"
	}
	if !op.write && !op.mount.known {
		return sources.Errorf(sources.Denied,
			fmt.Sprintf("check the path (a key comes after #), and the token with: vault token lookup; allow \"read\" on %s in a policy of it (after a KV version 2 mount comes data/)", op.path),
			"cannot be read: access denied (403): the token is not valid, or no policy of it gives anything there")
	}
	return sources.Errorf(sources.Denied,
		fmt.Sprintf("check the path (a key comes after #), and the token with: vault token lookup; allow it in a policy of it: path %q { capabilities = [%q] }", op.path, capability),
		"cannot be read: access denied (403): the token is not valid, or lacks the capability %q on %s", capability, op.path)
}

func (op operation) notFound(a *answer) *sources.Error {
	var said struct {
		Data     kvVersion `json:"data"`
		Warnings []string  `json:"warnings"`
	}
	// Most of these answers have no data: then nothing is known but the status.
	_ = json.Unmarshal(a.body, &said)
	number, metadata := said.Data.Metadata.Version, said.Data.Metadata
	switch {
	case op.mount.kv2 && number > 0 && metadata.Destroyed:
		return sources.Errorf(sources.NotFound, "look with: vault kv metadata get "+op.mount.kvPath(op.path),
			"has no value: version %d was destroyed%s", number, metadata.Deleted.phrase())
	case op.mount.kv2 && number > 0:
		return sources.Errorf(sources.NotFound, fmt.Sprintf("undelete it with: vault kv undelete -versions=%d %s", number, op.mount.kvPath(op.path)),
			"has no value: version %d was deleted%s", number, metadata.Deleted.phrase())
	case len(said.Warnings) > 0 && strings.HasPrefix(said.Warnings[0], "Invalid path for a versioned K/V"):
		return sources.Errorf(sources.NotFound, "write the API's path, with data/ after the mount, since Vault does not tell what is mounted there", "does not exist")
	case op.version != "":
		return sources.Errorf(sources.NotFound, "look with: vault kv metadata get "+op.mount.kvPath(op.path), "has no version %s", op.version)
	case op.mount.kv2:
		return sources.Errorf(sources.NotFound, "look with: vault kv get "+op.mount.kvPath(op.path), "does not exist")
	}
	return sources.Errorf(sources.NotFound, "look with: vault read "+op.path, "does not exist")
}

// redirected: checkRedirect did not follow, since it leads to another server.
// A standby sends 307, and the next attempt may find the active node.
func redirected(a *answer) *sources.Error {
	hint := hintAddress
	location, err := (&http.Response{Header: a.header}).Location()
	if err == nil && location.Host != "" {
		hint = fmt.Sprintf("set VAULT_ADDR=%s://%s if that is Vault: the token goes to no other server", location.Scheme, location.Host)
	}
	if a.status == http.StatusTemporaryRedirect {
		return sources.Errorf(sources.Unavailable, hint, "cannot be read: this Vault node is a standby, and redirects to another server (307)")
	}
	return sources.Errorf(sources.Invalid, hint, "cannot be read: what answers at VAULT_ADDR redirects to another server (%d)", a.status)
}

// connectionError says why there was no answer. It uses types, not texts: a
// library's text may hold the address with its password.
func (c *client) connectionError(ctx context.Context, err error) *sources.Error {
	if ctx.Err() != nil {
		return sources.ContextError(ctx)
	}
	invalid := func(hint, what string) *sources.Error {
		return sources.Errorf(sources.Invalid, hint, "cannot be read: %s", what)
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return sources.Errorf(sources.Invalid, hintAddress, "cannot be read: the answer is larger than %d MiB", maxBody>>20)
	}
	if what := sources.BadCertificate(err); what != "" {
		hints := map[string]string{
			sources.CertificateName:      "set VAULT_ADDR to a name in the certificate, or VAULT_TLS_SERVER_NAME",
			sources.CertificateAuthority: "set VAULT_CACERT to the file with that authority's certificate",
			sources.CertificateTime:      sources.HintClock + "; renew the certificate if it is right",
			sources.CertificateOther:     "look with: openssl s_client -connect " + c.url().Host,
		}
		return invalid(hints[what], what)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return invalid("set VAULT_ADDR=http://"+c.url().Host+" if plain http is meant", "the server does not speak TLS, and VAULT_ADDR says https")
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return sources.Errorf(sources.Denied, "set VAULT_CLIENT_CERT and VAULT_CLIENT_KEY", "cannot be read: access denied: the server ended the TLS handshake, and may want a client's certificate")
	}
	if sources.NoServer(c.url(), err) {
		return notServer()
	}
	return sources.Errorf(sources.Unavailable, "check VAULT_ADDR, and Vault with: vault status; raise --timeout to try longer", "%s", sources.Unreachable(ctx, c.url(), err))
}

// url is the server's, without a password that VAULT_ADDR may hold.
func (c *client) url() *url.URL {
	u := c.api.NewRequest(http.MethodGet, "/").URL
	return &url.URL{Scheme: u.Scheme, Host: u.Host}
}
