// Package all is the table of the sources that the program knows.
package all

import (
	"secret-init/sources"
	"secret-init/sources/awssm"
	"secret-init/sources/awsssm"
	"secret-init/sources/file"
	"secret-init/sources/sops"
	"secret-init/sources/vault"
)

// Registry holds every backend. A build that leaves one out (a tag such as
// no_vault) still knows its name, its parameters and its credentials.
func Registry() *sources.Registry {
	return sources.NewRegistry(
		awssm.Backend,
		awsssm.Backend,
		file.Backend,
		sops.Backend,
		vault.Backend,
	)
}
