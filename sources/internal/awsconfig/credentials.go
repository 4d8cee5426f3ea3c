//go:build !no_aws

package awsconfig

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"

	"secret-init/sources"
)

const credentialHint = "give the task or instance a role, or set AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

// providers are the places that the SDK's chain may have settled on.
var providers = []struct {
	kind       aws.CredentialsProvider
	name, hint string
}{
	{&stscreds.WebIdentityRoleProvider{}, "a web identity", "check AWS_ROLE_ARN, and that AWS_WEB_IDENTITY_TOKEN_FILE can be read"},
	{&stscreds.AssumeRoleProvider{}, "the role of a profile", "check role_arn and source_profile or credential_source in the AWS config file"},
	{&endpointcreds.Provider{}, "the container's agent", "give the task or pod a role; check AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or AWS_CONTAINER_CREDENTIALS_FULL_URI"},
	{&ssocreds.Provider{}, "SSO", "log in with: aws sso login"},
	{processcreds.NewProvider(""), "credential_process", "run the profile's credential_process by hand, and check what it prints"},
}

// credentialError says why the SDK's chain of providers gave no credentials.
// The instance's metadata service is the last of them: where nothing else is
// configured and it has nothing to give, there are none, and asking again
// would only make the error come late.
func credentialError(ctx context.Context, provider aws.CredentialsProvider, err error) *sources.Error {
	code := Code(err)
	role := Request{Action: "sts:AssumeRole or sts:AssumeRoleWithWebIdentity", Resource: "the role"}
	switch e := role.FromCode(code); {
	case ctx.Err() != nil:
		return networkError(ctx, err)
	case e != nil && e.Class == sources.Unavailable:
		return e
	case e != nil || code == "InvalidIdentityToken" || code == "IDPRejectedClaim":
		return sources.Errorf(sources.Denied, "allow "+role.Action+" on the role, also in its trust policy; a token must be valid and of a provider that the account knows",
			"cannot be read: access denied: the role cannot be assumed (%s)", code)
	case aws.IsCredentialsProvider(provider, &ec2rolecreds.Provider{}):
		return sources.Errorf(sources.Denied, credentialHint, "cannot be read: there are no credentials for AWS")
	}
	name, hint := "their source", credentialHint
	for _, p := range providers {
		if aws.IsCredentialsProvider(provider, p.kind) {
			name, hint = p.name, p.hint
		}
	}
	if _, network := errors.AsType[net.Error](err); network {
		e := networkError(ctx, err)
		e.What = "cannot be read: no AWS credentials from " + name + ": " + strings.TrimPrefix(e.What, "cannot be read: ")
		if aws.IsCredentialsProvider(provider, &endpointcreds.Provider{}) {
			e.Hint = hint
		}
		return e
	}
	return sources.Errorf(sources.Denied, hint, "cannot be read: no AWS credentials from %s", name)
}

// configError is a fault in the SDK's own settings. Its text may quote them.
func configError(ctx context.Context, err error) *sources.Error {
	if ctx.Err() != nil {
		return networkError(ctx, err)
	}
	if e, ok := errors.AsType[config.SharedConfigProfileNotExistError](err); ok {
		return sources.Errorf(sources.Invalid, "check AWS_PROFILE and AWS_CONFIG_FILE", "cannot be read: there is no AWS profile %q", e.Profile)
	}
	return sources.Errorf(sources.Invalid, "check the AWS_* variables and the AWS config file", "cannot be read: the AWS settings are wrong")
}
