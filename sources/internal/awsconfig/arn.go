// Package awsconfig is what every AWS source needs alike: ARNs, the SDK's
// configuration with one client a region, and the translation of AWS's error
// codes. It knows no service.
package awsconfig

import (
	"strings"

	"secret-init/sources"
)

// Credentials are the SDK's variables that hold a credential. The
// application often needs its role too, so the command keeps them.
var Credentials = []sources.Variable{
	{Name: "AWS_ACCESS_KEY_ID", Shared: true},
	{Name: "AWS_SECRET_ACCESS_KEY", Shared: true},
	{Name: "AWS_SESSION_TOKEN", Shared: true},
}

// CredentialFiles name lasting keys. A web identity's or a container agent's
// token is left out: like the role, it is there for the application.
var CredentialFiles = []string{"AWS_SHARED_CREDENTIALS_FILE"}

// ARN is an Amazon Resource Name, split at its first five colons.
type ARN struct{ Partition, Service, Region, Account, Resource string }

// IsARN reports whether a path is meant to be an ARN.
func IsARN(path string) bool { return strings.HasPrefix(path, "arn:") }

// ParseARN splits an ARN. Every secret lives in a region and an account, so
// an ARN without one of them is an error too.
func ParseARN(s string) (ARN, error) {
	const form = "write arn:partition:service:region:account:resource"
	parts := strings.SplitN(s, ":", 6)
	if len(parts) < 6 || parts[0] != "arn" {
		return ARN{}, sources.Errorf(sources.Invalid, form, "is not a whole ARN")
	}
	a := ARN{parts[1], parts[2], parts[3], parts[4], parts[5]}
	for name, part := range map[string]string{"partition": a.Partition, "service": a.Service, "account": a.Account, "resource": a.Resource} {
		if part == "" {
			return ARN{}, sources.Errorf(sources.Invalid, form, "is an ARN without its %s", name)
		}
	}
	return a, CheckRegion(a.Region)
}

func (a ARN) String() string {
	return strings.Join([]string{"arn", a.Partition, a.Service, a.Region, a.Account, a.Resource}, ":")
}

// CheckRegion refuses what cannot be a region: it becomes a part of a host's name.
func CheckRegion(region string) error {
	odd := strings.IndexFunc(region, func(c rune) bool { return c != '-' && (c < 'a' || 'z' < c) && (c < '0' || '9' < c) })
	if region == "" || odd >= 0 {
		return sources.Errorf(sources.Invalid, "write a region as in eu-central-1", "has %q where the region belongs", region)
	}
	return nil
}

// Partition is the part of AWS that a region belongs to: IAM policies name it.
func Partition(region string) string {
	for prefix, partition := range map[string]string{
		"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b",
		"eu-isoe-": "aws-iso-e", "us-isof-": "aws-iso-f", "eusc-": "aws-eusc",
	} {
		if strings.HasPrefix(region, prefix) {
			return partition
		}
	}
	return "aws"
}
