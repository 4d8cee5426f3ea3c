//go:build !no_vault && !no_aws

package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/hashicorp/vault/api"

	"secret-init/sources"
	"secret-init/sources/internal/awsconfig"
)

// awsServerHeader binds the signed request to one Vault.
const awsServerHeader = "X-Vault-AWS-IAM-Server-ID"

// callerIdentity is the whole body of the request that Vault sends on.
const callerIdentity = "Action=GetCallerIdentity&Version=2011-06-15"

// beginAWS signs, and never sends, a request that asks AWS who signed it.
// Vault sends it, and so learns our role without seeing a credential:
// https://developer.hashicorp.com/vault/docs/auth/aws#iam-auth-method
//
// The official module for it links the first AWS SDK beside the second.
func beginAWS(ctx context.Context, l *loginSettings) (api.AuthMethod, error) {
	role := l.get("VAULT_ROLE")
	// Vault asks the global STS, whose signatures are those of us-east-1,
	// unless its sts_endpoint says otherwise.
	region := l.get("VAULT_AWS_STS_REGION")
	endpointRegion := region
	if region == "" {
		region, endpointRegion = "us-east-1", "aws-global"
	}
	clients := awsconfig.Clients[aws.Config]{New: func(c aws.Config) aws.Config { return c }}
	cfg, _, err := clients.Client(ctx, region)
	if err != nil {
		return nil, err
	}
	credentials, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, sources.Errorf(sources.Unavailable, "raise --timeout to try longer", "cannot be read: no AWS credentials for the login with aws")
	}
	endpoint, err := sts.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, sts.EndpointParameters{
		Region: &endpointRegion, UseDualStack: aws.Bool(false), UseFIPS: aws.Bool(false), UseGlobalEndpoint: aws.Bool(false),
	})
	if err != nil {
		return nil, sources.Errorf(sources.Invalid, "write a region as in eu-central-1", "cannot be read: VAULT_AWS_STS_REGION is not a region")
	}
	address := endpoint.URI.JoinPath("/").String()
	signed, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader([]byte(callerIdentity)))
	if err != nil {
		return nil, err
	}
	signed.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if server := l.get("VAULT_AWS_IAM_SERVER_ID"); server != "" {
		signed.Header.Set(awsServerHeader, server)
	}
	hash := sha256.Sum256([]byte(callerIdentity))
	if err := v4.NewSigner().SignHTTP(ctx, credentials, signed, hex.EncodeToString(hash[:]), "sts", region, time.Now()); err != nil {
		return nil, sources.Errorf(sources.Denied, "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "cannot be read: the AWS credentials cannot sign a request")
	}
	headers, err := json.Marshal(signed.Header)
	if err != nil {
		return nil, err
	}
	body := map[string]any{
		"iam_http_request_method": signed.Method,
		"iam_request_url":         base64.StdEncoding.EncodeToString([]byte(address)),
		"iam_request_body":        base64.StdEncoding.EncodeToString([]byte(callerIdentity)),
		"iam_request_headers":     base64.StdEncoding.EncodeToString(headers),
	}
	if role != "" {
		body["role"] = role
	}
	return post{"auth/" + l.mount + "/login", body}, nil
}
