// Package awsssm reads parameters from AWS Systems Manager Parameter Store.
//
// A document is one version of one parameter, decrypted where it is a
// SecureString, or everything below a path that ends with a slash: its keys
// are then the parameters' names without that path.
package awsssm

import (
	"strings"

	"secret-init/sources"
	"secret-init/sources/internal/awsconfig"
)

const (
	paramVersion = "version"
	paramLabel   = "label"
)

// Backend is the scheme "aws-ssm".
var Backend = sources.Backend{
	Scheme:          "aws-ssm",
	Params:          []string{paramVersion, paramLabel, awsconfig.ParamRegion},
	Credentials:     awsconfig.Credentials,
	CredentialFiles: awsconfig.CredentialFiles,
	Check:           check,
	Open:            open,
}

// check gives a reference its canonical form: AWS's own selectors, name:3 and
// name:label, become the parameters.
// https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-versions.html
func check(ref sources.Ref) (sources.Ref, error) {
	ref, err := awsconfig.CheckParams(ref, paramVersion, paramLabel, awsconfig.ParamRegion)
	if err != nil {
		return ref, err
	}
	prefix, name := "", ref.Path
	if awsconfig.IsARN(ref.Path) {
		if prefix, name, err = splitARN(ref.Path); err != nil {
			return ref, err
		}
	}
	name, selector, selected := strings.Cut(name, ":")
	if !awsconfig.ValidName(name) {
		return ref, sources.Errorf(sources.Invalid, "write a name of letters, digits, / and _.-", "%q is not the name of a parameter", name)
	}
	ref.Path = prefix + name
	if selected {
		if ref, err = withSelector(ref, selector); err != nil {
			return ref, err
		}
	}
	version, hasVersion := ref.Params[paramVersion]
	_, hasLabel := ref.Params[paramLabel]
	switch {
	case hasVersion && hasLabel:
		return ref, sources.Errorf(sources.Invalid, "write the one or the other", "has both a version and a label")
	case hasVersion && strings.Trim(version, "0123456789") != "":
		return ref, sources.Errorf(sources.Invalid, "name a label with ?label=", "has a version %q that is not a number", version)
	case isPath(ref) && (hasVersion || hasLabel):
		return ref, sources.Errorf(sources.Invalid, "name a parameter of it", "is a whole path, of which no version or label can be selected")
	case isPath(ref) && prefix != "":
		return ref, sources.Errorf(sources.Invalid, "write aws-ssm:"+strings.TrimPrefix(name, "parameter"), "is a path given as an ARN, by which AWS cannot read it")
	case isPath(ref) && !strings.HasPrefix(ref.Path, "/"):
		return ref, sources.Errorf(sources.Invalid, "write aws-ssm:/"+ref.Path, "is a path that does not begin with a slash")
	}
	return ref, nil
}

// isPath reports whether ref is all that lies below a path.
func isPath(ref sources.Ref) bool { return strings.HasSuffix(ref.Path, "/") }

// splitARN splits an ARN before its resource.
func splitARN(path string) (prefix, resource string, err error) {
	arn, err := awsconfig.ParseARN(path)
	if err != nil {
		return "", "", err
	}
	switch {
	case arn.Service == "secretsmanager":
		return "", "", sources.Errorf(sources.Invalid, "write aws-sm:"+path, "is the ARN of a secret, not of a parameter")
	case arn.Service != "ssm" || len(arn.Resource) <= len("parameter/") || !strings.HasPrefix(arn.Resource, "parameter/"):
		return "", "", sources.Errorf(sources.Invalid, "write arn:aws:ssm:region:account:parameter/name", "is not the ARN of a parameter")
	}
	return strings.TrimSuffix(path, arn.Resource), arn.Resource, nil
}

func withSelector(ref sources.Ref, selector string) (sources.Ref, error) {
	name := paramLabel
	if strings.Trim(selector, "0123456789") == "" {
		name = paramVersion
	}
	if selector == "" || strings.Contains(selector, ":") {
		return ref, sources.Errorf(sources.Invalid, "write name:3 or name:label", "has a colon, but neither a version nor a label after it")
	}
	for _, given := range []string{paramVersion, paramLabel} {
		if _, twice := ref.Params[given]; twice {
			return ref, sources.Errorf(sources.Invalid, "write the one or the other", "has both :%s and the parameter %s", selector, given)
		}
	}
	return ref.WithParam(name, selector), nil
}
