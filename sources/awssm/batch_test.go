//go:build integration

package awssm_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"secret-init/sources"
	"secret-init/sources/sourcetest"
	"secret-init/tools/servers"
)

const awsItself = "check that AWS_ENDPOINT_URL, where it is set, is an endpoint of AWS"

func many(t *testing.T, m *servers.Moto, n int) (refs []string) {
	t.Helper()
	for i := range n {
		name := fmt.Sprintf("many/%d", i)
		arn := m.PutSecret(t, region, name, []byte(fmt.Sprint("value ", i)), i%5 != 0)
		switch i % 3 {
		case 0:
			refs = append(refs, "aws-sm:"+name)
		case 1:
			refs = append(refs, "aws-sm:"+arn)
		case 2:
			refs = append(refs, "aws-sm:"+arn[:strings.LastIndex(arn, "-")])
		}
	}
	return refs
}

func wantMany(t *testing.T, values []string, errs []error, n int) {
	t.Helper()
	for i := range n {
		if errs[i] != nil || values[i] != fmt.Sprint("value ", i) {
			t.Errorf("reference %d: got %q, error %v", i, values[i], errs[i])
		}
	}
}

func TestTwentiesAndTheirErrors(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "", false)
	m.PutSecret(t, region, "gone", []byte(sourcetest.Canary), true)
	m.Call(t, "secretsmanager", region, "secretsmanager.DeleteSecret", map[string]any{"SecretId": "gone"})
	refs := append(many(t, m, 58), "aws-sm:absent", "aws-sm:gone")
	values, errs := fetchEach(t, h, nil, refs...)
	wantMany(t, values, errs, 58)
	wantError(t, errs[58], sources.NotFound, "aws-sm absent does not exist in eu-central-1",
		"look with: aws secretsmanager describe-secret --region eu-central-1 --secret-id absent")
	wantError(t, errs[59], sources.NotFound, "aws-sm gone is marked for deletion",
		"restore it with: aws secretsmanager restore-secret --region eu-central-1 --secret-id gone")
	if n := m.Requests("BatchGetSecretValue"); n != 3 || n != m.Requests("") {
		t.Errorf("%d requests for 60 secrets, want 3", m.Requests(""))
	}
}

func TestWhatDoesNotGoTogether(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "", false)
	arn := m.PutSecret(t, region, "db", []byte("db"), true)
	m.PutSecret(t, region, "alone", []byte("alone"), true)
	m.PutSecret(t, otherRegion, "there", []byte("there"), true)
	for _, c := range []struct {
		batches, singles int
		refs             []string
	}{
		{0, 1, []string{"aws-sm:db"}},
		{1, 0, []string{"aws-sm:db", "aws-sm:alone"}},
		{1, 1, []string{"aws-sm:db", "aws-sm:alone", "aws-sm:there?region=" + otherRegion}},
		{1, 1, []string{"aws-sm:db", "aws-sm:alone", "aws-sm:" + arn}},
		{1, 1, []string{"aws-sm:db", "aws-sm:alone", "aws-sm:" + arn + "?region=" + region, "aws-sm:db?stage=AWSCURRENT"}},
		{0, 2, []string{"aws-sm:db", "aws-sm:db?stage=AWSCURRENT&version-id=" + version(t, m, arn)}},
	} {
		batches, singles := m.Requests("BatchGetSecretValue"), m.Requests("GetSecretValue")
		fetchAll(t, h, c.refs...)
		batches, singles = m.Requests("BatchGetSecretValue")-batches, m.Requests("GetSecretValue")-singles
		if batches != c.batches || singles != c.singles {
			t.Errorf("%q: %d batches and %d single reads, want %d and %d", c.refs, batches, singles, c.batches, c.singles)
		}
	}
}

func version(t *testing.T, m *servers.Moto, arn string) string {
	t.Helper()
	described := m.Call(t, "secretsmanager", region, "secretsmanager.DescribeSecret", map[string]any{"SecretId": arn})
	for id := range described["VersionIdsToStages"].(map[string]any) {
		return id
	}
	t.Fatal("the secret has no version")
	return ""
}

