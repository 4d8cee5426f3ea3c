package sources

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Ref is one reference to a secret: scheme:path[?param=value&...][#key].
type Ref struct {
	Scheme string
	// Path is percent-decoded.
	Path string
	// Params are percent-decoded; nil when there are none.
	Params map[string]string
	// Key selects one value of the document: a top-level key, taken
	// literally, or, when it starts with a slash, a JSON Pointer (RFC 6901).
	// Empty selects the whole document.
	Key string
}

// Parameters that every reference understands, whatever its source.
const (
	paramOptional = "optional"
	paramDecode   = "decode"
	paramEncode   = "encode"
	paramPrefix   = "prefix"
)

var sharedParams = []string{paramOptional, paramDecode, paramEncode, paramPrefix}

const (
	hintForm    = "write scheme:path[?param=value&...][#key], as in sops:/etc/app/secrets.yaml#password"
	hintPercent = "write %25 for a %"
)

// ParseRef splits a reference into its parts. It knows nothing of schemes:
// Registry.Parse also checks the scheme, the path and the parameters.
func ParseRef(s string) (Ref, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !validScheme(scheme) {
		return Ref{}, Errorf(Invalid, hintForm, "is not a reference")
	}
	head, key, hasKey := strings.Cut(rest, "#")
	if hasKey && key == "" {
		return Ref{}, Errorf(Invalid, "name a key, or leave the # out to get the whole document", "nothing follows the #")
	}
	rawPath, rawParams, hasParams := strings.Cut(head, "?")
	path, err := url.PathUnescape(rawPath)
	if err != nil {
		return Ref{}, Errorf(Invalid, hintPercent, "the path has a %% that is not percent-encoding")
	}
	if path == "" {
		return Ref{}, Errorf(Invalid, hintForm, "the path is empty")
	}
	ref := Ref{Scheme: scheme, Path: path, Key: key}
	if hasParams {
		if ref.Params, err = parseParams(rawParams); err != nil {
			return Ref{}, err
		}
	}
	for _, part := range []string{ref.Path, ref.Key} {
		if strings.ContainsRune(part, 0) {
			return Ref{}, Errorf(Invalid, "leave it out", "it has a NUL byte")
		}
	}
	return ref, nil
}

func parseParams(raw string) (map[string]string, error) {
	params := map[string]string{}
	for _, pair := range strings.Split(raw, "&") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, Errorf(Invalid, hintForm, "parameter %q is not of the form name=value", pair)
		}
		// PathUnescape, not QueryUnescape: a plus is a plus.
		name, err := url.PathUnescape(name)
		if err != nil {
			return nil, Errorf(Invalid, hintPercent, "a parameter's name has a %% that is not percent-encoding")
		}
		value, err = url.PathUnescape(value)
		if err != nil {
			return nil, Errorf(Invalid, hintPercent, "parameter %q has a %% that is not percent-encoding", name)
		}
		if _, twice := params[name]; twice {
			return nil, Errorf(Invalid, "leave one of them out", "parameter %q is given twice", name)
		}
		params[name] = value
	}
	return params, nil
}

func validScheme(s string) bool {
	for i, c := range s {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}

var (
	pathEscaper  = strings.NewReplacer("%", "%25", "?", "%3F", "#", "%23", "}", "%7D")
	paramEscaper = strings.NewReplacer("%", "%25", "&", "%26", "#", "%23", "}", "%7D", "=", "%3D")
)

// String spells the reference so that ParseRef gives it back.
func (r Ref) String() string {
	var b strings.Builder
	b.WriteString(r.Scheme)
	b.WriteByte(':')
	b.WriteString(pathEscaper.Replace(r.Path))
	for i, name := range slices.Sorted(maps.Keys(r.Params)) {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(paramEscaper.Replace(name))
		b.WriteByte('=')
		b.WriteString(paramEscaper.Replace(r.Params[name]))
	}
	if r.Key != "" {
		b.WriteByte('#')
		b.WriteString(r.Key)
	}
	return b.String()
}

// Name is how messages call the document: "vault secret/db".
func (r Ref) Name() string { return r.Scheme + " " + r.Path }

// Document is the reference to the whole document that r points into: what
// is read once, however many references select from it.
func (r Ref) Document() Ref {
	doc := Ref{Scheme: r.Scheme, Path: r.Path}
	for name, value := range r.Params {
		if slices.Contains(sharedParams, name) {
			continue
		}
		if doc.Params == nil {
			doc.Params = map[string]string{}
		}
		doc.Params[name] = value
	}
	return doc
}

// Optional reports whether a document or key that does not exist is no error.
func (r Ref) Optional() bool { return r.Params[paramOptional] == "true" }

// Prefix is what --from puts before every name.
func (r Ref) Prefix() string { return r.Params[paramPrefix] }

// WithParam is a copy of r with one parameter set.
func (r Ref) WithParam(name, value string) Ref {
	params := maps.Clone(r.Params)
	if params == nil {
		params = map[string]string{}
	}
	params[name] = value
	r.Params = params
	return r
}
