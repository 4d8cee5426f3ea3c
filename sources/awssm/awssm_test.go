//go:build integration

package awssm_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"secret-init/sources"
	"secret-init/sources/awssm"
	"secret-init/sources/sourcetest"
	"secret-init/tools/servers"
)

const (
	region      = "eu-central-1"
	otherRegion = "us-gov-west-1"
)

// harness stores whole documents as SecretString where they are text.
func harness(m *servers.Moto, prefix string, binary bool) sourcetest.Harness {
	put := func(t *testing.T, name string, content []byte) string {
		t.Helper()
		m.PutSecret(t, region, prefix+name, content, !binary && utf8.Valid(content))
		return "aws-sm:" + prefix + name
	}
	return sourcetest.Harness{
		Backend:  awssm.Backend,
		Env:      m.Env(),
		PutWhole: put,
		PutFields: func(t *testing.T, name string, fields map[string]string) string {
			t.Helper()
			content, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			return put(t, name, content)
		},
		Missing: "aws-sm:" + prefix + "absent",
		Malformed: func(t *testing.T) string {
			return put(t, "malformed", []byte(`{"value": "`+sourcetest.Canary)) + "#value"
		},
		// The API takes one byte at least.
		NoEmptyWhole: true,
	}
}

func TestConformance(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "conformance/", false)
	h.Denied = func(t *testing.T) (string, sourcetest.Env) {
		restricted := servers.StartMoto(t)
		restricted.PutSecret(t, region, "denied", []byte(sourcetest.Canary), true)
		env := restricted.Restrict(t, "secretsmanager:ListSecrets")
		return "aws-sm:denied", env
	}
	h.At = func(url string) (string, sourcetest.Env) {
		env := maps.Clone(h.Env)
		env["AWS_ENDPOINT_URL"] = url
		env["AWS_SECRET_ACCESS_KEY"] = sourcetest.Canary
		return "aws-sm:any", env
	}
	sourcetest.Run(t, h)
}

func TestConformanceOfBinarySecrets(t *testing.T) {
	sourcetest.Run(t, harness(servers.StartMoto(t), "binary/", true))
}

func wantValue(t *testing.T, h sourcetest.Harness, ref, want string) {
	t.Helper()
	got, err := h.Fetch(t, h.Env, ref)
	if err != nil {
		t.Errorf("%s: %v (%s)", ref, err, sources.HintOf(err))
	} else if string(got) != want {
		t.Errorf("%s: got %d bytes, want %q", ref, len(got), want)
	}
}

// wantError checks the whole of what a user sees.
func wantError(t *testing.T, err error, class sources.Class, text, hint string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", text)
	}
	if sources.ClassOf(err) != class || err.Error() != text || sources.HintOf(err) != hint {
		t.Errorf("got %v:\n%s\n%s\nwant %v:\n%s\n%s", sources.ClassOf(err), err, sources.HintOf(err), class, text, hint)
	}
}

func TestReferences(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "", false)
	arn := m.PutSecret(t, region, "prod/db", []byte(`{"user": "app", "/odd": "slash", "pin": 42e01}`), true)
	m.PutSecret(t, region, "prod/plain", []byte("first"), true)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	m.PutSecret(t, region, "prod/binary", all, false)
	partial := arn[:strings.LastIndex(arn, "-")]

	for ref, want := range map[string]string{
		"aws-sm:prod/db#user":                     "app",
		"aws-sm:prod/db?region=eu-central-1#user": "app",
		"aws-sm:" + arn + "#user":                 "app",
		"aws-sm:" + partial + "#user":             "app",
		"aws-sm:" + arn + ":user::":               "app",
		"aws-sm:" + arn + ":user:AWSCURRENT:":     "app",
		"aws-sm:" + partial + ":/odd::":           "slash",
		"aws-sm:" + arn + ":::":                   `{"user": "app", "/odd": "slash", "pin": 42e01}`,
		"aws-sm:prod/binary":                      string(all),
	} {
		wantValue(t, h, ref, want)
	}

	first := m.Call(t, "secretsmanager", region, "secretsmanager.DescribeSecret", map[string]any{"SecretId": "prod/plain"})
	var firstID string
	for id := range first["VersionIdsToStages"].(map[string]any) {
		firstID = id
	}
	m.Call(t, "secretsmanager", region, "secretsmanager.PutSecretValue", map[string]any{"SecretId": "prod/plain", "SecretString": "second"})
	wantValue(t, h, "aws-sm:prod/plain", "second")
	wantValue(t, h, "aws-sm:prod/plain?stage=AWSCURRENT", "second")
	wantValue(t, h, "aws-sm:prod/plain?stage=AWSPREVIOUS", "first")
	wantValue(t, h, "aws-sm:prod/plain?version-id="+firstID, "first")
	wantValue(t, h, "aws-sm:prod/plain?version-id="+firstID+"&stage=AWSPREVIOUS", "first")
	plain := m.Call(t, "secretsmanager", region, "secretsmanager.DescribeSecret", map[string]any{"SecretId": "prod/plain"})["ARN"].(string)
	wantValue(t, h, "aws-sm:"+plain+"::AWSPREVIOUS:", "first")
	wantValue(t, h, "aws-sm:"+plain+":::"+firstID, "first")
}

