//go:build integration

package awssm_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"secret-init/sources"
	"secret-init/sources/awssm"
)

// hosts are what the SDK makes of its settings and of a reference's region.
// None of them was ever asked: a proxy refuses the connection.
var hosts = []struct{ ref, host, settings string }{
	{"aws-sm:db", "secretsmanager.eu-central-1.amazonaws.com:443", ""},
	{"aws-sm:db?region=ap-south-1", "secretsmanager.ap-south-1.amazonaws.com:443", ""},
	{"aws-sm:arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:db", "secretsmanager.cn-north-1.amazonaws.com.cn:443", ""},
	{"aws-sm:arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:db", "secretsmanager.us-gov-west-1.amazonaws.com:443", ""},
	{"aws-sm:db?region=us-gov-east-1", "secretsmanager-fips.us-gov-east-1.amazonaws.com:443", "AWS_USE_FIPS_ENDPOINT"},
	// Elsewhere the usual host of Secrets Manager has both stacks.
	{"aws-sm:db?region=cn-north-1", "secretsmanager-fips.cn-north-1.api.amazonwebservices.com.cn:443", "AWS_USE_FIPS_ENDPOINT AWS_USE_DUALSTACK_ENDPOINT"},
}

// TestHosts runs itself again: Go reads the proxy's variable once a process.
func TestHosts(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Method+" "+r.Host)
		mu.Unlock()
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHostsInAChild$", "-test.v")
	cmd.Env = append(os.Environ(), "HTTPS_PROXY="+proxy.URL, "TEST_HOSTS_CHILD=1", "NO_PROXY=")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	mu.Lock()
	defer mu.Unlock()
	for i, c := range hosts {
		if want := "CONNECT " + c.host; !slices.Contains(asked, want) {
			t.Errorf("%s (case %d) did not ask for %s; asked: %q", c.ref, i, want, asked)
		}
	}
}

// TestHostsInAChild has nothing to do unless TestHosts runs it.
func TestHostsInAChild(t *testing.T) {
	if os.Getenv("TEST_HOSTS_CHILD") == "" {
		return
	}
	for _, c := range hosts {
		t.Run(c.host, func(t *testing.T) {
			env := map[string]string{
				"AWS_REGION": region, "AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
				"AWS_ENDPOINT_URL": "", "AWS_PROFILE": "", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
			}
			for _, name := range strings.Fields(c.settings) {
				env[name] = "true"
			}
			for name, value := range env {
				t.Setenv(name, value)
			}
			ref, err := parse(c.ref)
			if err != nil {
				t.Fatal(err)
			}
			// One attempt is enough, so no Fetcher.
			source, err := awssm.Backend.Open(sources.Settings{Getenv: os.Getenv})
			if err != nil {
				t.Fatal(err)
			}
			if _, err = source.Fetch(t.Context(), ref.Document()); sources.ClassOf(err) != sources.Unavailable {
				t.Error(err)
			}
		})
	}
}
