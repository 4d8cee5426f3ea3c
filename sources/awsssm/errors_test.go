//go:build integration

package awsssm_test

import (
	"flag"
	"maps"
	"net/http"
	"testing"
	"time"

	"secret-init/sources"
	"secret-init/sources/sourcetest"
	"secret-init/tools/servers"
)

var update = flag.Bool("update", false, "write testdata/errors.txt anew")

// TestErrors compares the two lines that a user sees with testdata/errors.txt.
// Where a code is given, the proxy answers with it in moto's place.
func TestErrors(t *testing.T) {
	m := servers.StartMoto(t)
	m.PutParameter(t, region, "/app/db", "SecureString", sourcetest.Canary)
	m.PutParameter(t, region, "/app/hosts", "StringList", "a,"+sourcetest.Canary)
	const inChina = "aws-ssm:arn:aws-cn:ssm:cn-north-1:123456789012:parameter/db:3"
	var seen []sourcetest.Seen
	for _, c := range []struct {
		name, ref, code string
		class           sources.Class
		env             map[string]string
	}{
		{"no such parameter", "aws-ssm:/app/absent", "", sources.NotFound, nil},
		{"no such version", "aws-ssm:/app/db:9", "", sources.NotFound, nil},
		{"no such label", "aws-ssm:/app/db:live", "", sources.NotFound, nil},
		{"nothing below the path", "aws-ssm:/nothing/#x", "", sources.NotFound, nil},
		{"no such name below the path", "aws-ssm:/app/#dv", "", sources.NotFound, nil},
		{"no such item of a list", "aws-ssm:/app/hosts#/2", "", sources.NotFound, nil},
		{"a whole path as one value", "aws-ssm:/app/", "", sources.Invalid, nil},
		{"not JSON", "aws-ssm:/app/db#password", "", sources.Invalid, nil},
		{"no region", "aws-ssm:/app/db", "", sources.Invalid, map[string]string{"AWS_REGION": ""}},
		{"no credentials", "aws-ssm:/app/db", "", sources.Denied, map[string]string{"AWS_ACCESS_KEY_ID": ""}},
		{"access denied by policy", "aws-ssm:/app/db", "AccessDeniedException", sources.Denied, nil},
		{"access denied by policy, ARN in China", inChina, "AccessDeniedException", sources.Denied, nil},
		{"access denied by policy, path in GovCloud", "aws-ssm:/app/prod/?region=us-gov-west-1#x", "AccessDeniedException", sources.Denied, nil},
		{"the KMS key", "aws-ssm:/app/db", "InvalidKeyId", sources.Denied, nil},
		{"expired credentials", "aws-ssm:/app/db", "ExpiredTokenException", sources.Denied, nil},
		{"wrong name", "aws-ssm:/app/db", "ValidationException", sources.Invalid, nil},
		{"throttled", "aws-ssm:/app/db", "ThrottlingException", sources.Unavailable, nil},
		{"a fault of AWS", "aws-ssm:/app/db", "InternalServerError", sources.Unavailable, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, operation := range []string{"GetParameters", "GetParametersByPath"} {
				m.Answer(operation, nil)
				if c.code != "" {
					m.AnswerError(operation, http.StatusBadRequest, c.code, "quotes "+sourcetest.Canary)
				}
			}
			env := m.Env()
			maps.Copy(env, c.env)
			timeout := 5 * time.Second
			if c.class == sources.Unavailable {
				timeout = 1500 * time.Millisecond
			}
			_, err := fetchWithin(t, timeout, env, c.ref)
			if class := sources.ClassOf(err[0]); class != c.class {
				t.Errorf("class %v, want %v: %v", class, c.class, err[0])
			}
			seen = append(seen, sourcetest.Seen{Name: c.name, Err: err[0]})
		})
	}
	sourcetest.Golden(t, "testdata/errors.txt", *update, seen)
}
