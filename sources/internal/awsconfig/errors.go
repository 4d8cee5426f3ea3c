//go:build !no_aws

package awsconfig

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"secret-init/sources"
)

const patience = "--timeout sets how long to try"

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
		return sources.Errorf(sources.Invalid, "", "was answered with more than %d MiB", maxBody>>20)
	case status >= 500 || status == http.StatusTooManyRequests:
		return sources.Errorf(sources.Unavailable, patience, "was answered with %d %s", status, orStatus(code, status))
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return r.denied(orStatus(code, status))
	case status >= 300:
		return sources.Errorf(sources.Invalid, "is AWS_ENDPOINT_URL, where it is set, the right one?", "was refused: AWS says %d %s", status, orStatus(code, status))
	case !made && ctx.Err() == nil:
		return sources.Errorf(sources.Invalid, "check AWS_REGION, AWS_ENDPOINT_URL, AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT",
			"was not asked for: the AWS settings give no address to ask")
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
		return sources.Errorf(sources.Denied, identityCodes[code], "was refused: AWS does not accept the credentials (%s)", code)
	case code == "AccessDenied" || code == "AccessDeniedException" || code == "UnauthorizedOperation":
		return r.denied(code)
	case throttled:
		return sources.Errorf(sources.Unavailable, patience, "was throttled (%s)", code)
	case code == "InternalFailure" || code == "InternalServiceError" || code == "InternalServerError" || code == "ServiceUnavailable":
		return sources.Errorf(sources.Unavailable, patience, "met a fault of AWS (%s)", code)
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
