//go:build !no_vault

package vault

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"secret-init/sources"
)

// mount is where a secrets engine answers.
type mount struct {
	// known is false where Vault would not tell: paths are then read as written.
	known bool
	// path ends with a slash, and begins with the namespaces that the
	// reference spells.
	path string
	kv2  bool
}

// mountKey is a mount's path, or the first part of one, in a namespace.
type mountKey struct{ namespace, path string }

// apiPath is the path to read for path as `vault kv get` takes it. On a KV
// version 2 mount the values lie under data/.
func (m mount) apiPath(path string) string {
	rest, ok := strings.CutPrefix(path, m.path)
	if !m.kv2 || !ok || strings.HasPrefix(rest, "data/") {
		return path
	}
	return m.path + "data/" + rest
}

// kvPath is the path of a KV version 2 document as the command line takes it.
func (m mount) kvPath(apiPath string) string {
	if rest, ok := strings.CutPrefix(apiPath, m.path+"data/"); m.kv2 && ok {
		return m.path + rest
	}
	return apiPath
}

// mountOf finds path's mount. Vault tells it to any token that may do
// something beneath the mount, as the vault command's own kv preflight asks:
// https://github.com/hashicorp/vault/blob/v1.13.0/command/kv_helpers.go
//
// Paths with one first part wait for each other, so that several documents of
// a mount look it up once.
func (s *source) mountOf(ctx context.Context, client *client, path string) (mount, error) {
	first, _, _ := strings.Cut(path, "/")
	g := s.gateOf(mountKey{client.namespace, first})
	if err := g.enter(ctx); err != nil {
		return mount{}, err
	}
	defer g.leave()
	if m, ok := s.knownMount(client.namespace, path); ok {
		return m, nil
	}
	m, err := lookUpMount(ctx, client, path)
	if err == nil && m.known {
		s.mu.Lock()
		s.mounts[mountKey{client.namespace, m.path}] = m
		s.mu.Unlock()
	}
	return m, err
}

func (s *source) gateOf(key mountKey) gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gates[key] == nil {
		s.gates[key] = newGate()
	}
	return s.gates[key]
}

// knownMount relies on Vault's rule that no mount lies beneath another.
func (s *source) knownMount(namespace, path string) (mount, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, m := range s.mounts {
		if key.namespace == namespace && strings.HasPrefix(path, key.path) {
			return m, true
		}
	}
	return mount{}, false
}

func lookUpMount(ctx context.Context, client *client, path string) (mount, error) {
	answer, err := client.do(ctx, request{method: http.MethodGet, path: "sys/internal/ui/mounts/" + path})
	if err != nil {
		return mount{}, err
	}
	switch {
	case answer.status == http.StatusForbidden, answer.status == http.StatusNotFound:
		// Nothing is mounted there, or a wrong token, or a server that does
		// not know the question: the read itself will tell.
		return mount{}, nil
	case answer.status >= 300:
		return mount{}, operation{path: path, asked: path}.failed(answer)
	}
	var told struct {
		Data struct {
			Path    string            `json:"path"`
			Options map[string]string `json:"options"`
		} `json:"data"`
	}
	if json.Unmarshal(answer.body, &told) != nil || told.Data.Path == "" {
		return mount{}, sources.Errorf(sources.Invalid, hintAddress, "cannot be read: what answers at VAULT_ADDR is not Vault")
	}
	m := mount{known: true, path: told.Data.Path, kv2: told.Data.Options["version"] == "2"}
	// The answer spells namespaces that the path, in a client of that
	// namespace, does not.
	for !strings.HasPrefix(path+"/", m.path) {
		var ok bool
		if _, m.path, ok = strings.Cut(m.path, "/"); !ok || m.path == "" {
			return mount{}, nil
		}
	}
	return m, nil
}
