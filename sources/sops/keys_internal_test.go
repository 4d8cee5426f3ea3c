//go:build !no_sops

package sops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/azkv"
	"github.com/getsops/sops/v3/gcpkms"
	"github.com/getsops/sops/v3/hckms"
	"github.com/getsops/sops/v3/keys"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	vault "github.com/hashicorp/vault/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"secret-init/sources"
)

const canary = "CANARY-7f3a"

// TestClassify covers what no server of the tests answers: GCP and Azure are
// linked, and proved by nothing but this.
func TestClassify(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	aws := func(service, code string, httpStatus int) error {
		return &smithy.OperationError{ServiceID: service, Err: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: httpStatus}},
			Err:      &smithy.GenericAPIError{Code: code, Message: canary},
		}}
	}
	tests := []struct {
		err         error
		why         string
		unavailable bool
	}{
		{&vault.ResponseError{StatusCode: 403, Errors: []string{canary}}, "answered 403 Forbidden", false},
		{&vault.ResponseError{StatusCode: 503, Errors: []string{canary}}, "answered 503 Service Unavailable", true},
		{&vault.ResponseError{StatusCode: 429}, "answered 429 Too Many Requests", true},
		{&azcore.ResponseError{StatusCode: 403, ErrorCode: "Forbidden"}, "answered 403 Forbidden", false},
		{&azcore.ResponseError{StatusCode: 500}, "answered 500 Internal Server Error", true},
		{status.Error(codes.PermissionDenied, canary), "answered PermissionDenied", false},
		{status.Error(codes.Unavailable, canary), "answered Unavailable", true},
		{status.Error(codes.ResourceExhausted, canary), "answered ResourceExhausted", true},
		{aws("KMS", "AccessDeniedException", 400), "answered 400 AccessDeniedException", false},
		{aws("KMS", "ThrottlingException", 400), "answered 400 ThrottlingException", true},
		{aws("KMS", "KMSInternalException", 500), "answered 500 KMSInternalException", true},
		{&smithy.OperationError{ServiceID: "KMS", Err: fmt.Errorf("credentials: %w", &smithy.OperationError{ServiceID: "ec2imds", Err: refused})},
			"was not asked, since there are no credentials for AWS", false},
		{&url.Error{Op: "Put", URL: canary, Err: refused}, "did not answer", true},
		{&url.Error{Op: "Put", URL: canary, Err: io.EOF}, "did not answer", true},
		{context.DeadlineExceeded, "did not answer", true},
		{errors.New(canary), "", false},
	}
	for _, test := range tests {
		why, unavailable := classify(fmt.Errorf("wrapped: %w", test.err))
		if why != test.why || unavailable != test.unavailable {
			t.Errorf("%v: %q, %v", test.err, why, unavailable)
		}
	}
}

// TestKeyErrorOfCloudKeys covers the keys that no test can use.
func TestKeyErrorOfCloudKeys(t *testing.T) {
	gcp := &gcpkms.MasterKey{ResourceID: "projects/p/locations/global/keyRings/r/cryptoKeys/k\n"}
	azure := &azkv.MasterKey{VaultURL: "https://v.vault.azure.net", Name: "n", Version: "1"}
	huawei := &hckms.MasterKey{KeyID: "cn-north-1:id"}
	tree := &sops.Tree{Metadata: sops.Metadata{KeyGroups: []sops.KeyGroup{{gcp, azure, huawei}}}}
	s := source{getenv: func(string) string { return "" }}
	err := s.keyError(tree, []failure{{key: gcp}, {key: azure, why: "answered 403 Forbidden"}, {key: huawei}})
	if sources.ClassOf(err) != sources.Denied || err.Error() != "cannot be decrypted: Azure Key Vault https://v.vault.azure.net/keys/n/1 answered 403 Forbidden" {
		t.Error(err)
	}
	for _, part := range []string{"GCP KMS projects/p/locations/global/keyRings/r/cryptoKeys/k?, ", "HuaweiCloud KMS cn-north-1:id", "cryptoKeyDecrypter", "AZURE_CLIENT_ID", "HUAWEICLOUD_SDK_AK"} {
		if hint := sources.HintOf(err); !strings.Contains(hint, part) || strings.Contains(hint, "\n") {
			t.Errorf("hint %q has no %q", hint, part)
		}
	}
	var many sops.KeyGroup
	for range 12 {
		many = append(many, keys.MasterKey(azure))
	}
	if hint := s.keyHint(&sops.Tree{Metadata: sops.Metadata{KeyGroups: []sops.KeyGroup{many}}}, nil); !strings.Contains(hint, ", and 4 more") {
		t.Errorf("hint %q", hint)
	}
}

// FuzzLoad: whatever a file holds, it ends in an error, never in a panic.
func FuzzLoad(f *testing.F) {
	for format, seed := range map[string]string{
		"yaml":   "a: 1\nsops:\n  mac: x\n  lastmodified: \"2020-01-01T00:00:00Z\"\n  age:\n  - recipient: a\n    enc: b\n",
		"json":   `{"a": "b", "sops": {"mac": "x", "age": [{"enc": "x"}], "lastmodified": "2020-01-01T00:00:00Z"}}`,
		"dotenv": "a=b\nsops_mac=x\nsops_lastmodified=2020-01-01T00:00:00Z\nsops_age__list_0__map_enc=x\nsops_age__list_0__map_recipient=r\n",
		"ini":    "[a]\nb=c\n[sops]\nmac=x\nlastmodified=2020-01-01T00:00:00Z\nage__list_0__map_enc=x\n",
		"binary": `{"data": "b", "sops": {"mac": "x", "age": [{"enc": "x"}], "lastmodified": "2020-01-01T00:00:00Z"}}`,
	} {
		f.Add(format, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, format string, content []byte) {
		tree, err := storeFor(format).LoadEncryptedFile(content)
		if err != nil {
			return
		}
		if err := decrypt(&tree, bytes.Repeat([]byte{1}, 32)); err == nil {
			t.Fatalf("%q was decrypted with a made-up key", content)
		}
		if parse := parser(format, tree.Branches); parse != nil {
			_, _ = parse(content)
		}
	})
}
