package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// Moto is a moto server, a stand-in for AWS, with a proxy in front of it
// that counts requests and can answer in moto's place.
type Moto struct {
	// URL is the proxy's: what clients get as AWS_ENDPOINT_URL.
	URL string

	direct string
	mu     sync.Mutex
	counts map[string]int
	// answers stand in for moto where it cannot fail as AWS does.
	answers map[string]http.HandlerFunc
}

// StartMoto runs moto 5 (pip install 'moto[server]') until the test ends.
func StartMoto(tb testing.TB) *Moto {
	tb.Helper()
	port := FreePort(tb)
	m := &Moto{direct: "http://127.0.0.1:" + port, counts: map[string]int{}, answers: map[string]http.HandlerFunc{}}
	cmd := exec.Command(Tool(tb, "python3"), "-m", "moto.server", "-H", "127.0.0.1", "-p", port)
	Start(tb, cmd)
	WaitFor(tb, "moto", func(ctx context.Context) bool {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.direct+"/moto-api/data.json", nil)
		if err != nil {
			return false
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	target, err := url.Parse(m.direct)
	if err != nil {
		tb.Fatal(err)
	}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		// The signature covers the host that the client named.
		r.Out.Host = r.In.Host
	}}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		if operation == "" {
			// The services that speak AWS's query protocol name it in the form.
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			form, _ := url.ParseQuery(string(body))
			operation = form.Get("Action")
		}
		m.mu.Lock()
		m.counts[operation]++
		answer := m.answers[operation]
		m.mu.Unlock()
		if answer == nil {
			answer = forward.ServeHTTP
		}
		answer(w, r)
	}))
	tb.Cleanup(proxy.Close)
	m.URL = proxy.URL
	return m
}

// Env are the settings of a client that reaches this server, and no other
// place from which the SDK might take settings or credentials.
func (m *Moto) Env() map[string]string {
	return map[string]string{
		"AWS_ENDPOINT_URL":            m.URL,
		"AWS_REGION":                  "eu-central-1",
		"AWS_DEFAULT_REGION":          "",
		"AWS_ACCESS_KEY_ID":           "AKIATEST",
		"AWS_SECRET_ACCESS_KEY":       "test",
		"AWS_SESSION_TOKEN":           "",
		"AWS_PROFILE":                 "",
		"AWS_CONFIG_FILE":             "/dev/null",
		"AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
		"AWS_EC2_METADATA_DISABLED":   "true",
	}
}

// Requests is how many requests for an operation ("GetSecretValue") clients
// have sent; for "" the sum of all.
func (m *Moto) Requests(operation string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := 0
	for name, n := range m.counts {
		if operation == "" || operation == name {
			sum += n
		}
	}
	return sum
}

// Answer makes the proxy itself answer an operation, as AWS documents it;
// nil gives it back to moto.
func (m *Moto) Answer(operation string, answer http.HandlerFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers[operation] = answer
}

// AnswerError makes the proxy answer an operation with an error of AWS's JSON
// protocol.
func (m *Moto) AnswerError(operation string, status int, code, message string) {
	m.Answer(operation, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
	})
}

// Call sends one request of AWS's JSON protocol straight to moto, uncounted:
// Call(tb, "ssm", "eu-central-1", "AmazonSSM.PutParameter", ...).
func (m *Moto) Call(tb testing.TB, service, region, target string, input map[string]any) (output map[string]any) {
	tb.Helper()
	body, err := json.Marshal(input)
	if err != nil {
		tb.Fatal(err)
	}
	answer := m.post(tb, service, region, "application/x-amz-json-1.1", target, body)
	if len(answer) > 0 {
		if err := json.Unmarshal(answer, &output); err != nil {
			tb.Fatalf("%s: %v", target, err)
		}
	}
	return output
}

// query sends one request of AWS's query protocol straight to moto.
func (m *Moto) query(tb testing.TB, service, action string, form url.Values, output any) {
	tb.Helper()
	form.Set("Action", action)
	form.Set("Version", "2010-05-08")
	answer := m.post(tb, service, "us-east-1", "application/x-www-form-urlencoded", "", []byte(form.Encode()))
	if output != nil {
		if err := xml.Unmarshal(answer, output); err != nil {
			tb.Fatalf("%s: %v", action, err)
		}
	}
}

func (m *Moto) post(tb testing.TB, service, region, contentType, target string, body []byte) []byte {
	tb.Helper()
	request, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, m.direct+"/", bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	if target != "" {
		request.Header.Set("X-Amz-Target", target)
	}
	// moto takes the service and the region from here, and checks no signature unless told to.
	request.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=setup/20250101/%s/%s/aws4_request, SignedHeaders=host, Signature=none", region, service))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		tb.Fatalf("moto, %s%s: %s: %.300s (%v)", service, target, response.Status, answer, err)
	}
	return answer
}

// PutSecret creates a secret, as SecretBinary where text is false, and
// returns its ARN.
func (m *Moto) PutSecret(tb testing.TB, region, name string, content []byte, text bool) (arn string) {
	tb.Helper()
	input := map[string]any{"Name": name, "SecretBinary": content}
	if text {
		input = map[string]any{"Name": name, "SecretString": string(content)}
	}
	output := m.Call(tb, "secretsmanager", region, "secretsmanager.CreateSecret", input)
	return output["ARN"].(string)
}

// PutParameter creates a parameter of Parameter Store, or a new version of it.
func (m *Moto) PutParameter(tb testing.TB, region, name, kind, value string) {
	tb.Helper()
	m.Call(tb, "ssm", region, "AmazonSSM.PutParameter", map[string]any{"Name": name, "Type": kind, "Value": value, "Overwrite": true})
}

// Restrict makes moto check signatures and policies from now on, and returns
// the settings of a new user who may do the given actions on everything, and
// nothing else. moto looks at a policy's actions, not at its resources.
func (m *Moto) Restrict(tb testing.TB, actions ...string) map[string]string {
	tb.Helper()
	user := url.Values{"UserName": {"restricted"}}
	m.query(tb, "iam", "CreateUser", user, nil)
	var created struct {
		ID     string `xml:"CreateAccessKeyResult>AccessKey>AccessKeyId"`
		Secret string `xml:"CreateAccessKeyResult>AccessKey>SecretAccessKey"`
	}
	m.query(tb, "iam", "CreateAccessKey", user, &created)
	if len(actions) > 0 {
		policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{
			map[string]any{"Effect": "Allow", "Action": actions, "Resource": "*"},
		}})
		if err != nil {
			tb.Fatal(err)
		}
		m.query(tb, "iam", "PutUserPolicy", url.Values{
			"UserName": {"restricted"}, "PolicyName": {"restricted"}, "PolicyDocument": {string(policy)},
		}, nil)
	}
	response, err := http.Post(m.direct+"/moto-api/reset-auth", "text/plain", strings.NewReader("0"))
	if err != nil {
		tb.Fatal(err)
	}
	_ = response.Body.Close()
	env := m.Env()
	env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"] = created.ID, created.Secret
	return env
}
