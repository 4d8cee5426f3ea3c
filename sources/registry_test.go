package sources

import (
	"strings"
	"testing"
)

func opens(Settings) (Source, error) { return nil, nil }

func testRegistry() *Registry {
	return NewRegistry(
		Backend{Scheme: "vault", Params: []string{"version", "method"}, Open: opens,
			AnyParam: func(ref Ref) bool { return ref.Params["method"] == "write" }},
		Backend{Scheme: "sops", Params: []string{"format"}, Open: opens, Check: func(ref Ref) (Ref, error) {
			if ref.Path == "bad" {
				return ref, Errorf(Invalid, "a hint", "is bad")
			}
			ref.Path = strings.TrimPrefix(ref.Path, "./")
			return ref, nil
		}},
		Backend{Scheme: "left-out"},
	)
}

func TestRegistryParse(t *testing.T) {
	for in, want := range map[string]string{
		"vault:a?version=1&optional=false&decode=base64&encode=json&prefix=X#k": "vault:a?decode=base64&encode=json&optional=false&prefix=X&version=1#k",
		"vault:a?method=write&anything=else":                                    "vault:a?anything=else&method=write",
		"sops:./a?format=x":                                                     "sops:a?format=x",
		"left-out:a":                                                            "left-out:a",
	} {
		if ref, err := testRegistry().Parse(in); err != nil || ref.String() != want {
			t.Errorf("%s: got %s, %v; want %s", in, ref, err, want)
		}
	}
}

func TestRegistryParseErrors(t *testing.T) {
	for in, want := range map[string][2]string{
		"nonsense":           {"nonsense: is not a reference", "write scheme:path[?param=value&...][#key], as in sops:/etc/app/secrets.yaml#password"},
		"vualt:a":            {`vualt:a: unknown scheme "vualt"`, "known schemes: vault, sops"},
		"VAULT:a":            {`VAULT:a: unknown scheme "VAULT"`, "known schemes: vault, sops"},
		"vault:a?verison=1":  {`vault:a?verison=1: unknown parameter "verison"`, "it takes: version, method, optional, decode, encode"},
		"sops:a?version=1":   {`sops:a?version=1: unknown parameter "version"`, "it takes: format, optional, decode, encode"},
		"vault:a?optional=1": {`vault:a?optional=1: parameter "optional" does not take "1"`, "it takes: true, false"},
		"vault:a?decode=hex": {`vault:a?decode=hex: parameter "decode" does not take "hex"`, "it takes: base64"},
		"vault:a?encode=xml": {`vault:a?encode=xml: parameter "encode" does not take "xml"`, "it takes: url, json"},
		"sops:bad":           {"sops:bad: is bad", "a hint"},
	} {
		_, err := testRegistry().Parse(in)
		if err == nil || ClassOf(err) != Invalid || err.Error() != want[0] || HintOf(err) != want[1] {
			t.Errorf("%s: %v, hint %q", in, err, HintOf(err))
		}
	}
}

func TestRegistryTable(t *testing.T) {
	registry := testRegistry()
	if got := strings.Join(registry.Schemes(), " "); got != "vault sops" {
		t.Errorf("schemes that can be fetched from: %s", got)
	}
	all := registry.Backends()
	if len(all) != 3 || all[2].Scheme != "left-out" {
		t.Errorf("%d backends", len(all))
	}
	all[0].Scheme = "changed"
	if _, ok := registry.Backend("vault"); !ok {
		t.Error("Backends gives the registry's own table away")
	}
	if _, ok := registry.Backend("file"); ok {
		t.Error("a scheme that nobody registered is known")
	}
	defer func() {
		if r := recover(); r != "sources: two backends for the scheme a" {
			t.Errorf("two backends of one scheme: %v", r)
		}
	}()
	NewRegistry(Backend{Scheme: "a"}, Backend{Scheme: "b"}, Backend{Scheme: "a"})
}
