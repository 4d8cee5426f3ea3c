//go:build no_sops

package sops

import "secret-init/sources"

var open func(sources.Settings) (sources.Source, error)
