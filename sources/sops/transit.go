//go:build !no_sops

package sops

import (
	"net/http"

	"github.com/getsops/sops/v3/hcvault"
	vault "github.com/hashicorp/vault/api"
)

// maxTransitAnswer bounds what Vault may answer, in bytes: a data key is 32.
const maxTransitAnswer = 1 << 20

// prepareVault gives the key a client with the settings that the library's
// own would have (VAULT_CACERT and so on), and a guard in front of it.
func prepareVault(key *hcvault.MasterKey) {
	config := vault.DefaultConfig()
	if config.Error != nil {
		// The library fails on the same setting.
		return
	}
	config.HttpClient.Transport = guarded{config.HttpClient.Transport}
	hcvault.NewHTTPClient(config.HttpClient).ApplyToMasterKey(key)
}

// guarded takes the target out of a redirect to another server: Vault's
// client would send the token there.
type guarded struct{ http.RoundTripper }

func (g guarded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := g.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	to, err := response.Location()
	if err == nil && (to.Scheme != request.URL.Scheme || to.Host != request.URL.Host) {
		response.Header.Del("Location")
	}
	response.Body = http.MaxBytesReader(nil, response.Body, maxTransitAnswer)
	return response, nil
}
