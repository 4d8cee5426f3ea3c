//go:build !no_sops

package sops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/azkv"
	"github.com/getsops/sops/v3/gcpkms"
	"github.com/getsops/sops/v3/hckms"
	"github.com/getsops/sops/v3/hcvault"
	"github.com/getsops/sops/v3/keys"
	"github.com/getsops/sops/v3/keyservice"
	"github.com/getsops/sops/v3/kms"
	"github.com/getsops/sops/v3/pgp"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	vault "github.com/hashicorp/vault/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"secret-init/sources"
)

// dataKey obtains the key that the values are encrypted with, by the first
// of the file's keys that works, in the order in which the sops command tries.
func (s source) dataKey(ctx context.Context, tree *sops.Tree) ([]byte, error) {
	ctx, cancel := slightlyEarlier(ctx)
	defer cancel()
	service := &keyService{ctx: ctx, source: s, keys: map[string]keys.MasterKey{}}
	for _, group := range tree.Metadata.KeyGroups {
		for _, key := range group {
			// Every key holds an encryption of its own, which names it.
			service.keys[string(key.EncryptedDataKey())] = key
		}
	}
	key, err := tree.Metadata.GetDataKeyWithKeyServices([]keyservice.KeyServiceClient{service}, sops.DefaultDecryptionOrder)
	if err == nil {
		return key, nil
	}
	return nil, s.keyError(tree, service.failures)
}

// slightlyEarlier ends before ctx does, so that a key service that never
// answers is named in an error, and not left behind with it.
func slightlyEarlier(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/10, 200*time.Millisecond)))
}

// keyService decrypts data keys in this process, as the library's own does,
// but within a context, and remembers what failed.
type keyService struct {
	// LocalClient provides Encrypt, which is never called.
	keyservice.LocalClient
	ctx      context.Context
	source   source
	keys     map[string]keys.MasterKey
	failures []failure
}

type failure struct {
	key keys.MasterKey
	// why is a known phrase; the library's text may hold a response body.
	why         string
	unavailable bool
}

func (s *keyService) Decrypt(_ context.Context, request *keyservice.DecryptRequest, _ ...grpc.CallOption) (*keyservice.DecryptResponse, error) {
	key := s.keys[string(request.Ciphertext)]
	if key == nil {
		return nil, errors.New("no such key")
	}
	switch k := key.(type) {
	case *pgp.MasterKey:
		preparePGP(s.ctx, k, s.source.agent)
	case *hcvault.MasterKey:
		prepareVault(k)
	}
	var plain []byte
	var err error
	if bound, ok := key.(interface {
		DecryptContext(context.Context) ([]byte, error)
	}); ok {
		plain, err = bound.DecryptContext(s.ctx)
	} else {
		plain, err = key.Decrypt()
	}
	if err != nil {
		why, unavailable := classify(err)
		if s.ctx.Err() == nil {
			s.source.answers.Store(describe(key), why)
		} else if before, ok := s.source.answers.Load(describe(key)); ok && before != "" {
			// This try was cut short, and an earlier one was not.
			why = before.(string)
		}
		s.failures = append(s.failures, failure{key, why, unavailable})
		return nil, err
	}
	return &keyservice.DecryptResponse{Plaintext: plain}, nil
}

// classify says why a key service refused, in words of our own, and whether
// it may answer another time.
func classify(err error) (why string, unavailable bool) {
	var operation *smithy.OperationError
	// Without credentials the AWS SDK asks the instance metadata, and fails to connect.
	for e := err; errors.As(e, &operation); e = operation.Err {
		if operation.ServiceID == "ec2imds" {
			return "was not asked, since there are no credentials for AWS", false
		}
	}
	if errors.Is(err, http.ErrNoLocation) {
		return "answered with a redirect to another server, which is not followed", false
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return "answered with more than a key", false
	}
	code, name := 0, ""
	if e, ok := errors.AsType[*vault.ResponseError](err); ok {
		code = e.StatusCode
	} else if e, ok := errors.AsType[*azcore.ResponseError](err); ok {
		code = e.StatusCode
	} else if e, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		code = e.HTTPStatusCode()
	}
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		name = e.ErrorCode()
	} else if code != 0 {
		name = http.StatusText(code)
	}
	if s, ok := status.FromError(err); ok {
		return "answered " + s.Code().String(), slices.Contains([]codes.Code{codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded}, s.Code())
	}
	if code != 0 {
		return fmt.Sprintf("answered %d %s", code, name), code >= 500 || code == http.StatusTooManyRequests || strings.Contains(name, "Throttling")
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, io.EOF) {
		return "did not answer", true
	}
	return "", false
}