func TestPolicyWithoutTheBatchCall(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "", false)
	refs := many(t, m, 45)
	h.Env = m.Restrict(t, "secretsmanager:GetSecretValue")
	var warnings []string
	values, errs := fetchEach(t, h, func(s string) { warnings = append(warnings, s) }, refs...)
	wantMany(t, values, errs, 45)
	if want := "aws-sm reads secrets one by one: allow secretsmanager:BatchGetSecretValue on * to read twenty with one request"; len(warnings) != 1 || warnings[0] != want {
		t.Errorf("warnings %q, want one", warnings)
	}
	if n := m.Requests("GetSecretValue"); n != 45 {
		t.Errorf("%d single reads, want 45", n)
	}
}

// moto answers a batch with one error where a secret has no value; what AWS
// does then is not known. The others are read all the same.
func TestABatchThatFailsAsAWhole(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "", false)
	m.Call(t, "secretsmanager", region, "secretsmanager.CreateSecret", map[string]any{"Name": "empty"})
	refs := append(many(t, m, 2), "aws-sm:empty")
	values, errs := fetchEach(t, h, nil, refs...)
	wantMany(t, values, errs, 2)
	if sources.ClassOf(errs[2]) != sources.NotFound {
		t.Errorf("a secret without a value: %v", errs[2])
	}

	// Credentials that are not accepted are no better one by one.
	before := m.Requests("GetSecretValue")
	m.AnswerError("BatchGetSecretValue", http.StatusBadRequest, "ExpiredTokenException", sourcetest.Canary)
	_, errs = fetchEach(t, h, nil, refs...)
	for _, err := range errs {
		if sources.ClassOf(err) != sources.Denied {
			t.Error(err)
		}
	}
	if n := m.Requests("GetSecretValue") - before; n != 0 {
		t.Errorf("%d single reads with expired credentials", n)
	}
}

// The errors that moto cannot report for one secret of a batch come from the
// proxy, as AWS documents them.
func TestErrorsOfOneSecret(t *testing.T) {
	m := servers.StartMoto(t)
	h := harness(m, "", false)
	m.PutSecret(t, region, "slow", []byte("slow"), true)
	m.Answer("BatchGetSecretValue", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"SecretValues": []any{map[string]any{"Name": "open", "ARN": arn, "SecretString": "open", "VersionId": "v1"}},
			"Errors": []any{
				map[string]string{"SecretId": "closed", "ErrorCode": "AccessDeniedException", "Message": sourcetest.Canary},
				map[string]string{"SecretId": "key", "ErrorCode": "DecryptionFailure", "Message": sourcetest.Canary},
				map[string]string{"SecretId": "slow", "ErrorCode": "ThrottlingException", "Message": sourcetest.Canary},
				map[string]string{"SecretId": "odd", "ErrorCode": "SomethingNew", "Message": sourcetest.Canary},
			},
		})
	})
	values, errs := fetchEach(t, h, nil, "aws-sm:open", "aws-sm:closed", "aws-sm:key", "aws-sm:slow", "aws-sm:odd", "aws-sm:forgotten")
	if errs[0] != nil || values[0] != "open" || errs[3] != nil || values[3] != "slow" {
		t.Errorf("got %q, errors %v", values, errs)
	}
	wantError(t, errs[1], sources.Denied, "aws-sm closed cannot be read: access denied (AccessDeniedException)",
		"allow secretsmanager:GetSecretValue on arn:aws:secretsmanager:eu-central-1:*:secret:closed-??????, and kms:Decrypt on its key where that is your own")
	wantError(t, errs[2], sources.Denied, "aws-sm key cannot be read: access denied: AWS cannot decrypt it (DecryptionFailure)",
		"allow kms:Decrypt on its KMS key, and check that the key is enabled")
	wantError(t, errs[4], sources.Invalid, "aws-sm odd cannot be read: AWS answered SomethingNew", awsItself)
	// What the answer leaves out is read by itself.
	if sources.ClassOf(errs[5]) != sources.NotFound {
		t.Error(errs[5])
	}
}
