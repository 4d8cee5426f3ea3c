//go:build !no_aws

package awsconfig

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"

	"secret-init/sources"
)

// maxBody bounds an answer, in bytes. A batch holds twenty secrets of 64 KiB,
// and JSON may spell a byte with six characters.
const maxBody = 8 << 20

// MaxValue is the largest secret that AWS itself stores, in bytes.
const MaxValue = 64 << 10

// Clients makes one client of a service for each region, on demand: nothing
// of the SDK's settings is read before the first call of Client.
type Clients[C any] struct {
	New func(aws.Config) C

	mu      sync.Mutex
	config  *aws.Config
	clients map[string]C
}

// Client is the client for a region, or for the configured one where region
// is empty, with the region's name. It has credentials: they are obtained
// here, so that their absence is told apart from what the service answers.
func (c *Clients[C]) Client(ctx context.Context, region string) (C, string, error) {
	client, cfg, err := c.client(ctx, region)
	if err != nil {
		return client, "", err
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return client, "", credentialError(ctx, cfg.Credentials, err)
	}
	return client, cfg.Region, nil
}

func (c *Clients[C]) client(ctx context.Context, region string) (client C, cfg aws.Config, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.config == nil {
		loaded, err := load(ctx)
		if err != nil {
			return client, cfg, configError(ctx, err)
		}
		c.config, c.clients = &loaded, map[string]C{}
	}
	cfg = c.config.Copy()
	if region != "" {
		cfg.Region = region
	}
	if cfg.Region == "" {
		return client, cfg, sources.Errorf(sources.Invalid, "set AWS_REGION, or add ?region= to the reference", "cannot be read: there is no region to look for it in")
	}
	client, ok := c.clients[cfg.Region]
	if !ok {
		client = c.New(cfg)
		c.clients[cfg.Region] = client
	}
	return client, cfg, nil
}

// load reads the SDK's settings. Its retries are off, since Fetcher has its
// own, and so is its log, which goes to stderr.
func load(ctx context.Context) (aws.Config, error) {
	var forSTS stsOptions
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithLogger(logging.Nop{}),
		config.WithAssumeRoleCredentialOptions(func(o *stscreds.AssumeRoleOptions) {
			o.Client = assumeRole{o.Client, &forSTS}
		}),
		config.WithWebIdentityRoleCredentialOptions(func(o *stscreds.WebIdentityRoleOptions) {
			// The SDK asks twice, and has a client of its own only the second time.
			if o.Client != nil {
				o.Client = assumeRoleWithWebIdentity{o.Client, &forSTS}
			}
		}))
	if err != nil {
		return cfg, err
	}
	// A client of our own is set only now: the SDK puts AWS_CA_BUNDLE into
	// no other than its own.
	transport := awshttp.NewBuildableClient().GetTransport()
	if own, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		transport = own.GetTransport()
	}
	cfg.HTTPClient = strictClient{&http.Client{
		Transport: transport,
		// No service redirects: another host's answer would be taken for the
		// secret, and another host would get the web identity's token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	forSTS = stsOptions{cfg.BaseEndpoint, cfg.HTTPClient}
	return cfg, nil
}

// stsOptions are what the SDK's own STS clients lack: it makes them before it
// has read AWS_ENDPOINT_URL (config 1.33.14, the order of its resolvers).
type stsOptions struct {
	endpoint *string
	client   aws.HTTPClient
}

func (s *stsOptions) apply(o *sts.Options) {
	o.HTTPClient = s.client
	// AWS_ENDPOINT_URL_STS is set already.
	if o.BaseEndpoint == nil {
		o.BaseEndpoint = s.endpoint
	}
}

type assumeRole struct {
	stscreds.AssumeRoleAPIClient
	options *stsOptions
}

func (c assumeRole) AssumeRole(ctx context.Context, input *sts.AssumeRoleInput, options ...func(*sts.Options)) (*sts.AssumeRoleOutput, error) {
	return c.AssumeRoleAPIClient.AssumeRole(ctx, input, append(options, c.options.apply)...)
}

type assumeRoleWithWebIdentity struct {
	stscreds.AssumeRoleWithWebIdentityAPIClient
	options *stsOptions
}

func (c assumeRoleWithWebIdentity) AssumeRoleWithWebIdentity(ctx context.Context, input *sts.AssumeRoleWithWebIdentityInput, options ...func(*sts.Options)) (*sts.AssumeRoleWithWebIdentityOutput, error) {
	return c.AssumeRoleWithWebIdentityAPIClient.AssumeRoleWithWebIdentity(ctx, input, append(options, c.options.apply)...)
}

// strictClient bounds what it reads.
type strictClient struct{ client *http.Client }

func (c strictClient) Do(request *http.Request) (*http.Response, error) {
	response, err := c.client.Do(request)
	if err == nil {
		response.Body = &boundedBody{response.Body, maxBody}
	}
	return response, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

var errTooLarge = errors.New("the answer is too large")

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLarge
	}
	// One byte more than allowed tells too much from just enough.
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	b.left -= int64(n)
	if b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}
