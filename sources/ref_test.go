package sources

import (
	"maps"
	"reflect"
	"strings"
	"testing"
)

func TestParseRef(t *testing.T) {
	tests := []struct {
		in   string
		want Ref
	}{
		{"vault:secret/db", Ref{Scheme: "vault", Path: "secret/db"}},
		{"vault:secret/db#password", Ref{Scheme: "vault", Path: "secret/db", Key: "password"}},
		{"vault:secret/db?version=3#/a/b/0", Ref{Scheme: "vault", Path: "secret/db", Params: map[string]string{"version": "3"}, Key: "/a/b/0"}},
		{"vault:secret/db?a=1&b=2", Ref{Scheme: "vault", Path: "secret/db", Params: map[string]string{"a": "1", "b": "2"}}},
		{"aws-sm:arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-AbCdEf:password::", Ref{Scheme: "aws-sm", Path: "arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-AbCdEf:password::"}},
		{"sops:/etc/app/secrets.enc.yaml#/tls/key", Ref{Scheme: "sops", Path: "/etc/app/secrets.enc.yaml", Key: "/tls/key"}},
		{"vault:a%3Fb%23c%25d", Ref{Scheme: "vault", Path: "a?b#c%d"}},
		{"vault:a+b?p=c+d", Ref{Scheme: "vault", Path: "a+b", Params: map[string]string{"p": "c+d"}}},
		{"vault:a?p=x%26y%23z%25%7D", Ref{Scheme: "vault", Path: "a", Params: map[string]string{"p": "x&y#z%}"}}},
		{"vault:a?p=b=c", Ref{Scheme: "vault", Path: "a", Params: map[string]string{"p": "b=c"}}},
		{"vault:a?p=", Ref{Scheme: "vault", Path: "a", Params: map[string]string{"p": ""}}},
		{"vault:a?p=b?c", Ref{Scheme: "vault", Path: "a", Params: map[string]string{"p": "b?c"}}},
		// A key is taken as it is written.
		{"vault:a#b#c?d=e%20", Ref{Scheme: "vault", Path: "a", Key: "b#c?d=e%20"}},
		{"Vault:a", Ref{Scheme: "Vault", Path: "a"}},
		{"x9-y:z", Ref{Scheme: "x9-y", Path: "z"}},
	}
	for _, test := range tests {
		got, err := ParseRef(test.in)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %#v, %v", test.in, got, err)
			continue
		}
		again, err := ParseRef(got.String())
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s: printed as %s, parsed as %#v, %v", test.in, got, again, err)
		}
	}
}

func TestParseRefErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                 "not a reference",
		"vault":            "not a reference",
		":a":               "not a reference",
		"9vault:a":         "not a reference",
		"-vault:a":         "not a reference",
		"va_ult:a":         "not a reference",
		"vault:":           "the path is empty",
		"vault:?a=b":       "the path is empty",
		"vault:#a":         "the path is empty",
		"vault:a#":         "nothing follows the #",
		"vault:a?":         "not of the form name=value",
		"vault:a?b":        "not of the form name=value",
		"vault:a?=b":       "not of the form name=value",
		"vault:a?b=c&":     "not of the form name=value",
		"vault:a?b=1&b=2":  "given twice",
		"vault:a%":         "percent-encoding",
		"vault:a?b=%zz":    "percent-encoding",
		"vault:a?%zz=b":    "percent-encoding",
		"vault:a%00":       "NUL",
		"vault:a#b\x00":    "NUL",
		"vault:a?b=c&%62=": "given twice",
	} {
		if _, err := ParseRef(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestRefDocument(t *testing.T) {
	ref, err := ParseRef("vault:secret/db?optional=true&decode=base64&encode=url&prefix=DB_&version=2#password")
	if err != nil {
		t.Fatal(err)
	}
	if got := ref.Document().String(); got != "vault:secret/db?version=2" {
		t.Errorf("document %s", got)
	}
	if !ref.Optional() || ref.Prefix() != "DB_" || ref.Name() != "vault secret/db" {
		t.Errorf("optional %v, prefix %q, name %q", ref.Optional(), ref.Prefix(), ref.Name())
	}
	plain := Ref{Scheme: "vault", Path: "a"}
	changed := plain.WithParam("version", "1")
	if plain.Params != nil || changed.String() != "vault:a?version=1" || changed.WithParam("version", "2").String() != "vault:a?version=2" || changed.Params["version"] != "1" {
		t.Errorf("WithParam changed its receiver: %v, %v", plain, changed)
	}
}

// FuzzParseRef: what parses prints as something that parses to the same.
func FuzzParseRef(f *testing.F) {
	for _, seed := range []string{"vault:secret/db?version=3#/a/b", "aws-sm:arn:aws:x:::y", "sops:a%3Fb%25#c#d", "vault:a?p=b=c%26&q=", "x:}%7D?a=}#}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		ref, err := ParseRef(in)
		if err != nil {
			return
		}
		again, err := ParseRef(ref.String())
		if err != nil || !reflect.DeepEqual(again, ref) {
			t.Fatalf("%q is %#v, printed as %q, which is %#v, %v", in, ref, ref.String(), again, err)
		}
	})
}

// FuzzRefString goes the other way: any reference that can be, prints as itself.
func FuzzRefString(f *testing.F) {
	f.Add("vault", "secret/db", "version", "3", "password")
	f.Add("aws-sm", "a?b#c%d}", "p&q=", "%&#}=", "#?")
	f.Fuzz(func(t *testing.T, scheme, path, name, value, key string) {
		if !validScheme(scheme) || path == "" || strings.ContainsRune(path+key, 0) {
			return
		}
		ref := Ref{Scheme: scheme, Path: path, Key: key}
		if name != "" {
			ref.Params = map[string]string{name: value}
		}
		got, err := ParseRef(ref.String())
		if err != nil || got.Scheme != scheme || got.Path != path || got.Key != key || !maps.Equal(got.Params, ref.Params) {
			t.Fatalf("%#v prints as %q, which is %#v, %v", ref, ref.String(), got, err)
		}
	})
}
