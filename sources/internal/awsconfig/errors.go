//go:build !no_aws

package awsconfig

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/smithy-go"

	"secret-init/sources"
)

// Request is what AWS was asked for, in the words of an IAM policy.
type Request struct {
	// Action is one or more IAM actions, "secretsmanager:GetSecretValue".
	Action string
	// Resource is the ARN to allow it on.
	Resource string
}

// Code is AWS's own name of an error; empty when err is no answer of AWS.
// What is not shaped like a name is not passed on: it could be anything.
func Code(err error) string {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return ""
	}
	code := api.ErrorCode()
	odd := strings.IndexFunc(code, func(c rune) bool {
		return (c < 'a' || 'z' < c) && (c < 'A' || 'Z' < c) && (c < '0' || '9' < c) && c != '.'
	})
	if odd >= 0 || len(code) > 64 || code == "UnknownError" {
		return ""
	}
	return code
}

// identityCodes are the answers about who asks, whatever was asked for.
// https://docs.aws.amazon.com/secretsmanager/latest/apireference/CommonErrors.html
var identityCodes = map[string]string{
	"ExpiredToken":                        "the credentials have expired: get new ones",
	"ExpiredTokenException":               "the credentials have expired: get new ones",
	"RequestExpired":                      "is this machine's clock right?",
	"IncompleteSignature":                 "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	"IncompleteSignatureException":        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	"InvalidClientTokenId":                "check AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN: the key is unknown, or of another partition",
	"InvalidSignatureException":           "check AWS_SECRET_ACCESS_KEY, and whether this machine's clock is right",
	"SignatureDoesNotMatch":               "check AWS_SECRET_ACCESS_KEY, and whether this machine's clock is right",
	"MissingAuthenticationToken":          "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	"MissingAuthenticationTokenException": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	"UnrecognizedClientException":         "check AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN: the key is unknown, or of another partition",
	"NotAuthorized":                       "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	"OptInRequired":                       "enable the region for the account",
}

// AboutIdentity reports whether a code refuses the caller as such, so that
// asking again for something else is of no use.
func AboutIdentity(code string) bool { return identityCodes[code] != "" }

// Translate makes err, which a service's client returned, one of ours. It
// goes by codes and types: a message might quote a value.
func (r Request) Translate(ctx context.Context, err error) *sources.Error {
	code := Code(err)
	if e := r.FromCode(code); e != nil {
		return e
	}
	status := 0
	if s, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](err); ok {
		status = s.HTTPStatusCode()
	}
	switch {
	case errors.Is(err, errTooLarge):
		return sources.Errorf(sources.Invalid, "", "was answered with more than %d MiB", maxBody>>20)
	case status >= 500 || status == http.StatusTooManyRequests:
		return sources.Errorf(sources.Unavailable, "", "was not answered: AWS says %d %s", status, orStatus(code, status))
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return r.denied(orStatus(code, status))
	case status >= 300:
		return sources.Errorf(sources.Invalid, "is AWS_ENDPOINT_URL, where it is set, the right one?", "was refused: AWS says %d %s", status, orStatus(code, status))
	}
	return networkError(ctx, err)
}

// FromCode translates the codes that mean the same in every service; nil for others.
func (r Request) FromCode(code string) *sources.Error {
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	switch {
	case code == "":
		return nil
	case AboutIdentity(code):
		return sources.Errorf(sources.Denied, identityCodes[code], "was refused: AWS does not accept the credentials (%s)", code)
	case code == "AccessDenied" || code == "AccessDeniedException" || code == "UnauthorizedOperation":
		return r.denied(code)
	case throttled:
		return sources.Errorf(sources.Unavailable, "", "was not answered: too many requests (%s)", code)
	case code == "InternalFailure" || code == "InternalServiceError" || code == "InternalServerError" || code == "ServiceUnavailable":
		return sources.Errorf(sources.Unavailable, "", "was not answered: AWS has a fault of its own (%s)", code)
	}
	return nil
}

func (r Request) denied(code string) *sources.Error {
	return sources.Errorf(sources.Denied, "allow "+r.Action+" on "+r.Resource+", and kms:Decrypt on its key where that is your own",
		"may not be read: AWS denies it (%s)", code)
}

func orStatus(code string, status int) string {
	if code != "" {
		return code
	}
	return http.StatusText(status)
}

// networkError is a failure on the way to AWS or back.
func networkError(ctx context.Context, err error) *sources.Error {
	const hint = "is the network up, and AWS_REGION or AWS_ENDPOINT_URL right?"
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return sources.Errorf(sources.Unavailable, hint, "could not be reached: the name %s does not resolve", dns.Name)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return sources.Errorf(sources.Invalid, "AWS_CA_BUNDLE names the file with the CA to trust", "was not read: the server's certificate is not trusted")
	}
	reason := "the answer is not one of AWS"
	errno, isErrno := errors.AsType[syscall.Errno](err)
	timeout, isTimeout := errors.AsType[net.Error](err)
	switch {
	case ctx.Err() != nil || isTimeout && timeout.Timeout():
		reason = "no answer in time"
	case isErrno:
		reason = errno.Error()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		reason = "the connection was closed in the middle"
	case isTimeout:
		reason = "the connection failed"
	}
	return sources.Errorf(sources.Unavailable, hint, "could not be reached: %s", reason)
}

const credentialHint = "give the task or instance a role, or set AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

// credentialError says why the SDK's chain of providers gave no credentials.
// The instance's metadata service is the last of them: where nothing else is
// configured and it has nothing to give, there are none, and asking again
// would only make the error come late.
func credentialError(ctx context.Context, provider aws.CredentialsProvider, err error) *sources.Error {
	code := Code(err)
	role := Request{Action: "sts:AssumeRole or sts:AssumeRoleWithWebIdentity", Resource: "the role, and in its trust policy"}
	if e := role.FromCode(code); e != nil && e.Class == sources.Unavailable {
		return e
	}
	if _, expired := identityCodes[code]; expired || code == "AccessDenied" || code == "AccessDeniedException" || code == "InvalidIdentityToken" {
		return sources.Errorf(sources.Denied, "allow "+role.Action+" on "+role.Resource, "was not read: the role could not be assumed (%s)", code)
	}
	lastOfChain := aws.IsCredentialsProvider(provider, &ec2rolecreds.Provider{})
	switch {
	case ctx.Err() != nil:
		return networkError(ctx, err)
	case lastOfChain:
		return sources.Errorf(sources.Denied, credentialHint, "was not read: there are no AWS credentials")
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission):
		return sources.Errorf(sources.Denied, credentialHint, "was not read: the file with the credentials or the token cannot be read")
	}
	if e := role.Translate(ctx, err); e.Class == sources.Unavailable && isNetwork(err) {
		e.What = "was not read: the AWS credentials " + e.What
		return e
	}
	return sources.Errorf(sources.Denied, credentialHint, "was not read: the AWS credentials could not be obtained")
}

func isNetwork(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// configError is a fault in the SDK's own settings. Its text may quote them.
func configError(ctx context.Context, err error) *sources.Error {
	if ctx.Err() != nil {
		return networkError(ctx, err)
	}
	if e, ok := errors.AsType[config.SharedConfigProfileNotExistError](err); ok {
		return sources.Errorf(sources.Invalid, "check AWS_PROFILE and AWS_CONFIG_FILE", "was not read: there is no AWS profile %q", e.Profile)
	}
	return sources.Errorf(sources.Invalid, "check the AWS_ variables and the file ~/.aws/config", "was not read: the AWS settings are wrong")
}
