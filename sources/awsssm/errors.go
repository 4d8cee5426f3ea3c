//go:build !no_aws

package awsssm

import (
	"context"

	"secret-init/sources"
	"secret-init/sources/internal/awsconfig"
)

// translate goes by the codes of
// https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
func translate(ctx context.Context, doc sources.Ref, region string, err error) *sources.Error {
	switch code := awsconfig.Code(err); code {
	case "ParameterNotFound", "ParameterVersionNotFound", "ParameterVersionLabelNotFound":
		return notFound(doc, region)
	case "InvalidKeyId":
		return sources.Errorf(sources.Denied, "allow kms:Decrypt on its KMS key, and check that the key is enabled", "cannot be read: access denied: AWS cannot decrypt it (%s)", code)
	case "ValidationException":
		return sources.Errorf(sources.Invalid, "check the name, ?version= and ?label=", "cannot be read: AWS finds the request wrong (%s)", code)
	}
	return request(doc, region).Translate(ctx, err)
}

func notFound(doc sources.Ref, region string) *sources.Error {
	what := "does not exist in " + region
	if version := doc.Params[paramVersion]; version != "" {
		what += ", or has no version " + version
	}
	if label := doc.Params[paramLabel]; label != "" {
		what += ", or has no label " + label
	}
	return sources.Errorf(sources.NotFound, "look with: aws ssm get-parameters --region "+region+" --names "+doc.Path, "%s", what)
}

// request is what a policy has to allow for doc. Whoever may read a path may
// read all below it.
func request(doc sources.Ref, region string) awsconfig.Request {
	if awsconfig.IsARN(doc.Path) {
		return awsconfig.Request{Action: "ssm:GetParameters", Resource: doc.Path}
	}
	resource := "arn:" + awsconfig.Partition(region) + ":ssm:" + region + ":*:parameter/" + bareName(doc.Path)
	if isPath(doc) {
		return awsconfig.Request{Action: "ssm:GetParametersByPath", Resource: resource[:len(resource)-1] + " and " + resource + "*"}
	}
	return awsconfig.Request{Action: "ssm:GetParameters", Resource: resource}
}
