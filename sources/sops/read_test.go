//go:build !no_sops

package sops

import (
	"testing"

	"secret-init/sources"
)

func TestCheck(t *testing.T) {
	registry := sources.NewRegistry(Backend)
	for spelled, want := range map[string]string{
		"sops:/etc/app/../app/secrets.enc.yaml#/db/password": "sops:/etc/app/secrets.enc.yaml#/db/password",
		"sops:./secrets.yaml":                                "sops:secrets.yaml",
		"sops:secrets?format=dotenv#A":                       "sops:secrets?format=dotenv#A",
	} {
		ref, err := registry.Parse(spelled)
		if err != nil || ref.String() != want {
			t.Errorf("%s: got %s, %v; want %s", spelled, ref, err, want)
		}
	}
	_, err := registry.Parse("sops:secrets?format=toml")
	if err == nil || err.Error() != `sops:secrets?format=toml: unknown format "toml"` || sources.HintOf(err) != "it takes: yaml, json, dotenv, ini, binary" {
		t.Errorf("%v, hint %q", err, sources.HintOf(err))
	}
}

func TestFormatOf(t *testing.T) {
	for path, want := range map[string]string{
		"a.yaml": "yaml", "a.yml": "yaml", "a.enc.yaml": "yaml", "a.sops.json": "json", "a.json": "json", ".env": "dotenv",
		"prod.env": "dotenv", "a.ini": "ini", "a": "binary", "a.yaml.enc": "binary", "a.YAML": "binary", "dir.yaml/a": "binary",
	} {
		if got := formatOf(sources.Ref{Path: path}); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	if got := formatOf(sources.Ref{Path: "a.yaml", Params: map[string]string{"format": "json"}}); got != "json" {
		t.Errorf("?format= does not win: %s", got)
	}
}
