package awssm_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestOmitted: a build that leaves AWS out links none of its SDK.
func TestOmitted(t *testing.T) {
	for _, backend := range []string{"secret-init/sources/awssm", "secret-init/sources/awsssm"} {
		for tags, want := range map[string]bool{"no_aws": false, "": true} {
			output, err := exec.Command("go", "list", "-deps", "-tags", tags, backend).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			if got := strings.Contains(string(output), "github.com/aws/"); got != want {
				t.Errorf("%s with the tag %q: links the SDK is %v, want %v", backend, tags, got, want)
			}
		}
	}
}
