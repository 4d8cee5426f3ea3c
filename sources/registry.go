package sources

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// Source reads documents from one secret store. Its methods are safe for
// concurrent use. It neither retries nor caches documents: Fetcher does.
type Source interface {
	// Fetch reads one document. doc has no key and none of the parameters
	// that all sources share. Every error is an *Error.
	Fetch(ctx context.Context, doc Ref) (*Document, error)
	// Close ends the session: it gives up what the source itself obtained
	// (a login token, for example), within ctx.
	Close(ctx context.Context) error
}

// Batcher is a Source that reads several documents with one request.
type Batcher interface {
	Source
	// Group splits docs into the sets that go out together.
	Group(docs []Ref) [][]Ref
	// FetchGroup reads one such set. results[i] belongs to docs[i].
	FetchGroup(ctx context.Context, docs []Ref) (results []Result)
}

// Result is the outcome for one document: either Document or Err is set.
type Result struct {
	Document *Document
	Err      error
}

// Variable is an environment variable that holds one of a source's own
// credentials.
type Variable struct {
	Name string
	// Shared: the application often needs it too, so the command keeps it.
	Shared bool
}

// Backend declares a source: all that the rest of the program knows of it.
type Backend struct {
	Scheme string
	// Params are the query parameters it understands.
	Params []string
	// AnyParam reports whether this reference takes further parameters of
	// the user's own; nil means none does.
	AnyParam func(Ref) bool
	// Credentials are the variables with its own credentials: references in
	// them are resolved in memory, and the command does not inherit them.
	Credentials []Variable
	// CredentialFiles are the variables that name a file with such a
	// credential, of this source alone: check warns when the command could
	// read it, since dropping the variable does not help then.
	CredentialFiles []string
	// NeedsSlash: in the environment only a path with a slash is a
	// reference ("vault:8200" is a host and a port).
	NeedsSlash bool
	// ConfigOnly: references in the environment are ordinary values.
	ConfigOnly bool
	// InPlace reports whether the members of this document are files already,
	// so that --from writes none; nil means never. It may look at the disk.
	InPlace func(Ref) bool
	// Check validates a parsed reference and returns its canonical form,
	// without any input or output; nil accepts all.
	Check func(Ref) (Ref, error) // its errors are of type *Error
	// Open makes a Source, without touching the network or reading
	// settings from disk: the first Fetch does that. It is nil in a build
	// that leaves the backend out.
	Open func(Settings) (Source, error)
}

// Settings is what a source gets from its surroundings.
type Settings struct {
	// Getenv reads a setting, with credentials already resolved.
	Getenv func(string) string
	// Warn reports something that does not stop the start; never a value.
	Warn func(string)
}

// Registry knows the backends by their schemes.
type Registry struct{ backends []Backend }

// NewRegistry makes a registry of backends. Two of one scheme are a mistake
// in the program, so it panics.
func NewRegistry(backends ...Backend) *Registry {
	r := &Registry{}
	for _, b := range backends {
		if _, twice := r.Backend(b.Scheme); twice {
			panic("sources: two backends for the scheme " + b.Scheme)
		}
		r.backends = append(r.backends, b)
	}
	return r
}

// Backend looks up a scheme.
func (r *Registry) Backend(scheme string) (Backend, bool) {
	i := slices.IndexFunc(r.backends, func(b Backend) bool { return b.Scheme == scheme })
	if i < 0 {
		return Backend{}, false
	}
	return r.backends[i], true
}

// Backends lists all, in the order of registration.
func (r *Registry) Backends() []Backend { return slices.Clone(r.backends) }

// Schemes lists the schemes that this build can fetch from.
func (r *Registry) Schemes() []string {
	var names []string
	for _, b := range r.backends {
		if b.Open != nil {
			names = append(names, b.Scheme)
		}
	}
	return names
}

// Parse parses a reference and checks its scheme and its parameters. Its
// errors are of class Invalid, with the reference as their subject.
func (r *Registry) Parse(s string) (Ref, error) {
	ref, err := r.parse(s)
	if err == nil {
		return ref, nil
	}
	e := err.(*Error)
	e.Subject = s + ":"
	return Ref{}, e
}

func (r *Registry) parse(s string) (Ref, error) {
	ref, err := ParseRef(s)
	if err != nil {
		return Ref{}, err
	}
	b, ok := r.Backend(ref.Scheme)
	if !ok {
		return Ref{}, Errorf(Invalid, "known schemes: "+strings.Join(r.Schemes(), ", "), "unknown scheme %q", ref.Scheme)
	}
	for _, name := range slices.Sorted(maps.Keys(ref.Params)) {
		if err := checkParam(b, ref, name, ref.Params[name]); err != nil {
			return Ref{}, err
		}
	}
	if b.Check == nil {
		return ref, nil
	}
	return b.Check(ref)
}

func checkParam(b Backend, ref Ref, name, value string) error {
	allowed := map[string][]string{
		paramOptional: {"true", "false"},
		paramDecode:   {"base64"},
		paramEncode:   {"url", "json"},
	}
	if values, ok := allowed[name]; ok {
		if slices.Contains(values, value) {
			return nil
		}
		return Errorf(Invalid, "it takes: "+strings.Join(values, ", "), "parameter %q does not take %q", name, value)
	}
	if name == paramPrefix || slices.Contains(b.Params, name) || b.AnyParam != nil && b.AnyParam(ref) {
		return nil
	}
	known := append(slices.Clone(b.Params), paramOptional, paramDecode, paramEncode)
	return Errorf(Invalid, "it takes: "+strings.Join(known, ", "), "unknown parameter %q", name)
}
