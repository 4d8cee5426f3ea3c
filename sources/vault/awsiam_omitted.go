//go:build !no_vault && no_aws

package vault

import (
	"context"

	"github.com/hashicorp/vault/api"

	"secret-init/sources"
)

func beginAWS(context.Context, *loginSettings) (api.AuthMethod, error) {
	return nil, sources.Errorf(sources.Invalid, `build it in with: make build SOURCES="vault aws"`, "cannot be read: this build leaves AWS out, and with it the login with aws")
}