// keyError is Unavailable when a key service may yet answer, else Denied. Its
// hint tells what the file is encrypted for: recipients, fingerprints and
// names of keys, which are public; and what would open it.
func (s source) keyError(tree *sops.Tree, failures []failure) error {
	var answers []string
	class := sources.Denied
	for _, f := range failures {
		if f.why != "" {
			answers = append(answers, describe(f.key)+" "+f.why)
		}
		if f.unavailable {
			class = sources.Unavailable
		}
	}
	said := strings.Join(answers, "; ")
	what := "no key that it is encrypted for is at hand"
	if groups := len(tree.Metadata.KeyGroups); groups > 1 {
		what = fmt.Sprintf("it takes keys of %d of its %d key groups", max(tree.Metadata.ShamirThreshold, 1), groups)
		if said != "" {
			what += " (" + said + ")"
		}
	} else if said != "" {
		what = said
	}
	return sources.Errorf(class, s.keyHint(tree, failures), "cannot be decrypted: %s", printable(what))
}

// keyHint names the keys of the file and, for each kind, the settings.
func (s source) keyHint(tree *sops.Tree, failures []failure) string {
	const most = 8
	var named, settings []string
	for _, group := range tree.Metadata.KeyGroups {
		for _, key := range group {
			named = append(named, describe(key))
			setting := s.settingFor(key)
			if slices.ContainsFunc(failures, func(f failure) bool { return f.key == key && f.unavailable }) {
				setting = "check that it can be reached from here; raise --timeout to try longer"
			}
			if !slices.Contains(settings, setting) {
				settings = append(settings, setting)
			}
		}
	}
	if len(named) > most {
		named = append(named[:most], fmt.Sprintf("and %d more", len(named)-most))
	}
	return printable(strings.Join(settings, "; ") + "; it is encrypted for " + strings.Join(named, ", "))
}

// describe is how messages call a key.
func describe(key keys.MasterKey) string {
	switch k := key.(type) {
	case *age.MasterKey:
		return "age " + k.Recipient
	case *pgp.MasterKey:
		return "PGP " + k.Fingerprint
	case *kms.MasterKey:
		return "AWS KMS " + k.Arn
	case *hcvault.MasterKey:
		return "Vault " + k.ToString()
	case *gcpkms.MasterKey:
		return "GCP KMS " + k.ResourceID
	case *azkv.MasterKey:
		return "Azure Key Vault " + k.ToString()
	case *hckms.MasterKey:
		return "HuaweiCloud KMS " + k.KeyID
	}
	return key.TypeToIdentifier()
}

// settingFor is what makes a key usable.
func (s source) settingFor(key keys.MasterKey) string {
	switch k := key.(type) {
	case *age.MasterKey:
		if strings.HasPrefix(k.Recipient, "ssh-") {
			return "set SOPS_AGE_SSH_PRIVATE_KEY_FILE to the SSH key's file (a key with a passphrase will not do)"
		}
		return s.ageSetting()
	case *pgp.MasterKey:
		return "set GNUPGHOME to a directory with the secret key, and have gpg in the image"
	case *kms.MasterKey:
		return "allow kms:Decrypt on the key to the task's or instance's role"
	case *hcvault.MasterKey:
		return "set VAULT_TOKEN to a token with update on " + k.EnginePath + "/decrypt/" + k.KeyName
	case *gcpkms.MasterKey:
		return "grant roles/cloudkms.cryptoKeyDecrypter to the default credentials, or set GOOGLE_APPLICATION_CREDENTIALS to others"
	case *azkv.MasterKey:
		return "allow decrypt on the key to the identity of AZURE_CLIENT_ID, or to the managed one"
	case *hckms.MasterKey:
		return "set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK"
	}
	return "use a newer secret-init: it does not know this kind of key"
}

// ageSetting looks at what is set: a key that is there and does not fit is a
// different fault from one that is missing.
func (s source) ageSetting() string {
	if text := s.getenv(age.SopsAgeKeyEnv); text != "" {
		var identities age.ParsedIdentities
		if identities.Import(strings.Fields(text)...) != nil {
			return "set SOPS_AGE_KEY to an age key (AGE-SECRET-KEY-1...): what is set is none"
		}
		return "set SOPS_AGE_KEY to the key of this recipient: the one that is set is another's"
	}
	if path := s.getenv(age.SopsAgeKeyFileEnv); path != "" {
		file, err := os.Open(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "set SOPS_AGE_KEY_FILE to a file that is there, or mount it with: docker run -v KEY:FILE:ro; the one that is set does not exist"
		case err != nil:
			return "set SOPS_AGE_KEY_FILE to a file that can be read: the one that is set cannot"
		}
		defer file.Close()
		if info, err := file.Stat(); err == nil && info.IsDir() {
			return "check the left side of docker run -v, where the file is not: SOPS_AGE_KEY_FILE names a folder"
		}
		return "set SOPS_AGE_KEY_FILE to a file with the key of this recipient: the one that is set has none"
	}
	return "set SOPS_AGE_KEY, or SOPS_AGE_KEY_FILE to the file with the age key"
}

// printable keeps what a file says of its own keys to one line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