func TestTwoRegionsAtOnce(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "", false)
	here := m.PutSecret(t, region, "db", []byte("here"), true)
	there := m.PutSecret(t, otherRegion, "db", []byte("there"), true)
	if !strings.HasPrefix(there, "arn:aws-us-gov:") {
		t.Fatalf("moto's ARN is %s", there)
	}
	got := fetchAll(t, h, "aws-sm:"+here, "aws-sm:"+there, "aws-sm:db?region="+otherRegion, "aws-sm:db")
	for i, want := range []string{"here", "there", "there", "here"} {
		if got[i] != want {
			t.Errorf("reference %d: got %q, want %q", i, got[i], want)
		}
	}
	h.Env["AWS_REGION"] = ""
	wantValue(t, h, "aws-sm:"+there, "there")
	h.Env["AWS_DEFAULT_REGION"] = otherRegion
	wantValue(t, h, "aws-sm:db", "there")
}

// fetchAll reads several references with one Fetcher.
func fetchAll(t *testing.T, h sourcetest.Harness, refs ...string) []string {
	t.Helper()
	values, errs := fetchEach(t, h, nil, refs...)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return values
}

func fetchEach(t *testing.T, h sourcetest.Harness, warn func(string), refs ...string) (values []string, errs []error) {
	t.Helper()
	return fetchWithin(t, 10*time.Second, h.Env, warn, refs...)
}

func fetchWithin(t *testing.T, timeout time.Duration, env map[string]string, warn func(string), refs ...string) (values []string, errs []error) {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	if warn == nil {
		warn = func(s string) { t.Errorf("warning: %s", s) }
	}
	registry := sources.NewRegistry(awssm.Backend)
	fetcher := &sources.Fetcher{Registry: registry, Settings: sources.Settings{Getenv: os.Getenv, Warn: warn}, Setenv: os.Setenv}
	defer func() { _ = fetcher.Close(context.Background()) }()
	parsed := make([]sources.Ref, len(refs))
	for i, ref := range refs {
		var err error
		if parsed[i], err = registry.Parse(ref); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	values, errs = make([]string, len(refs)), make([]error, len(refs))
	for i, fetched := range fetcher.Fetch(ctx, parsed) {
		if errs[i] = fetched.Err; errs[i] == nil {
			secret, err := fetched.Document.Select(parsed[i])
			values[i], errs[i] = string(secret.Reveal()), err
		}
	}
	return values, errs
}

func TestOneReadForSeveralKeys(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "", false)
	arn := m.PutSecret(t, region, "db", []byte(`{"a": "1", "b": "2"}`), true)
	got := fetchAll(t, h, "aws-sm:"+arn+"#a", "aws-sm:"+arn+"#b", "aws-sm:"+arn+":a::", "aws-sm:"+arn+":b:AWSCURRENT:")
	if strings.Join(got, "") != "1212" {
		t.Errorf("got %q", got)
	}
	if n := m.Requests(""); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestUnavailableIsRetriedByTheFetcherAlone(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "", false)
	m.PutSecret(t, region, "db", []byte("value"), true)
	for _, code := range []string{"ThrottlingException", "InternalServiceError"} {
		before, left := m.Requests(""), 2
		m.Answer("GetSecretValue", func(w http.ResponseWriter, _ *http.Request) {
			if left--; left == 0 {
				m.Answer("GetSecretValue", nil)
			}
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"__type": "` + code + `"}`))
		})
		wantValue(t, h, "aws-sm:db", "value")
		if n := m.Requests("") - before; n != 3 {
			t.Errorf("%s: %d requests, want 3", code, n)
		}
	}
}

func TestRealSignatures(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "", false)
	m.PutSecret(t, region, "db", []byte("value"), true)
	h.Env = m.Restrict(t, "secretsmanager:GetSecretValue")
	wantValue(t, h, "aws-sm:db", "value")
	h.Env["AWS_SECRET_ACCESS_KEY"] = sourcetest.Canary
	if _, err := h.Fetch(t, h.Env, "aws-sm:db"); sources.ClassOf(err) != sources.Denied || strings.Contains(err.Error(), sourcetest.Canary) {
		t.Errorf("wrong secret key: %v", err)
	}
}
