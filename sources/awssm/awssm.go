//go:build !no_aws

package awssm

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"secret-init/sources"
	"secret-init/sources/internal/awsconfig"
)

type source struct {
	settings sources.Settings
	clients  awsconfig.Clients[*secretsmanager.Client]
	// noBatch is set once a policy has denied BatchGetSecretValue.
	noBatch atomic.Bool
}

func open(settings sources.Settings) (sources.Source, error) {
	return &source{settings: settings, clients: awsconfig.Clients[*secretsmanager.Client]{
		New: func(cfg aws.Config) *secretsmanager.Client { return secretsmanager.NewFromConfig(cfg) },
	}}, nil
}

// Close has nothing to give up: the SDK's sessions end by themselves.
func (*source) Close(context.Context) error { return nil }

func (s *source) Fetch(ctx context.Context, doc sources.Ref) (*sources.Document, error) {
	client, region, err := s.clients.Client(ctx, awsconfig.RegionOf(doc))
	if err != nil {
		return nil, err
	}
	secret, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{
		SecretId:     aws.String(doc.Path),
		VersionStage: optional(doc.Params[paramStage]),
		VersionId:    optional(doc.Params[paramVersion]),
	})
	if err != nil {
		return nil, translate(ctx, doc, region, err)
	}
	return document(doc, region, secret.SecretString, secret.SecretBinary, secret.VersionId)
}

func document(doc sources.Ref, region string, text *string, binary []byte, version *string) (*sources.Document, error) {
	if text != nil {
		binary = []byte(*text)
	}
	if binary == nil {
		return nil, sources.Errorf(sources.NotFound, "give it one with: aws secretsmanager put-secret-value"+inCLI(doc, region), "has no value yet")
	}
	if len(binary) > awsconfig.MaxValue {
		return nil, sources.Errorf(sources.Invalid, awsconfig.HintAWSItself, "is larger than %d KiB", awsconfig.MaxValue>>10)
	}
	return &sources.Document{Bytes: binary, Parse: sources.ParseJSON, Version: aws.ToString(version)}, nil
}

// translate goes by the codes of
// https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
func translate(ctx context.Context, doc sources.Ref, region string, err error) *sources.Error {
	if e := fromCode(doc, region, awsconfig.Code(err)); e != nil {
		return e
	}
	return request(doc, region).Translate(ctx, err)
}

// inCLI names doc to the aws command.
func inCLI(doc sources.Ref, region string) string {
	return " --region " + region + " --secret-id " + doc.Path
}

// fromCode is nil for a code that is not Secrets Manager's own.
func fromCode(doc sources.Ref, region, code string) *sources.Error {
	switch code {
	case "ResourceNotFoundException":
		what := "does not exist in " + region
		if stage := doc.Params[paramStage]; stage != "" {
			what += ", or has no version with the stage " + stage
		}
		if version := doc.Params[paramVersion]; version != "" {
			what += ", or has no version " + version
		}
		return sources.Errorf(sources.NotFound, "look with: aws secretsmanager describe-secret"+inCLI(doc, region), "%s", what)
	case "InvalidRequestException":
		// Of a read it says one of two things: a secret marked for deletion,
		// or a stage that is not the version's.
		if doc.Params[paramStage] != "" && doc.Params[paramVersion] != "" {
			return sources.Errorf(sources.NotFound, "name the stage or the version, not both", "is marked for deletion, or its version %s is not the stage %s",
				doc.Params[paramVersion], doc.Params[paramStage])
		}
		return sources.Errorf(sources.NotFound, "restore it with: aws secretsmanager restore-secret"+inCLI(doc, region), "is marked for deletion")
	case "InvalidParameterException", "ValidationException":
		return sources.Errorf(sources.Invalid, "check the name, ?stage= and ?version-id=", "cannot be read: AWS finds the request wrong (%s)", code)
	case "DecryptionFailure":
		return sources.Errorf(sources.Denied, "allow kms:Decrypt on its KMS key, and check that the key is enabled", "cannot be read: access denied: AWS cannot decrypt it (%s)", code)
	}
	return nil
}

// request is what a policy has to allow for doc. The random end of an ARN is
// not known from a name: IAM takes six question marks for it.
func request(doc sources.Ref, region string) awsconfig.Request {
	resource := doc.Path
	if !awsconfig.IsARN(resource) {
		resource = "arn:" + awsconfig.Partition(region) + ":secretsmanager:" + region + ":*:secret:" + doc.Path
	}
	if !awsconfig.IsARN(doc.Path) || !isFull(resource) {
		resource += "-??????"
	}
	return awsconfig.Request{Action: "secretsmanager:GetSecretValue", Resource: resource}
}

// suffixLen is the length of what AWS puts after the name in an ARN: a hyphen
// and six random characters.
const suffixLen = len("-AbCdEf")

// isFull reports whether an ARN or its last part ends so. A name may end so
// too: AWS then takes a partial ARN for a whole one.
func isFull(arn string) bool {
	i := strings.LastIndex(arn, "-")
	return i >= 0 && len(arn)-i == suffixLen && !strings.ContainsAny(arn[i:], "/_+=.@:!")
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
