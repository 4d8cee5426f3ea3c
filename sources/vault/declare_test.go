package vault_test

import (
	"strings"
	"testing"

	"secret-init/sources"
	"secret-init/sources/vault"
)

func TestCheck(t *testing.T) {
	registry := sources.NewRegistry(vault.Backend)
	for ref, path := range map[string]string{
		"vault:secret/db#p":                         "secret/db",
		"vault:/secret/db/":                         "secret/db",
		"vault:secret/a%3Fb":                        "secret/a?b",
		"vault:secret/db?version=3&namespace=team":  "secret/db",
		"vault:pki/issue/web?method=write&ttl=1h":   "pki/issue/web",
		"vault:x/y?method=write&version=latest&a=b": "x/y",
	} {
		parsed, err := registry.Parse(ref)
		if err != nil || parsed.Path != path {
			t.Errorf("%s: path %q, error %v", ref, parsed.Path, err)
		}
	}
	for ref, want := range map[string]string{
		"vault://secret/db":              "begins with //",
		"vault:secret//db":               "empty part",
		"vault:secret/../db":             ". or ..",
		"vault:secret/./db":              ". or ..",
		"vault:secret":                   "names a mount",
		"vault:/":                        "empty part",
		"vault:v1/secret/data/db":        "prefix v1/",
		"vault:secret/db?version=0":      `parameter "version" does not take "0"`,
		"vault:secret/db?version=+1":     `parameter "version" does not take "+1"`,
		"vault:secret/db?version=new":    `parameter "version" does not take "new"`,
		"vault:secret/db?method=post":    `parameter "method" does not take "post"`,
		"vault:secret/db?namespace=":     `parameter "namespace" is empty`,
		"vault:secret/db?ttl=1h":         `unknown parameter "ttl"`,
		"vault:x/y?method=read&field=1x": `unknown parameter "field"`,
	} {
		if _, err := registry.Parse(ref); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", ref, err, want)
		}
	}
}

// FuzzCheck: what is accepted is canonical, and printed as it would be
// parsed to the same.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{"vault:secret/db#p", "vault:/a/b/?version=2", "vault:a/b?method=write&x=y%26", "vault://", "vault:a%2F/b"} {
		f.Add(seed)
	}
	registry := sources.NewRegistry(vault.Backend)
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := registry.Parse(s)
		if err != nil {
			return
		}
		again, err := registry.Parse(ref.String())
		if err != nil || again.String() != ref.String() || again.Path != ref.Path {
			t.Errorf("%q became %q, and then %q (error %v)", s, ref, again, err)
		}
		if strings.HasPrefix(ref.Path, "/") || strings.HasSuffix(ref.Path, "/") || !strings.Contains(ref.Path, "/") {
			t.Errorf("%q has the path %q", s, ref.Path)
		}
	})
}
