//go:build integration

package awsssm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"secret-init/sources"
	"secret-init/sources/awsssm"
	"secret-init/sources/sourcetest"
	"secret-init/tools/servers"
)

const (
	region      = "eu-central-1"
	otherRegion = "cn-north-1"
)

func harness(m *servers.Moto, prefix string) sourcetest.Harness {
	put := func(t *testing.T, name string, content []byte) string {
		t.Helper()
		m.PutParameter(t, region, prefix+name, "SecureString", string(content))
		return "aws-ssm:" + prefix + name
	}
	return sourcetest.Harness{
		Backend:  awsssm.Backend,
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
		Missing: "aws-ssm:" + prefix + "absent",
		Malformed: func(t *testing.T) string {
			return put(t, "malformed", []byte(`{"value": "`+sourcetest.Canary)) + "#value"
		},
		// The limits of Parameter Store, without its advanced tier.
		NoEmptyWhole: true,
		MaxWhole:     4096,
	}
}

func TestConformance(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "/conformance/")
	h.Denied = func(t *testing.T) (string, sourcetest.Env) {
		restricted := servers.StartMoto(t)
		restricted.PutParameter(t, region, "denied", "String", sourcetest.Canary)
		return "aws-ssm:denied", restricted.Restrict(t, "ssm:DescribeParameters")
	}
	h.At = func(url string) (string, sourcetest.Env) {
		env := maps.Clone(h.Env)
		env["AWS_ENDPOINT_URL"] = url
		env["AWS_SECRET_ACCESS_KEY"] = sourcetest.Canary
		return "aws-ssm:/any", env
	}
	sourcetest.Run(t, h)
}

// fetchEach reads several references with one Fetcher.
func fetchEach(t *testing.T, h sourcetest.Harness, refs ...string) (documents []*sources.Document, errs []error) {
	t.Helper()
	return fetchWithin(t, 10*time.Second, h.Env, refs...)
}

// fetchWithin also selects what each reference points to, for its error.
func fetchWithin(t *testing.T, timeout time.Duration, env map[string]string, refs ...string) (documents []*sources.Document, errs []error) {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	registry := sources.NewRegistry(awsssm.Backend)
	fetcher := &sources.Fetcher{
		Registry: registry,
		Settings: sources.Settings{Getenv: os.Getenv, Warn: func(s string) { t.Errorf("warning: %s", s) }},
		Setenv:   os.Setenv,
	}
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
	for i, fetched := range fetcher.Fetch(ctx, parsed) {
		err := fetched.Err
		if err == nil {
			_, err = fetched.Document.Select(parsed[i])
		}
		documents, errs = append(documents, fetched.Document), append(errs, err)
	}
	return documents, errs
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
	h := harness(m, "")
	m.PutParameter(t, region, "/app/db", "SecureString", "first")
	m.PutParameter(t, region, "/app/db", "SecureString", "second")
	m.PutParameter(t, region, "/app/db", "SecureString", "third")
	m.Call(t, "ssm", region, "AmazonSSM.LabelParameterVersion", map[string]any{"Name": "/app/db", "ParameterVersion": 2, "Labels": []string{"live"}})
	m.PutParameter(t, region, "flat", "String", "plain")
	m.PutParameter(t, region, "/app/json", "SecureString", `{"user": "app", "pin": 1.10}`)
	m.PutParameter(t, region, "/app/hosts", "StringList", "a.example,b.example,")
	const arn = "arn:aws:ssm:" + region + ":123456789012:parameter"
	for ref, want := range map[string]string{
		"aws-ssm:/app/db":              "third",
		"aws-ssm:/app/db?version=1":    "first",
		"aws-ssm:/app/db:1":            "first",
		"aws-ssm:/app/db?label=live":   "second",
		"aws-ssm:/app/db:live":         "second",
		"aws-ssm:flat":                 "plain",
		"aws-ssm:/app/json#pin":        "1.10",
		"aws-ssm:/app/hosts":           "a.example,b.example,",
		"aws-ssm:/app/hosts#/1":        "b.example",
		"aws-ssm:/app/hosts#/2":        "",
		"aws-ssm:" + arn + "/app/db":   "third",
		"aws-ssm:" + arn + "/app/db:2": "second",
		"aws-ssm:" + arn + "/flat":     "plain",
	} {
		wantValue(t, h, ref, want)
	}

	// moto knows no ARN in GetParameters. AWS does, and names the parameter by
	// its ARN where another account shares it: the proxy answers so.
	const shared = "arn:aws:ssm:" + region + ":210987654321:parameter/their/key"
	m.Answer("GetParameters", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"Parameters": [
			{"Name": "/app/db", "ARN": "`+arn+`/app/db", "Type": "SecureString", "Value": "named", "Version": 3},
			{"Name": "`+shared+`", "ARN": "`+shared+`", "Type": "SecureString", "Value": "shared", "Version": 1}]}`)
	})
	before := m.Requests("")
	documents, errs := fetchEach(t, h, "aws-ssm:"+arn+"/app/db", "aws-ssm:"+shared)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if string(documents[0].Bytes) != "named" || string(documents[1].Bytes) != "shared" {
		t.Error("the two ARNs got each other's value, or none")
	}
	if n := m.Requests("") - before; n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestTensAndTheirErrors(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "")
	var refs []string
	for i := range 21 {
		m.PutParameter(t, region, fmt.Sprintf("/many/%d", i), "SecureString", fmt.Sprint(i))
		refs = append(refs, fmt.Sprintf("aws-ssm:/many/%d", i))
	}
	refs = append(refs, "aws-ssm:/many/absent", "aws-ssm:/many/0:9", "aws-ssm:/many/0:nothing", "aws-ssm:/many/1:1")
	documents, errs := fetchEach(t, h, refs...)
	for i := range 21 {
		if errs[i] != nil || string(documents[i].Bytes) != fmt.Sprint(i) || documents[i].Version != "1" {
			t.Errorf("%s: error %v", refs[i], errs[i])
		}
	}
	hint := "look with: aws ssm get-parameters --region eu-central-1 --names "
	wantError(t, errs[21], sources.NotFound, "aws-ssm /many/absent does not exist in eu-central-1", hint+"/many/absent")
	wantError(t, errs[22], sources.NotFound, "aws-ssm /many/0 does not exist in eu-central-1, or has no version 9", hint+"/many/0")
	wantError(t, errs[23], sources.NotFound, "aws-ssm /many/0 does not exist in eu-central-1, or has no label nothing", hint+"/many/0")
	if errs[24] != nil || string(documents[24].Bytes) != "1" {
		t.Error(errs[24])
	}
	// The fourth is for the second selector of one parameter: an answer would
	// not tell it from the first.
	if n := m.Requests("GetParameters"); n != 4 || n != m.Requests("") {
		t.Errorf("%d requests for 25 parameters, want 4", m.Requests(""))
	}
}

// One denied parameter denies the whole call on AWS; moto looks at no
// resource, so the proxy answers in its place.
func TestOneDeniedParameterDoesNotDenyTheRest(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "")
	m.Answer("GetParameters", func(w http.ResponseWriter, r *http.Request) {
		var request struct{ Names []string }
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if strings.Contains(strings.Join(request.Names, " "), "closed") {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"__type": "AccessDeniedException", "Message": "`+sourcetest.Canary+`"}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"Parameters": [{"Name": %q, "Type": "String", "Value": "open", "Version": 1}]}`, request.Names[0])
	})
	documents, errs := fetchEach(t, h, "aws-ssm:/a/open", "aws-ssm:/a/closed", "aws-ssm:/b/open")
	for _, i := range []int{0, 2} {
		if errs[i] != nil || string(documents[i].Bytes) != "open" {
			t.Errorf("reference %d: %v", i, errs[i])
		}
	}
	wantError(t, errs[1], sources.Denied, "aws-ssm /a/closed cannot be read: access denied (AccessDeniedException)",
		"allow ssm:GetParameters on arn:aws:ssm:eu-central-1:*:parameter/a/closed, and kms:Decrypt on its key where that is your own")
	if n := m.Requests("GetParameters"); n != 4 {
		t.Errorf("%d requests, want 1 for all and 3 for each", n)
	}
}

