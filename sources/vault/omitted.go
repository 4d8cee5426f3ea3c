//go:build no_vault

package vault

import "secret-init/sources"

// open is nil: this build leaves the backend out, and still knows its name,
// its parameters and its credentials.
var open func(sources.Settings) (sources.Source, error)
