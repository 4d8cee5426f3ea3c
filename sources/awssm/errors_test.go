//go:build integration

package awssm_test

import (
	"encoding/json"
	"flag"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"secret-init/sources"
	"secret-init/sources/sourcetest"
	"secret-init/tools/servers"
)

var update = flag.Bool("update", false, "write testdata/errors.txt anew")

// TestErrors compares the two lines that a user sees with testdata/errors.txt.
// Where a code is given, the proxy answers with it in moto's place, and with
// a message that quotes the canary.
func TestErrors(t *testing.T) {
	m := servers.StartMoto(t)
	m.PutSecret(t, region, "gone", []byte(sourcetest.Canary), true)
	m.Call(t, "secretsmanager", region, "secretsmanager.DeleteSecret", map[string]any{"SecretId": "gone"})
	m.PutSecret(t, region, "text", []byte(sourcetest.Canary), true)
	m.PutSecret(t, region, "json", []byte(`{"password": "`+sourcetest.Canary+`", "username": null}`), true)
	large := func(size int) func() {
		return func() {
			m.Answer("GetSecretValue", func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(w).Encode(map[string]any{"SecretString": strings.Repeat("x", size)})
			})
		}
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	_, port, err := net.SplitHostPort(closed.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	code := func(status int, code string) func() {
		return func() { m.AnswerError("GetSecretValue", status, code, "quotes "+sourcetest.Canary) }
	}
	set := func(pairs ...string) map[string]string {
		env := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			env[pairs[i]] = pairs[i+1]
		}
		return env
	}
	const inChina = "aws-sm:arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:db-AbCdEf"
	var seen []sourcetest.Seen
	for _, c := range []struct {
		name   string
		class  sources.Class
		ref    string
		env    map[string]string
		before func()
	}{
		{"no such secret", sources.NotFound, "aws-sm:absent", nil, nil},
		{"no such stage", sources.NotFound, "aws-sm:text?stage=AWSPENDING", nil, code(400, "ResourceNotFoundException")},
		{"no such version", sources.NotFound, "aws-sm:text?version-id=00000000-0000-0000-0000-000000000000", nil, nil},
		{"marked for deletion", sources.NotFound, "aws-sm:gone", nil, nil},
		{"no such key", sources.NotFound, "aws-sm:json#pasword", nil, nil},
		{"null", sources.Invalid, "aws-sm:json#username", nil, nil},
		{"not JSON", sources.Invalid, "aws-sm:text#password", nil, nil},
		{"no region", sources.Invalid, "aws-sm:text", set("AWS_REGION", ""), nil},
		{"no such profile", sources.Invalid, "aws-sm:text", set("AWS_PROFILE", "nobody"), nil},
		{"no credentials", sources.Denied, "aws-sm:text", set("AWS_ACCESS_KEY_ID", ""), nil},
		{"no token file", sources.Denied, "aws-sm:text", set("AWS_ACCESS_KEY_ID", "", "AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/app", "AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent"), nil},
		{"access denied by policy", sources.Denied, "aws-sm:prod/db", nil, code(400, "AccessDeniedException")},
		{"access denied by policy, ARN in China", sources.Denied, inChina, nil, code(400, "AccessDeniedException")},
		{"access denied by policy, name in GovCloud", sources.Denied, "aws-sm:db?region=us-gov-west-1", nil, code(400, "AccessDeniedException")},
		{"the KMS key", sources.Denied, "aws-sm:db", nil, code(400, "DecryptionFailure")},
		{"expired credentials", sources.Denied, "aws-sm:db", nil, code(400, "ExpiredTokenException")},
		{"unknown access key", sources.Denied, "aws-sm:db", nil, code(400, "UnrecognizedClientException")},
		{"wrong secret key", sources.Denied, "aws-sm:db", nil, code(400, "InvalidSignatureException")},
		{"wrong parameter", sources.Invalid, "aws-sm:db", nil, code(400, "InvalidParameterException")},
		{"an unknown code", sources.Invalid, "aws-sm:db", nil, code(400, "SomethingNew")},
		{"an answer that is no code", sources.Invalid, "aws-sm:db", nil, code(400, "not a code "+sourcetest.Canary)},
		{"FIPS and an endpoint of one's own", sources.Invalid, "aws-sm:db", set("AWS_USE_FIPS_ENDPOINT", "true"), nil},
		{"a value over AWS's limit", sources.Invalid, "aws-sm:db", nil, large(64<<10 + 1)},
		{"an answer over our limit", sources.Invalid, "aws-sm:db", nil, large(9 << 20)},
		{"no value", sources.NotFound, "aws-sm:db", nil, func() {
			m.Answer("GetSecretValue", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
		}},
		{"a stage of another version", sources.NotFound, "aws-sm:db?stage=AWSPENDING&version-id=00000000-0000-0000-0000-000000000000", nil, code(400, "InvalidRequestException")},
		{"an answer that is no JSON", sources.Unavailable, "aws-sm:db", nil, func() {
			m.Answer("GetSecretValue", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<" + sourcetest.Canary)) })
		}},
		{"throttled", sources.Unavailable, "aws-sm:db", nil, code(400, "ThrottlingException")},
		{"a fault of AWS", sources.Unavailable, "aws-sm:db", nil, code(500, "InternalServiceError")},
		{"a gateway that fails", sources.Unavailable, "aws-sm:db", nil, code(502, "")},
		{"nothing listens", sources.Unavailable, "aws-sm:db", set("AWS_ENDPOINT_URL", "http://"+closed.Addr().String()), nil},
		{"an endpoint that no server has", sources.Invalid, "aws-sm:db", set("AWS_ENDPOINT_URL", "http://[::]:"+port), nil},
		{"an endpoint without a scheme", sources.Invalid, "aws-sm:db", set("AWS_ENDPOINT_URL", "localhost:4566"), nil},
		{"no answer", sources.Unavailable, "aws-sm:db", set("AWS_ENDPOINT_URL", "http://"+silent.Addr().String()), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.Answer("GetSecretValue", nil)
			if c.before != nil {
				c.before()
			}
			env := m.Env()
			maps.Copy(env, c.env)
			timeout := 5 * time.Second
			if c.class == sources.Unavailable {
				timeout = 1500 * time.Millisecond
			}
			_, errs := fetchWithin(t, timeout, env, nil, c.ref)
			if class := sources.ClassOf(errs[0]); class != c.class {
				t.Errorf("class %v, want %v: %v", class, c.class, errs[0])
			}
			seen = append(seen, sourcetest.Seen{Name: c.name, Err: errs[0]})
		})
	}
	sourcetest.Golden(t, "testdata/errors.txt", *update, seen)
}
