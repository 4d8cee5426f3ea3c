// Package vault reads secrets from HashiCorp Vault, or OpenBao, whose API is
// the same. It is built on Vault's own client; it reads no setting but through
// Settings, and makes no request before the first Fetch.
package vault

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"secret-init/sources"
)

// Parameters of a reference.
const (
	paramVersion   = "version"
	paramNamespace = "namespace"
	paramMethod    = "method"
)

// Backend is the scheme "vault".
var Backend = sources.Backend{
	Scheme:   "vault",
	Params:   []string{paramVersion, paramNamespace, paramMethod},
	AnyParam: isWrite,
	Credentials: []sources.Variable{
		{Name: "VAULT_TOKEN"},
		{Name: "VAULT_WRAPPED_TOKEN"},
		{Name: "VAULT_ROLE_ID"},
		{Name: "VAULT_SECRET_ID"},
		{Name: "VAULT_JWT"},
		{Name: "VAULT_PASSWORD"},
	},
	CredentialFiles: []string{
		"VAULT_TOKEN_FILE", "VAULT_WRAPPED_TOKEN_FILE", "VAULT_SECRET_ID_FILE",
		"VAULT_JWT_FILE", "VAULT_PASSWORD_FILE", "VAULT_CLIENT_KEY",
	},
	NeedsSlash: true,
	Check:      check,
	Open:       open,
}

// isWrite: the reference's parameters are the fields of a request of its own.
func isWrite(ref sources.Ref) bool { return ref.Params[paramMethod] == "write" }

func check(ref sources.Ref) (sources.Ref, error) {
	invalid := func(hint, format string, args ...any) (sources.Ref, error) {
		return ref, sources.Errorf(sources.Invalid, hint, format, args...)
	}
	if strings.HasPrefix(ref.Path, "//") {
		return invalid("write vault:secret/db#password, and set VAULT_ADDR to the server", "the path begins with //, as if a server's name followed")
	}
	path := strings.TrimPrefix(strings.TrimSuffix(ref.Path, "/"), "/")
	parts := strings.Split(path, "/")
	switch {
	case slices.Contains(parts, ""):
		return invalid("write one slash between the parts, as in vault:secret/db", "the path %q has an empty part", ref.Path)
	case slices.Contains(parts, "..") || slices.Contains(parts, "."):
		return invalid("write the path without it", "the path %q has a part . or .., which Vault does not know", ref.Path)
	case parts[0] == "v1" && len(parts) > 2:
		return invalid("write vault:"+strings.Join(parts[1:], "/"), "the path begins with the API's own prefix v1/")
	case len(parts) == 1:
		return invalid(fmt.Sprintf("write vault:%s/NAME", path), "the path %q names a mount, not a secret", path)
	}
	ref.Path = path
	if method, ok := ref.Params[paramMethod]; ok && method != "write" && method != "read" {
		return invalid("it takes: read, write", "parameter %q does not take %q", paramMethod, method)
	}
	if version, ok := ref.Params[paramVersion]; ok && !isWrite(ref) {
		if n, err := strconv.Atoi(version); err != nil || n < 1 || strconv.Itoa(n) != version {
			return invalid("write a number from 1 up, or leave it out for the newest", "parameter %q does not take %q", paramVersion, version)
		}
	}
	if namespace, ok := ref.Params[paramNamespace]; ok && strings.Trim(namespace, "/") == "" {
		return invalid("leave it out for VAULT_NAMESPACE", "parameter %q is empty", paramNamespace)
	}
	return ref, nil
}
