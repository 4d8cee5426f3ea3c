package plan

import (
	"slices"
	"strings"

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
			return rest != "" && rest[0] != ' ' && (!b.NeedsSlash || strings.Contains(path(rest), "/"))
		}
	}
	return false
}

func path(rest string) string {
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		return rest[:i]
	}
	return rest
}

// nearMiss says what is wrong with a value that would be a reference but for
// quotes, blanks, letter case or one wrong letter in the scheme. It is empty
// for an ordinary value. meant is the reference that was probably meant.
func (g grammar) nearMiss(value string) (wrong, meant string) {
	plain := strings.Trim(value, " \t\r\n\"'`")
	scheme, rest, ok := strings.Cut(plain, ":")
	if !ok || strings.ContainsAny(plain, "\n\r") {
		return "", ""
	}
	trimmed := strings.TrimLeft(rest, " \t")
	lower := strings.ToLower(strings.TrimRight(scheme, " \t"))
	for _, b := range g.schemes() {
		meant = b.Scheme + ":" + trimmed
		if !g.isReference(meant) {
			continue
		}
		switch {
		case lower != b.Scheme && (distance(lower, b.Scheme) > 1 || !strings.Contains(path(trimmed), "/") || g.knows(lower)):
			continue
		case lower != b.Scheme:
			return "the scheme " + quote(scheme) + " is one letter away from " + b.Scheme, meant
		case strings.ContainsAny(value[:1]+value[len(value)-1:], "\"'`"):
			return "the reference has quotes around it, which are part of the value here", meant
		case scheme != strings.ToLower(scheme):
			return "a scheme is written in lower case", meant
		case value != meant:
			return "the reference has blanks around or in it", meant
		}
	}
	return "", ""
}

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
		return nil, sources.Errorf(sources.Invalid, "write "+meant, "%s", wrong)
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
				return nil, sources.Errorf(sources.Invalid, "write ${"+meant+"}", "in ${%s}: %s", inner, wrong)
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
		return ref, sources.Errorf(sources.Invalid, "leave it out, or use --from", "%s: prefix belongs to --from", text)
	}
	return ref, err
}
