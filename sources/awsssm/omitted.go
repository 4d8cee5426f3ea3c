//go:build no_aws

package awsssm

import "secret-init/sources"

// open is nil: this build leaves the AWS sources out.
var open func(sources.Settings) (sources.Source, error)
