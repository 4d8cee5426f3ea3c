// Package awssm reads secrets from AWS Secrets Manager.
//
// A document is one version of one secret. Its bytes are the SecretString or
// the SecretBinary, exactly; its keys are those of the JSON object that they
// usually hold.
package awssm

import (
	"strings"

	"secret-init/sources"
	"secret-init/sources/internal/awsconfig"
)

const (
	paramStage   = "stage"
	paramVersion = "version-id"
	paramRegion  = "region"
	// currentStage is what AWS reads when neither stage nor version is named.
	currentStage = "AWSCURRENT"
)

// Backend is the scheme "aws-sm".
var Backend = sources.Backend{
	Scheme:      "aws-sm",
	Params:      []string{paramStage, paramVersion, paramRegion},
	Credentials: awsconfig.Credentials,
	Check:       check,
	Open:        open,
}

// check gives a reference its canonical form: an ARN's suffix, as ECS spells
// it in a task definition, becomes the key and the parameters.
func check(ref sources.Ref) (sources.Ref, error) {
	for _, name := range []string{paramStage, paramVersion, paramRegion} {
		if value, ok := ref.Params[name]; ok && value == "" {
			return ref, sources.Errorf(sources.Invalid, "leave it out, or give it a value", "the parameter %s is empty", name)
		}
	}
	if region, ok := ref.Params[paramRegion]; ok {
		if err := awsconfig.CheckRegion(region); err != nil {
			return ref, err
		}
	}
	var err error
	if awsconfig.IsARN(ref.Path) {
		ref, err = checkARN(ref)
	} else {
		err = checkName(ref.Path)
	}
	if ref.Params[paramStage] == currentStage && ref.Params[paramVersion] == "" {
		ref = without(ref, paramStage)
	}
	return ref, err
}

// checkName holds a name to what AWS allows, and a ! for the secrets that a
// service of AWS manages ("rds!cluster-...").
// https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html
func checkName(name string) error {
	if strings.Contains(name, ":") {
		return sources.Errorf(sources.Invalid, "name a key with #key, a version with ?stage= or ?version-id=; ECS's :json-key:version-stage:version-id follows a whole ARN",
			"%q has a colon, which no secret's name can have", name)
	}
	odd := strings.IndexFunc(name, func(c rune) bool {
		return (c < 'a' || 'z' < c) && (c < 'A' || 'Z' < c) && (c < '0' || '9' < c) && !strings.ContainsRune("/_+=.@-!", c)
	})
	if odd >= 0 {
		return sources.Errorf(sources.Invalid, "a name has letters, digits and /_+=.@-", "%q is not the name of a secret", name)
	}
	return nil
}

// checkARN also understands secret:NAME:json-key:version-stage:version-id.
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html
func checkARN(ref sources.Ref) (sources.Ref, error) {
	arn, err := awsconfig.ParseARN(ref.Path)
	if err != nil {
		return ref, err
	}
	if arn.Service == "ssm" {
		return ref, sources.Errorf(sources.Invalid, "write aws-ssm:"+ref.Path, "is the ARN of a parameter, not of a secret")
	}
	parts := strings.Split(arn.Resource, ":")
	if arn.Service != "secretsmanager" || parts[0] != "secret" || len(parts) < 2 || parts[1] == "" {
		return ref, sources.Errorf(sources.Invalid, "its form is arn:aws:secretsmanager:region:account:secret:name", "is not the ARN of a secret")
	}
	if err := checkName(parts[1]); err != nil {
		return ref, err
	}
	suffix := parts[2:]
	arn.Resource = "secret:" + parts[1]
	ref.Path = arn.String()
	if ref.Params[paramRegion] == arn.Region {
		ref = without(ref, paramRegion)
	}
	if len(suffix) == 0 {
		return ref, nil
	}
	if len(suffix) != 3 {
		return ref, sources.Errorf(sources.Invalid, "write all three colons, each part may be empty: "+ref.Path+":json-key:version-stage:version-id",
			"has %d of the 3 parts that follow a secret's ARN", len(suffix))
	}
	if ref.Key != "" {
		return ref, sources.Errorf(sources.Invalid, "write the one or the other: "+ref.Path+"#"+ref.Key, "has both ECS's suffix and a #key")
	}
	ref.Key = suffix[0]
	if strings.HasPrefix(ref.Key, "/") {
		// ECS knows no pointers: this is one key that begins with a slash.
		ref.Key = "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(ref.Key)
	}
	for i, name := range []string{paramStage, paramVersion} {
		value := suffix[i+1]
		if value == "" {
			continue
		}
		if _, twice := ref.Params[name]; twice {
			return ref, sources.Errorf(sources.Invalid, "", "has both ECS's suffix and the parameter %s", name)
		}
		ref = ref.WithParam(name, value)
	}
	return ref, nil
}

// without is a copy of ref that lacks a parameter.
func without(ref sources.Ref, name string) sources.Ref {
	params := map[string]string{}
	for n, v := range ref.Params {
		if n != name {
			params[n] = v
		}
	}
	if ref.Params = params; len(params) == 0 {
		ref.Params = nil
	}
	return ref
}
