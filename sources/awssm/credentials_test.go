//go:build integration

package awssm_test

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"secret-init/sources"
	"secret-init/sources/sourcetest"
	"secret-init/tools/servers"
)

const keys = `{"Code": "Success", "AccessKeyId": "ASIATEST", "SecretAccessKey": "` + sourcetest.Canary + `", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}`

// without are the settings of m, but for any credentials.
func without(m *servers.Moto, change map[string]string) map[string]string {
	env := m.Env()
	env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"] = "", ""
	maps.Copy(env, change)
	return env
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fetchAs reads a secret and tells which access key signed the request.
func fetchAs(t *testing.T, m *servers.Moto, env map[string]string, timeout time.Duration) (key string, err error) {
	t.Helper()
	m.Answer("GetSecretValue", func(w http.ResponseWriter, r *http.Request) {
		_, credential, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
		key, _, _ = strings.Cut(credential, "/")
		_, _ = io.WriteString(w, `{"SecretString": "value"}`)
	})
	_, errs := fetchWithin(t, timeout, env, nil, "aws-sm:db")
	return key, errs[0]
}

func TestCredentials(t *testing.T) {
	m := servers.StartMoto(t)
	token := write(t, "token", "a.b.c")
	const role = "arn:aws:iam::123456789012:role/app"
	profile := write(t, "config", "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = x\n"+
		"[profile app]\nrole_arn = "+role+"\nsource_profile = base\nregion = eu-west-1\n")
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
			_, _ = io.WriteString(w, "token")
		case strings.HasSuffix(r.URL.Path, "/security-credentials/"):
			_, _ = io.WriteString(w, "role")
		default:
			_, _ = io.WriteString(w, keys)
		}
	}))
	t.Cleanup(metadata.Close)

	for name, c := range map[string]struct {
		env    map[string]string
		prefix string
		sts    string
	}{
		"keys":    {map[string]string{"AWS_ACCESS_KEY_ID": "AKIAOWN", "AWS_SECRET_ACCESS_KEY": "x"}, "AKIAOWN", ""},
		"profile": {map[string]string{"AWS_CONFIG_FILE": profile, "AWS_PROFILE": "base"}, "AKIABASE", ""},
		// moto's STS.
		"role of a profile": {map[string]string{"AWS_CONFIG_FILE": profile, "AWS_PROFILE": "app", "AWS_REGION": ""}, "ASIA", "AssumeRole"},
		"web identity":      {map[string]string{"AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": token}, "ASIA", "AssumeRoleWithWebIdentity"},
		// Stand-ins for the agents of ECS and EKS, and for the metadata service.
		"container": {map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": metadata.URL + "/task"}, "ASIATEST", ""},
		"instance":  {map[string]string{"AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.URL}, "ASIATEST", ""},
	} {
		t.Run(name, func(t *testing.T) {
			const timeout = 5 * time.Second
			before := m.Requests(c.sts)
			key, err := fetchAs(t, m, without(m, c.env), timeout)
			if err != nil {
				t.Fatal(err, sources.HintOf(err))
			}
			if !strings.HasPrefix(key, c.prefix) {
				t.Errorf("signed with %q, want %s", key, c.prefix)
			}
			if c.sts != "" && m.Requests(c.sts)-before != 1 {
				t.Errorf("%d calls of %s, want 1", m.Requests(c.sts)-before, c.sts)
			}
		})
	}
}

func TestCredentialErrors(t *testing.T) {
	m := servers.StartMoto(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	t.Cleanup(func() { _ = silent.Close() })
	none := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(none.Close)
	token := write(t, "token", sourcetest.Canary)
	role := map[string]string{"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/app", "AWS_WEB_IDENTITY_TOKEN_FILE": token}
	with := func(env map[string]string, name, value string) map[string]string {
		env = maps.Clone(env)
		env[name] = value
		return env
	}
	instance := map[string]string{"AWS_EC2_METADATA_DISABLED": ""}
	const missing = "aws-sm db cannot be read: there are no credentials for AWS"

	for name, c := range map[string]struct {
		env   map[string]string
		sts   string
		class sources.Class
		text  string
	}{
		"none":                              {nil, "", sources.Denied, missing},
		"half a key":                        {map[string]string{"AWS_ACCESS_KEY_ID": "AKIAHALF"}, "", sources.Denied, missing},
		"metadata service is not there":     {with(instance, "AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+closed.Addr().String()), "", sources.Denied, missing},
		"metadata service never answers":    {with(instance, "AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+silent.Addr().String()), "", sources.Denied, missing},
		"instance without a role":           {with(instance, "AWS_EC2_METADATA_SERVICE_ENDPOINT", none.URL), "", sources.Denied, missing},
		"task without a role":               {map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": none.URL}, "", sources.Denied, "aws-sm db cannot be read: no AWS credentials from the container's agent"},
		"agent is not there":                {map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://" + closed.Addr().String()}, "", sources.Unavailable, ""},
		"no token file":                     {with(role, "AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent"), "", sources.Denied, "aws-sm db cannot be read: no AWS credentials from a web identity"},
		"role denied":                       {role, "AccessDenied", sources.Denied, "aws-sm db cannot be read: access denied: the role cannot be assumed (AccessDenied)"},
		"token expired":                     {role, "ExpiredTokenException", sources.Denied, "aws-sm db cannot be read: access denied: the role cannot be assumed (ExpiredTokenException)"},
		"token of an unknown provider":      {role, "InvalidIdentityToken", sources.Denied, "aws-sm db cannot be read: access denied: the role cannot be assumed (InvalidIdentityToken)"},
		"STS is not there":                  {with(role, "AWS_ENDPOINT_URL_STS", "http://"+closed.Addr().String()), "", sources.Unavailable, ""},
		"STS never answers":                 {with(role, "AWS_ENDPOINT_URL_STS", "http://"+silent.Addr().String()), "", sources.Unavailable, ""},
		"a profile that builds on none":     {map[string]string{"AWS_CONFIG_FILE": write(t, "config", "[profile x]\nrole_arn = "+sourcetest.Canary+"\nsource_profile = none"), "AWS_PROFILE": "x"}, "", sources.Invalid, `aws-sm db cannot be read: there is no AWS profile "none"`},
		"a CA bundle that cannot be opened": {map[string]string{"AWS_CA_BUNDLE": "/nonexistent"}, "", sources.Invalid, "aws-sm db cannot be read: the AWS settings are wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.sts != "" {
				m.Answer("AssumeRoleWithWebIdentity", func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(http.StatusForbidden)
					_, _ = fmt.Fprintf(w, "<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error></ErrorResponse>", c.sts, sourcetest.Canary)
				})
			}
			timeout := 5 * time.Second
			if c.class == sources.Unavailable {
				timeout = 700 * time.Millisecond
			}
			started := time.Now()
			_, err := fetchAs(t, m, without(m, c.env), timeout)
			if sources.ClassOf(err) != c.class || c.text != "" && err.Error() != c.text || strings.Contains(err.Error()+sources.HintOf(err), sourcetest.Canary) {
				t.Errorf("%v: %v (%s)", sources.ClassOf(err), err, sources.HintOf(err))
			}
			if sources.HintOf(err) == "" {
				t.Errorf("no hint: %v", err)
			}
			if took := time.Since(started); c.class != sources.Unavailable && took > 3*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	m := servers.StartMoto(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the other host got %s %s", r.Method, r.URL)
		_, _ = io.WriteString(w, `{"SecretString": "theirs"}`)
	}))
	t.Cleanup(other.Close)
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		redirect := func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, status) }
		m.Answer("GetSecretValue", redirect)
		h := harness(m, "", false)
		_, err := h.Fetch(t, h.Env, "aws-sm:db")
		wantError(t, err, sources.Invalid, fmt.Sprintf("aws-sm db cannot be read: AWS answered %d %s", status, http.StatusText(status)),
			awsItself)
		m.Answer("AssumeRoleWithWebIdentity", redirect)
		_, err = fetchAs(t, m, without(m, map[string]string{
			"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/app", "AWS_WEB_IDENTITY_TOKEN_FILE": write(t, "token", sourcetest.Canary),
		}), 5*time.Second)
		if sources.ClassOf(err) != sources.Denied {
			t.Errorf("STS redirects: %v", err)
		}
	}
}
