// Package tools pins the Vault server that the integration tests start.
package tools

import _ "github.com/hashicorp/vault"
