package plan

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"secret-init/sources"
)

// Template is a value before its references are resolved. A plain reference
// is a template of one part; a composite has literal parts around them.
type Template []Part

// Part is either literal text or a reference.
type Part struct {
	Literal string
	Ref     *sources.Ref
}

// Refs lists the template's references.
func (t Template) Refs() []sources.Ref {
	var refs []sources.Ref
	for _, part := range t {
		if part.Ref != nil {
			refs = append(refs, *part.Ref)
		}
	}
	return refs
}

// String shows the references alone: what stands around them in a composite
// may be half of a secret.
func (t Template) String() string {
	var texts []string
	for _, ref := range t.Refs() {
		texts = append(texts, ref.String())
	}
	return strings.Join(texts, ", ")
}

// grammar recognises references in values: the environment's, where an
// ordinary value must never be mistaken for one, or the config file's.
type grammar struct {
	registry *sources.Registry
	inConfig bool
}

// schemes that trigger here.
func (g grammar) schemes() []sources.Backend {
	return slices.DeleteFunc(g.registry.Backends(), func(b sources.Backend) bool { return b.ConfigOnly && !g.inConfig })
}

// isReference reports whether the whole value has the form of a reference.
// Whether it is a valid one is another question.
func (g grammar) isReference(value string) bool {
	scheme, rest, ok := strings.Cut(value, ":")
	if !ok || strings.ContainsAny(value, "\n\r") {
		return false
	}
	for _, b := range g.schemes() {
		if b.Scheme == scheme {
			return rest != "" && strings.IndexFunc(rest, blank) != 0 && (!b.NeedsSlash || strings.Contains(path(rest), "/"))
		}
	}
	return false
}

// blank also knows the invisible ones that come with copied text.
func blank(c rune) bool { return unicode.IsSpace(c) || c == '\u200b' || c == '\ufeff' }

func quoteMark(c rune) bool { return strings.ContainsRune("\"'`\u201c\u201d\u2018\u2019", c) }

func path(rest string) string {
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		return rest[:i]
	}
	return rest
}

// nearMiss says what is wrong with a value that would be a reference but for
// quotes, blanks, letter case or one wrong letter in the scheme. It is empty
// for an ordinary value. meant is the reference that was probably meant.
//
// A sentence ("Vault: see https://...") and a shell's default
// (${VAULT:-a/b}) are ordinary values, and so is the URL of another scheme.
func (g grammar) nearMiss(value string) (wrong, meant string) {
	plain := strings.TrimFunc(value, func(c rune) bool { return blank(c) || quoteMark(c) })
	scheme, rest, ok := strings.Cut(plain, ":")
	if !ok || strings.ContainsAny(plain, "\n\r") {
		return "", ""
	}
	scheme, trimmed := strings.TrimRightFunc(scheme, blank), strings.TrimLeftFunc(rest, blank)
	if strings.IndexFunc(path(trimmed), blank) >= 0 || trimmed != "" && strings.ContainsRune("-=+?", rune(trimmed[0])) {
		return "", ""
	}
	lower := strings.ToLower(scheme)
	for _, b := range g.schemes() {
		meant = b.Scheme + ":" + trimmed
		if !g.isReference(meant) {
			continue
		}
		switch {
		case lower != b.Scheme && (!oneLetter(lower, b.Scheme) || !strings.Contains(path(trimmed), "/") || strings.HasPrefix(trimmed, "//") || g.knows(lower)):
			continue
		case lower != b.Scheme:
			return "the scheme " + quote(scheme) + " is one letter away from " + b.Scheme, meant
		case quoted(value):
			return "the reference has quotes around it, which are part of the value here", meant
		case scheme != lower:
			return "a scheme is written in lower case", meant
		case value != meant:
			return "the reference has blanks around or in it", meant
		}
	}
	return "", ""
}

// oneLetter: a is b with one letter wrong, missing, too many, or swapped with its neighbour.
func oneLetter(a, b string) bool {
	foreign := func(c rune) bool { return c != '-' && c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') }
	return !strings.ContainsFunc(a, foreign) && !strings.HasPrefix(a, "-") && distance(a, b) == 1
}

func quoted(value string) bool {
	trimmed := strings.TrimFunc(value, blank)
	return trimmed != strings.TrimFunc(trimmed, quoteMark)
}

// missed is the error for a near miss.
func missed(value, wrong, meant string) error {
	if !quoted(value) && strings.ContainsFunc(value, blank) {
		value = strconv.Quote(value)
	}
	return sources.Errorf(sources.Invalid, "write "+withoutLogin(meant), "%s: %s", withoutLogin(value), wrong)
}

var login = regexp.MustCompile(`//[^/]*@`)

// withoutLogin hides who logs in and how, should a URL have been taken for a reference.
func withoutLogin(text string) string { return login.ReplaceAllString(text, "//...@") }

// knows any backend of that scheme, whether it triggers here or not.
func (g grammar) knows(scheme string) bool {
	_, ok := g.registry.Backend(scheme)
	return ok
}

func quote(s string) string { return `"` + s + `"` }

// parse reads a value. It is nil for an ordinary one, which has neither a
// reference nor an escape in it.
func (g grammar) parse(value string) (Template, error) {
	if g.isReference(value) {
		ref, err := g.reference(value)
		if err != nil {
			return nil, err
		}
		return Template{{Ref: &ref}}, nil
	}
	if wrong, meant := g.nearMiss(value); wrong != "" {
		return nil, missed(value, wrong, meant)
	}
	return g.composite(value)
}

// composite reads a value with ${scheme:...} in it. $${scheme: stands for a
// literal ${scheme: and any other ${ for itself.
func (g grammar) composite(value string) (Template, error) {
	var parts Template
	literal := ""
	found := false
	for rest := value; rest != ""; {
		before, after, ok := strings.Cut(rest, "${")
		literal += before
		if !ok {
			break
		}
		inner, tail, closed := strings.Cut(after, "}")
		switch {
		case !g.isReference(inner):
			if wrong, meant := g.nearMiss(inner); wrong != "" && closed {
				return nil, missed("${"+inner+"}", wrong, "${"+meant+"}")
			}
			literal += "${"
			rest = after
		case strings.HasSuffix(literal, "$"):
			literal += "{"
			rest, found = after, true
		case !closed:
			return nil, sources.Errorf(sources.Invalid, "close it with }, or write $${ for a literal ${", "a ${ before a reference is not closed")
		default:
			ref, err := g.reference(inner)
			if err != nil {
				return nil, err
			}
			if literal != "" {
				parts = append(parts, Part{Literal: literal})
			}
			parts = append(parts, Part{Ref: &ref})
			literal, rest, found = "", tail, true
		}
	}
	if !found {
		return nil, nil
	}
	if literal != "" {
		parts = append(parts, Part{Literal: literal})
	}
	return parts, nil
}

func (g grammar) reference(text string) (sources.Ref, error) {
	ref, err := g.registry.Parse(text)
	if err == nil && ref.Prefix() != "" {
		err = sources.Errorf(sources.Invalid, "leave it out, or use --from", "%s: prefix belongs to --from", text)
	}
	if e, ok := err.(*sources.Error); ok {
		e.Subject, e.What = withoutLogin(e.Subject), withoutLogin(e.What)
	}
	return ref, err
}
