package plan

import (
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"secret-init/sources"
)

const hintTemplate = `write {{ secret "NAME" }}, perhaps with | json, | urlquery or | shellquote before the }}`

// rendering is a file for an application that cannot read one secret a file:
// a text/template that names secrets.
type rendering struct {
	text   string
	parsed *template.Template
}

// parseRendering compiles a template. secret looks a value up, when it runs.
func parseRendering(text string) (*rendering, error) {
	parsed, err := template.New("template").Funcs(functions(nil)).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, sources.Errorf(sources.Invalid, hintTemplate, "is not a template: %s", position(err))
	}
	return &rendering{text, parsed}, nil
}

// errNoSecret is for a name that a template asks for.
type errNoSecret struct{ name string }

func (errNoSecret) Error() string { return "no such secret" }

func functions(values map[string]sources.Secret) template.FuncMap {
	return template.FuncMap{
		"secret": func(name string) (string, error) {
			value, ok := values[name]
			if !ok {
				return "", errNoSecret{name}
			}
			return string(value.Reveal()), nil
		},
		"json": func(s string) (string, error) {
			var b strings.Builder
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			err := enc.Encode(s)
			return strings.TrimSuffix(b.String(), "\n"), err
		},
		// A blank is %20: a plus is one only in a form's data.
		"urlquery":   func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") },
		"shellquote": func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" },
	}
}

// render runs the template over the secrets. No error holds a value: a
// template's own errors may quote what it was working on, so that of those
// only the position is said.
func (r *rendering) render(values map[string]sources.Secret) (sources.Secret, error) {
	var b strings.Builder
	err := template.Must(r.parsed.Clone()).Funcs(functions(values)).Execute(&b, nil)
	if err == nil {
		return sources.NewSecret([]byte(b.String())), nil
	}
	missing, ok := errors.AsType[errNoSecret](err)
	if !ok {
		return sources.Secret{}, sources.Errorf(sources.Invalid, hintTemplate, "cannot be rendered: %s", position(err))
	}
	what := "it asks for a secret that there is not"
	// A name that is computed may be a value.
	if strings.Contains(r.text, `"`+missing.name+`"`) || strings.Contains(r.text, "`"+missing.name+"`") {
		what = "there is no secret " + quote(missing.name)
	}
	return sources.Secret{}, sources.Errorf(sources.NotFound, "known secrets: "+strings.Join(names(values), ", "), "%s: %s", position(err), what)
}

func names(values map[string]sources.Secret) []string {
	var list []string
	for name := range values {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

var templatePosition = regexp.MustCompile(`^template: template:(\d+)(?::(\d+))?:`)

// position is "line 3, column 5", or "line 3".
func position(err error) string {
	match := templatePosition.FindStringSubmatch(err.Error())
	switch {
	case match == nil:
		return "it is malformed"
	case match[2] == "":
		return "line " + match[1]
	}
	return "line " + match[1] + ", column " + match[2]
}
