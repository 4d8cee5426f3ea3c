//go:build !no_vault

package vault

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/vault/api"

	"secret-init/sources"
)

// maxBody bounds an answer, in bytes: Vault itself takes no request over
// 32 MiB unless its max_request_size says so.
const maxBody = 32 << 20

// client speaks to one Vault in one namespace.
type client struct {
	api       *api.Client
	namespace string
	transport *http.Transport
}

// newClient makes a client without a token. It touches no network.
func newClient(settings sources.Settings) (*client, error) {
	address, err := addressOf(settings)
	if err != nil {
		return nil, err
	}
	tlsSettings, err := tlsOf(settings)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if proxy := settings.Getenv("VAULT_PROXY_ADDR"); proxy != "" {
		u, err := url.Parse(proxy)
		if err != nil || u.Host == "" {
			return nil, sources.Errorf(sources.Invalid, "set VAULT_PROXY_ADDR=http://HOST:3128", "cannot be read: VAULT_PROXY_ADDR is not the URL of a proxy")
		}
		transport.Proxy = http.ProxyURL(u)
	}
	config := &api.Config{
		HttpClient: &http.Client{Transport: transport, CheckRedirect: checkRedirect},
		// Fetcher retries, and follows no standby to a host of its choice.
		MaxRetries:       0,
		DisableRedirects: true,
	}
	if err := config.ConfigureTLS(tlsSettings); err != nil {
		return nil, sources.Errorf(sources.Invalid, "check VAULT_CACERT, VAULT_CAPATH, VAULT_CLIENT_CERT and VAULT_CLIENT_KEY",
			"cannot be read: a certificate or key for TLS cannot be loaded")
	}
	config.Address = address
	c, err := api.NewClient(config)
	if err != nil {
		return nil, sources.Errorf(sources.Invalid, "unset the VAULT_* variables that tune the client", "cannot be read: Vault's client library refuses a VAULT_* setting")
	}
	// NewClient needs the transport itself (for a unix socket), so the bound comes after it.
	config.HttpClient.Transport = bounded{transport}
	c.SetWrappingLookupFunc(func(string, string) string { return "" })
	c.ClearToken()
	result := &client{api: c, transport: transport}
	return result.withNamespace(settings.Getenv("VAULT_NAMESPACE")), nil
}

func addressOf(settings sources.Settings) (string, error) {
	address := strings.TrimSpace(settings.Getenv("VAULT_ADDR"))
	if address == "" {
		return "", sources.Errorf(sources.Invalid, hintSetAddress, "cannot be read: VAULT_ADDR is not set")
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "unix" && (u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "") {
		// The address itself is not shown: it may hold a password.
		return "", notServer()
	}
	return address, nil
}

const hintSetAddress = "set VAULT_ADDR=https://HOST:8200"

func notServer() *sources.Error {
	return sources.Errorf(sources.Invalid, hintSetAddress, "cannot be read: VAULT_ADDR is not the URL of a server")
}

func tlsOf(settings sources.Settings) (*api.TLSConfig, error) {
	config := &api.TLSConfig{
		CACert:        settings.Getenv("VAULT_CACERT"),
		CACertBytes:   []byte(settings.Getenv("VAULT_CACERT_BYTES")),
		CAPath:        settings.Getenv("VAULT_CAPATH"),
		ClientCert:    settings.Getenv("VAULT_CLIENT_CERT"),
		ClientKey:     settings.Getenv("VAULT_CLIENT_KEY"),
		TLSServerName: settings.Getenv("VAULT_TLS_SERVER_NAME"),
	}
	if (config.ClientCert == "") != (config.ClientKey == "") {
		return nil, sources.Errorf(sources.Invalid, "set both, or neither", "cannot be read: of VAULT_CLIENT_CERT and VAULT_CLIENT_KEY only one is set")
	}
	var err error
	config.Insecure, err = flag(settings, "VAULT_SKIP_VERIFY")
	return config, err
}

// checkRedirect follows a redirect on the same server alone: Go would send
// the token, in a header that it does not know as a credential, to any host.
func checkRedirect(next *http.Request, via []*http.Request) error {
	if origin := via[0].URL; len(via) > 3 || next.URL.Scheme != origin.Scheme || next.URL.Host != origin.Host {
		return http.ErrUseLastResponse
	}
	return nil
}

// bounded ends every answer that is larger than maxBody with an error.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.ContentLength > maxBody {
		_ = resp.Body.Close()
		return nil, &http.MaxBytesError{Limit: maxBody}
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxBody)
	return resp, nil
}

func (c *client) withNamespace(namespace string) *client {
	namespace = strings.Trim(namespace, "/")
	return &client{api: c.api.WithNamespace(namespace), namespace: namespace, transport: c.transport}
}

type request struct {
	method string
	// path is an API path without /v1/.
	path  string
	query url.Values
	// body is sent as JSON; nil for none.
	body any
	// token is sent instead of the session's; empty for that.
	token string
	// creates: there may be something to revoke once it is done.
	creates bool
}

// answer is what the server said, whatever its status.
type answer struct {
	status int
	header http.Header
	body   []byte
	// messages are Vault's own error strings. They may quote what was sent:
	// they are compared with known phrases, and never shown.
	messages []string
	// leased: something that lives no longer than the token came with it.
	leased bool
}

// do sends one request. Its errors are those of the connection.
func (c *client) do(ctx context.Context, r request) (*answer, error) {
	req := c.api.NewRequest(r.method, "/v1/"+r.path)
	if r.query != nil {
		req.Params = r.query
	}
	if r.token != "" {
		req.ClientToken = r.token
	}
	if r.body != nil {
		if err := req.SetJSONBody(r.body); err != nil {
			return nil, sources.Errorf(sources.Invalid, "write the parameters in UTF-8", "cannot be read: a parameter cannot be written as JSON")
		}
	}
	sending := ctx
	if r.creates {
		var done context.CancelFunc
		sending, done = linger(ctx)
		defer done()
	}
	resp, err := c.api.RawRequestWithContext(sending, req)
	if resp != nil {
		defer resp.Body.Close()
	}
	said, isAnswer := errors.AsType[*api.ResponseError](err)
	if err != nil && !isAnswer {
		return nil, c.connectionError(ctx, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, c.connectionError(ctx, err)
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, body: body}
	if said != nil {
		a.messages = said.Errors
	}
	return a, nil
}