func TestWholePath(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "")
	for i := range 23 {
		m.PutParameter(t, region, fmt.Sprintf("/app/prod/KEY_%02d", i), "SecureString", fmt.Sprint("value ", i))
	}
	m.PutParameter(t, region, "/app/production/OTHER", "SecureString", "not below the path")
	path, err := parse("aws-ssm:/app/prod/?optional=true")
	if err != nil {
		t.Fatal(err)
	}
	documents, errs := fetchEach(t, h, path.String()+"#KEY_00", "aws-ssm:/app/prod/#KEY_07")
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if n := m.Requests("GetParametersByPath"); n != 3 || n != m.Requests("") {
		t.Errorf("%d requests for 23 parameters, want 3", m.Requests(""))
	}
	members, err := documents[0].Members(path)
	if err != nil || len(members) != 23 {
		t.Fatalf("%d members, error %v", len(members), err)
	}
	for i, m := range members {
		if m.Name != fmt.Sprintf("KEY_%02d", i) || string(m.Value.Reveal()) != fmt.Sprint("value ", i) {
			t.Errorf("member %d is %s", i, m.Name)
		}
	}
	wantValue(t, h, "aws-ssm:/app/prod/#KEY_07", "value 7")
	wantValue(t, h, "aws-ssm:/app/#prod/KEY_07", "value 7")

	// A nested name keeps its slash: what a file may be called is not for the source to say.
	m.PutParameter(t, region, "/app/prod/nested/KEY", "String", "deep")
	documents, errs = fetchEach(t, h, "aws-ssm:/app/prod/#nested/KEY")
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	if members, err = documents[0].Members(path); err != nil || members[23].Name != "nested/KEY" {
		t.Errorf("the last member is %v, error %v", members[len(members)-1].Name, err)
	}
}

func TestTwoRegionsAtOnce(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "")
	m.PutParameter(t, region, "/db", "String", "here")
	m.PutParameter(t, otherRegion, "/db", "String", "there")
	documents, errs := fetchEach(t, h, "aws-ssm:/db", "aws-ssm:/db?region="+otherRegion, "aws-ssm:arn:aws-cn:ssm:"+otherRegion+":123456789012:parameter/db")
	for i, want := range []string{"here", "there", "there"} {
		if errs[i] != nil || string(documents[i].Bytes) != want {
			t.Errorf("reference %d: error %v, want %q", i, errs[i], want)
		}
	}
}
