//go:build !no_aws

package awsconfig

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"secret-init/sources"
)

const patience = "raise --timeout to try longer"

// HintAWSItself is for an answer that AWS does not give.
const HintAWSItself = "check that AWS_ENDPOINT_URL, where it is set, is an endpoint of AWS"

// Request is what AWS was asked for, in the words of an IAM policy.
type Request struct {
	// Action is one or more IAM actions, "secretsmanager:GetSecretValue".
	Action string
	// Resource is the ARN to allow it on.
	Resource string
}

// Code is AWS's own name of an error; empty when err is no answer of AWS.
func Code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return CleanCode(api.ErrorCode())
	}
	return ""
}

// CleanCode is a code that a server sent, or empty where it is not shaped
// like one: it could be anything.
func CleanCode(code string) string {
	odd := strings.IndexFunc(code, func(c rune) bool {
		return (c < 'a' || 'z' < c) && (c < 'A' || 'Z' < c) && (c < '0' || '9' < c) && c != '.'
	})
	if odd >= 0 || len(code) > 64 || code == "UnknownError" {
		return ""
	}
	return code
}

const hintExpired = "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN anew: they have expired"

// identityCodes are the answers about who asks, whatever was asked for.
// https://docs.aws.amazon.com/secretsmanager/latest/apireference/CommonErrors.html
var identityCodes = map[string]string{
	"ExpiredToken":                        hintExpired,
	"ExpiredTokenException":               hintExpired,
	"RequestExpired":                      sources.HintClock,
	"IncompleteSignature":                 "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	"IncompleteSignatureException":        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	"InvalidClientTokenId":                "check AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN: the key is unknown, or of another partition",
	"InvalidSignatureException":           "check AWS_SECRET_ACCESS_KEY; " + sources.HintClock,
	"SignatureDoesNotMatch":               "check AWS_SECRET_ACCESS_KEY; " + sources.HintClock,
	"MissingAuthenticationToken":          "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	"MissingAuthenticationTokenException": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	"UnrecognizedClientException":         "check AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN: the key is unknown, or of another partition",
	"NotAuthorized":                       "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	"OptInRequired":                       "enable the region for the account",
}

// Divisible reports whether an error of a whole batch may be that of one
// document in it, or of the batch call alone: then each is to be read by
// itself. Credentials that are not accepted, and a service that does not
// answer, are no better for one.
func Divisible(err error, translated *sources.Error) bool {
	return translated.Class != sources.Unavailable && identityCodes[Code(err)] == ""
}

// Translate makes err, which a service's client returned, one of ours. It
// goes by codes and types: a message might quote a value.
func (r Request) Translate(ctx context.Context, err error) *sources.Error {
	code := Code(err)
	if e := r.FromCode(code); e != nil {
		return e
	}
	// Everything that happens once a request is made carries a status; 0 where
	// there was no answer.
	status, made := 0, false
	if s, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](err); ok {
		status, made = s.HTTPStatusCode(), true
	}
	switch {
	case errors.Is(err, errTooLarge):
		return sources.Errorf(sources.Invalid, HintAWSItself, "cannot be read: the answer is larger than %d MiB", maxBody>>20)
	case status >= 500 || status == http.StatusTooManyRequests:
		return sources.Errorf(sources.Unavailable, patience, "cannot be read now: AWS answered %d %s", status, orStatus(code, status))
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return r.denied(orStatus(code, status))
	case status >= 300:
		return sources.Errorf(sources.Invalid, HintAWSItself, "cannot be read: AWS answered %d %s", status, orStatus(code, status))
	case !made && ctx.Err() == nil:
		return sources.Errorf(sources.Invalid, "check AWS_REGION, AWS_ENDPOINT_URL, AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT",
			"cannot be read: the AWS settings give no address to ask")
	}
	return networkError(ctx, err)
}

// FromCode translates the codes that mean the same in every service; nil for others.
func (r Request) FromCode(code string) *sources.Error {
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	switch {
	case code == "":
		return nil
	case identityCodes[code] != "":
		return sources.Errorf(sources.Denied, identityCodes[code], "cannot be read: access denied: AWS does not accept the credentials (%s)", code)
	case code == "AccessDenied" || code == "AccessDeniedException" || code == "UnauthorizedOperation":
		return r.denied(code)
	case throttled:
		return sources.Errorf(sources.Unavailable, patience, "cannot be read now: AWS's rate limit is reached (%s)", code)
	case code == "InternalFailure" || code == "InternalServiceError" || code == "InternalServerError" || code == "ServiceUnavailable":
		return sources.Errorf(sources.Unavailable, patience, "cannot be read now: AWS answered %s", code)
	}
	return nil
}

func (r Request) denied(code string) *sources.Error {
	return sources.Errorf(sources.Denied, "allow "+r.Action+" on "+r.Resource+", and kms:Decrypt on its key where that is your own",
		"cannot be read: access denied (%s)", code)
}

func orStatus(code string, status int) string {
	if code != "" {
		return code
	}
	return http.StatusText(status)
}

// networkError is a failure on the way to AWS or back.
func networkError(ctx context.Context, err error) *sources.Error {
	var address *url.URL
	if e, ok := errors.AsType[*url.Error](err); ok {
		address, _ = url.Parse(e.URL)
	}
	if what := sources.BadCertificate(err); what != "" {
		return sources.Errorf(sources.Invalid, certificateHints[what], "cannot be read: %s", what)
	}
	if ctx.Err() == nil && sources.NoServer(address, err) {
		return sources.Errorf(sources.Invalid, "set AWS_ENDPOINT_URL=https://HOST:PORT, or unset it", "cannot be read: the AWS endpoint is not the URL of a server")
	}
	const hint = "check AWS_REGION and AWS_ENDPOINT_URL; raise --timeout to try longer"
	if _, ok := errors.AsType[net.Error](err); !ok && ctx.Err() == nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return sources.Errorf(sources.Unavailable, hint, "cannot be read: the answer is not one of AWS")
	}
	return sources.Errorf(sources.Unavailable, hint, "%s", sources.Unreachable(ctx, address, err))
}

var certificateHints = map[string]string{
	sources.CertificateName:      "set AWS_ENDPOINT_URL to a name in the certificate",
	sources.CertificateAuthority: "set AWS_CA_BUNDLE to the file with that authority's certificate",
	sources.CertificateTime:      sources.HintClock + "; renew the certificate if it is right",
	sources.CertificateOther:     "check AWS_ENDPOINT_URL and AWS_CA_BUNDLE",
}
