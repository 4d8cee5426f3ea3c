//go:build !no_vault

package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"secret-init/sources"
)

const hintAddress = "is VAULT_ADDR the address of Vault itself?"

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
	{"upgrading from non-versioned to versioned data", "cannot be read: the mount is changing to KV version 2", "", sources.Unavailable},
	{"missing client token", "was refused (403): Vault saw no token", hintNoAuth, sources.Denied},
	{"wrapping token is not valid or does not exist", "was refused: " + whatWrapping, hintWrapping, sources.Denied},
	{"no handler for route", "does not exist: nothing is mounted at this path", "list the mounts with: vault secrets list", sources.NotFound},
	{"unknown role", "does not exist: the secrets engine has no such role", "", sources.NotFound},
	{"encryption key not found", "does not exist: the secrets engine has no such key", "", sources.NotFound},
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
			return sources.Errorf(sources.Invalid, "leave method=write out", "takes no requests: it can only be read (405)")
		}
		return sources.Errorf(sources.Invalid, "add method=write and the request's own fields", "cannot be read: it answers only requests (405)")
	case http.StatusBadRequest:
		if op.write {
			return sources.Errorf(sources.Invalid, "see what it takes with: vault path-help "+op.path, "refused the request (400): its fields are missing or wrong")
		}
		return sources.Errorf(sources.Invalid, "see what it takes with: vault path-help "+op.path, "cannot be read: Vault finds the request wrong (400)")
	case http.StatusPreconditionFailed:
		return unavailable(a, "cannot be read yet: this Vault node has not caught up with the others (412)", "raise --timeout, or point VAULT_ADDR at the active node")
	case http.StatusTooManyRequests:
		return unavailable(a, "cannot be read now: Vault's rate limit is reached (429)", "see the limits with: vault list sys/quotas/rate-limit")
	}
	switch {
	case a.status >= 500:
		return unavailable(a, fmt.Sprintf("cannot be read now: Vault answered %d", a.status), "look with: vault status")
	case a.status >= 300 && a.status < 400:
		return redirected(a)
	}
	return sources.Errorf(sources.Invalid, "", "cannot be read: Vault answered %d", a.status)
}

const (
	plainHTTP    = "http request to an https server"
	whatWrapping = "the wrapping token has expired, or somebody has used it before"
	hintWrapping = "a wrapping token works once: make a new one, and find out who used this one"
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
			fmt.Sprintf("is the token valid (vault token lookup)? Then let a policy of it allow \"read\" on %s; after a KV version 2 mount comes data/", op.path),
			"was refused (403): the token is not valid, or no policy of it gives anything there")
	}
	return sources.Errorf(sources.Denied,
		fmt.Sprintf("is the token valid (vault token lookup)? Then let a policy of it say: path %q { capabilities = [%q] }", op.path, capability),
		"was refused (403): the token is not valid, or lacks the capability %q on %s", capability, op.path)
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
		return sources.Errorf(sources.NotFound, "see what there is with: vault kv metadata get "+op.mount.kvPath(op.path),
			"has no value: version %d was destroyed%s", number, metadata.Deleted.phrase())
	case op.mount.kv2 && number > 0:
		return sources.Errorf(sources.NotFound, fmt.Sprintf("bring it back with: vault kv undelete -versions=%d %s", number, op.mount.kvPath(op.path)),
			"has no value: version %d was deleted%s", number, metadata.Deleted.phrase())
	case len(said.Warnings) > 0 && strings.HasPrefix(said.Warnings[0], "Invalid path for a versioned K/V"):
		return sources.Errorf(sources.NotFound, "write the API's path, with data/ after the mount: Vault did not tell what is mounted there", "does not exist")
	case op.version != "":
		return sources.Errorf(sources.NotFound, "see what there is with: vault kv metadata get "+op.mount.kvPath(op.path), "has no version %s", op.version)
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
		hint = fmt.Sprintf("the token goes to no other server: set VAULT_ADDR=%s://%s if that is Vault", location.Scheme, location.Host)
	}
	if a.status == http.StatusTemporaryRedirect {
		return sources.Errorf(sources.Unavailable, hint, "cannot be read: this Vault node is a standby, and redirects to another server (307)")
	}
	return sources.Errorf(sources.Invalid, hint, "cannot be read: VAULT_ADDR answers with a redirect to another server (%d)", a.status)
}

// connectionError says why there was no answer. It uses types, not texts: a
// library's text may hold the address with its password.
func (c *client) connectionError(ctx context.Context, err error) *sources.Error {
	if ctx.Err() != nil {
		return contextError(ctx).(*sources.Error)
	}
	invalid := func(hint, format string, args ...any) *sources.Error {
		return sources.Errorf(sources.Invalid, hint, "cannot be read: "+format, args...)
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return sources.Errorf(sources.Invalid, "", "is larger than %d MiB", maxBody>>20)
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return invalid("set VAULT_ADDR to a name in the certificate, or VAULT_TLS_SERVER_NAME", "the server's certificate is for another name")
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return invalid("set VAULT_CACERT to the file with that authority's certificate", "the server's certificate is signed by an authority that is not known here")
	}
	if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok && bad.Reason == x509.Expired {
		return invalid("is the clock right? If so, the server needs a new certificate", "the server's certificate has expired or is not valid yet")
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return invalid("look with: openssl s_client -connect "+c.host(), "the server's certificate is not valid")
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return invalid("set VAULT_ADDR=http://"+c.host()+" if plain http is meant", "the server does not speak TLS, and VAULT_ADDR says https")
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return sources.Errorf(sources.Denied, "set VAULT_CLIENT_CERT and VAULT_CLIENT_KEY", "cannot be read: the server ended the TLS handshake: it may want a client's certificate")
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return sources.Errorf(sources.Unavailable, hintReach, "cannot be reached: the name %s does not resolve", c.hostname())
	}
	what := "the connection failed"
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		what = "no answer in time"
	}
	for _, known := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENOENT, syscall.EACCES} {
		if errors.Is(err, known) {
			what = known.Error()
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		what = "the server closed the connection"
	}
	return sources.Errorf(sources.Unavailable, hintReach, "cannot be reached at %s: %s", c.host(), what)
}

const hintReach = "is Vault up, and VAULT_ADDR right?"

// host is the server's name and port, without a password that VAULT_ADDR may hold.
func (c *client) host() string {
	r := c.api.NewRequest(http.MethodGet, "/")
	return r.URL.Host
}

func (c *client) hostname() string {
	r := c.api.NewRequest(http.MethodGet, "/")
	return r.URL.Hostname()
}
