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
	// currentStage is what AWS reads when neither stage nor version is named.
	currentStage = "AWSCURRENT"
)

// Backend is the scheme "aws-sm".
var Backend = sources.Backend{
	Scheme:          "aws-sm",
	Params:          []string{paramStage, paramVersion, awsconfig.ParamRegion},
	Credentials:     awsconfig.Credentials,
	CredentialFiles: awsconfig.CredentialFiles,
	Check:           check,
	Open:            open,
}

// check gives a reference its canonical form: an ARN's suffix, as ECS spells
// it in a task definition, becomes the key and the parameters.
func check(ref sources.Ref) (sources.Ref, error) {
	ref, err := awsconfig.CheckParams(ref, paramStage, paramVersion, awsconfig.ParamRegion)
	if err != nil {
		return ref, err
	}
	if awsconfig.IsARN(ref.Path) {
		ref, err = checkARN(ref)
	} else {
		err = checkName(ref.Path)
	}
	if ref.Params[paramStage] == currentStage && ref.Params[paramVersion] == "" {
		ref = awsconfig.Without(ref, paramStage)
	}
	return ref, err
}

func checkName(name string) error {
	if strings.Contains(name, ":") {
		return sources.Errorf(sources.Invalid, "name a key with #key, a version with ?stage= or ?version-id=; ECS's :json-key:version-stage:version-id follows a whole ARN",
			"%q has a colon, which no secret's name can have", name)
	}
	if !awsconfig.ValidName(name) {
		return sources.Errorf(sources.Invalid, "write a name of letters, digits and /_+=.@-", "%q is not the name of a secret", name)
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
		return ref, sources.Errorf(sources.Invalid, "write arn:aws:secretsmanager:region:account:secret:name", "is not the ARN of a secret")
	}
	if err := checkName(parts[1]); err != nil {
		return ref, err
	}
	suffix := parts[2:]
	arn.Resource = "secret:" + parts[1]
	ref.Path = arn.String()
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
			return ref, sources.Errorf(sources.Invalid, "write the one or the other: leave ?"+name+"= out, or that part of the suffix empty", "has both ECS's suffix and the parameter %s", name)
		}
		ref = ref.WithParam(name, value)
	}
	return ref, nil
}
