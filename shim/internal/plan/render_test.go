package plan

import (
	"errors"
	"strings"
	"testing"

	"secret-init/sources"
)

const templateConfig = `
secrets:
  db_password: sops:f#p
  provided_one: sops:f#p
templates:
  app.conf:
    content: |
      password={{ secret "db_password" }}
      json={{ secret "db_password" | json }}
      url={{ secret "db_password" | urlquery }}
      shell={{ secret "db_password" | shellquote }}
      given={{ secret "provided_one" }}
    mode: "0440"
`

func TestRender(t *testing.T) {
	p := renderPlan(t, templateConfig)
	docs := map[string]string{"sops:f": `{"p": "it's <a> \"b\" & c+"}`}
	deliveries, _, err := p.Resolve(documents(t, docs), func(s Secret) (string, bool) { return "/given", s.Name == "provided_one" })
	if err != nil {
		t.Fatal(err)
	}
	want := `password=it's <a> "b" & c+
json="it's <a> \"b\" & c+"
url=it%27s%20%3Ca%3E%20%22b%22%20%26%20c%2B
shell='it'\''s <a> "b" & c+'
given=from the platform
`
	d := deliveries[len(deliveries)-1]
	if got := string(d.Content.Reveal()); d.Name != "app.conf" || d.Variable != "APP_CONF_FILE" || d.Mode != 0o440 || got != want {
		t.Errorf("%s %s %04o:\n%s", d.Name, d.Variable, d.Mode, got)
	}
}

func renderPlan(t *testing.T, config string) *Plan {
	t.Helper()
	p, err := New(Input{
		Registry:   testRegistry(),
		ReadConfig: func(string, bool) ([]byte, error) { return []byte(config), nil },
		ReadFile: func(path string) ([]byte, error) {
			if path == "/absent" {
				return nil, errors.New("no such file")
			}
			return []byte("from the platform"), nil
		},
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p
}

// TestRenderFaults also proves that no value gets into an error: the secret
// itself is the canary.
func TestRenderFaults(t *testing.T) {
	docs := map[string]string{"sops:f": `{"p": "` + canary + `"}`}
	tests := map[string]string{
		`{{ secret "db_pasword" }}`:                `line 1, column 3: there is no secret "db_pasword"`,
		`{{ secret (secret "db_password") }}`:      "line 1, column 3: it asks for a secret that there is not",
		`{{ index (secret "db_password") "x" }}`:   "cannot be rendered: line 1, column 3",
		`{{ (secret "db_password").Field }}`:       "cannot be rendered: line 1, column 11",
		`{{ printf "%d" (secret "db_password") }}`: "",
	}
	for text, want := range tests {
		p := renderPlan(t, "secrets:\n  db_password: sops:f#p\ntemplates:\n  t:\n    content: '"+text+"'\n")
		_, _, err := p.Resolve(documents(t, docs), func(Secret) (string, bool) { return "", false })
		if want == "" {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if text := said(err); strings.Contains(text, canary) {
			t.Errorf("the value is in %q", text)
		}
	}
}

func TestTemplateConfigFaults(t *testing.T) {
	tests := map[string]string{
		"templates:\n  t:\n    content: '{{ secret '\n":             "is not a template: line 1",
		"templates:\n  t:\n    content: '{{ nothing }}'\n":          "is not a template: line 1",
		"templates:\n  t:\n    source: /absent\n":                   "the template cannot be read: no such file",
		"templates:\n  t:\n    source: relative\n":                  `source "relative" is not an absolute path`,
		"templates:\n  t: {}\n":                                     "template t needs one of source and content",
		"templates:\n  t:\n    content: a\n    source: /b\n":        "template t needs one of source and content",
		"templates:\n  t:\n    content: a\n    from: sops:f#p\n":    `unknown key "from" in template t`,
		"secrets:\n  s:\n    from: sops:f#p\n    content: a\n":      `unknown key "content" in secret s`,
		"secrets:\n  s:\n    from: sops:f#p\n    expose: file\n":    `expose does not take "file"`,
		"secrets:\n  t: sops:f#p\ntemplates:\n  t: {content: a}":    "two secrets for one name t",
		"secrets:\n  s: sops:f#p\ntemplates:\n  ../t: {source: /a}": "cannot be the name of a file",
	}
	for config, want := range tests {
		_, err := New(Input{
			Registry:   testRegistry(),
			ReadConfig: func(string, bool) ([]byte, error) { return []byte(config), nil },
			ReadFile:   func(string) ([]byte, error) { return nil, errors.New("no such file") },
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", config, err, want)
		}
	}
}

func TestExpose(t *testing.T) {
	p := renderPlan(t, "secrets:\n  db_password:\n    from: sops:f#p\n    expose: env\n  other:\n    from: sops:f#p\n    expose: env\n    env: OTHER_NAME\n")
	docs := map[string]string{"sops:f": `{"p": "value"}`}
	deliveries, _, err := p.Resolve(documents(t, docs), func(s Secret) (string, bool) { return "/given", s.Name == "other" })
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, d := range deliveries {
		if !d.Expose {
			t.Errorf("%s would be a file", d.Name)
		}
		got[d.Variable] = string(d.Content.Reveal())
	}
	if got["DB_PASSWORD"] != "value" || got["OTHER_NAME"] != "from the platform" {
		t.Errorf("got %q", got)
	}
}

// A template is a value that an attacker of the config may write; a template
// that asks for another secret by name is what it is for.
func FuzzRender(f *testing.F) {
	f.Add(`{{ secret "a" }}`)
	f.Add(`{{ range . }}{{ end }}{{ secret "b" | json }}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRendering(text)
		if err != nil {
			return
		}
		if strings.Contains(text, "range") || strings.Contains(text, "template") || strings.Contains(text, "block") {
			// These may loop for ever, which is their author's to answer for.
			return
		}
		value, err := r.render(map[string]sources.Secret{"a": sources.NewSecret([]byte(canary))})
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("the value is in %q", err)
		}
		value.Wipe()
	})
}
