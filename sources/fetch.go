package sources

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Limits of one Fetcher. The figures are ours: enough to hide a slow
// server's latency, few enough not to be throttled by it.
const (
	maxConcurrent  = 16
	firstRetryWait = 200 * time.Millisecond
	maxRetryWait   = 5 * time.Second
	// grace is how long after the deadline a read may still report its own
	// error; a backend that ignores its context is then left behind.
	grace = 20 * time.Millisecond
)

// Credential is a source's own setting whose value is itself a reference.
type Credential struct {
	Name string
	Ref  Ref
}

// Fetcher reads documents. Each is read once, all at the same time; what is
// unavailable is tried again until the context ends.
type Fetcher struct {
	Registry *Registry
	// Credentials are resolved before the first source that declares them is opened.
	Credentials []Credential
	// Settings is handed to every source. Its Getenv is asked after Credentials.
	Settings Settings
	// Setenv receives a resolved credential: libraries read the process's
	// own environment. It is called before the source is opened.
	Setenv func(name, value string) error
	// Once leaves it to the caller to try again what is unavailable.
	Once bool
	// States are sessions to take up, by scheme. When it is not nil, sources
	// keep theirs for HandOver.
	States map[string][]byte

	mu      sync.Mutex
	sources map[string]*openSource
	reads   map[string]*read
}

type openSource struct {
	once   sync.Once
	source Source
	err    error
}

// read is one document on its way.
type read struct {
	ref  Ref
	done chan struct{}
	Fetched
}

// Fetched is a document with how long it took, or why there is none.
type Fetched struct {
	Document *Document
	Err      error
	Took     time.Duration
}

// CredentialCycle names the schemes of a cycle among credentials ("sops needs
// vault needs sops"); it is empty when there is none.
func CredentialCycle(registry *Registry, credentials []Credential) string {
	var visit func(path []string) string
	visit = func(path []string) string {
		scheme := path[len(path)-1]
		if slices.Contains(path[:len(path)-1], scheme) {
			return strings.Join(path, " needs ")
		}
		for _, c := range credentialsOf(registry, credentials, scheme) {
			if cycle := visit(append(slices.Clone(path), c.Ref.Scheme)); cycle != "" {
				return cycle
			}
		}
		return ""
	}
	for _, c := range credentials {
		if cycle := visit([]string{c.Ref.Scheme}); cycle != "" {
			return cycle
		}
	}
	return ""
}

func credentialsOf(registry *Registry, credentials []Credential, scheme string) []Credential {
	b, _ := registry.Backend(scheme)
	var own []Credential
	for _, c := range credentials {
		if slices.ContainsFunc(b.Credentials, func(v Variable) bool { return v.Name == c.Name }) {
			own = append(own, c)
		}
	}
	return own
}

// Fetch reads the documents of all refs, each document once. results[i]
// belongs to refs[i]; references into one document share it. It returns
// when all are done or ctx ends, whichever is first.
func (f *Fetcher) Fetch(ctx context.Context, refs []Ref) (results []Fetched) {
	reads := make([]*read, len(refs))
	fresh := map[string][]Ref{}
	f.mu.Lock()
	f.prepare()
	for i, ref := range refs {
		doc := ref.Document()
		id := doc.String()
		if f.reads[id] == nil {
			f.reads[id] = &read{ref: doc, done: make(chan struct{})}
			fresh[doc.Scheme] = append(fresh[doc.Scheme], doc)
		}
		reads[i] = f.reads[id]
	}
	f.mu.Unlock()

	slots := make(chan struct{}, maxConcurrent)
	for scheme, docs := range fresh {
		go f.readAll(ctx, scheme, docs, slots)
	}
	late := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, func() { close(late) }) })
	defer stop()
	for i, r := range reads {
		select {
		case <-r.done:
		case <-late:
		}
		select {
		case <-r.done:
			results = append(results, r.Fetched)
		default:
			results = append(results, Fetched{Err: withSubject(deadlineError(ctx, nil), refs[i])})
		}
	}
	return results
}

// Waiting names the documents that have not been read yet, sorted.
func (f *Fetcher) Waiting() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for _, r := range f.reads {
		select {
		case <-r.done:
		default:
			names = append(names, r.ref.Name())
		}
	}
	slices.Sort(names)
	return names
}

// prepare makes the maps; f.mu is held.
func (f *Fetcher) prepare() {
	if f.reads == nil {
		f.reads, f.sources = map[string]*read{}, map[string]*openSource{}
	}
}

func (f *Fetcher) readAll(ctx context.Context, scheme string, docs []Ref, slots chan struct{}) {
	started := time.Now()
	source, err := f.open(ctx, scheme)
	if err != nil {
		for _, doc := range docs {
			f.finish(doc, Result{Err: err}, started)
		}
		return
	}
	batcher, ok := source.(Batcher)
	if !ok {
		batcher = oneByOne{source}
	}
	for _, group := range batcher.Group(docs) {
		go f.readGroup(ctx, batcher, group, slots)
	}
}

// readGroup reads docs, and again those of them that were unavailable. It
// holds a slot while it reads, not while it waits: what is down must not keep
// the rest from being tried.
func (f *Fetcher) readGroup(ctx context.Context, source Batcher, docs []Ref, slots chan struct{}) {
	started := time.Now()
	policy := backoff.NewExponentialBackOff()
	policy.InitialInterval, policy.MaxInterval = firstRetryWait, maxRetryWait
	var last error
	giveUp := func() {
		for _, doc := range docs {
			f.finish(doc, Result{Err: deadlineError(ctx, last)}, started)
		}
	}
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			giveUp()
			return
		}
		results := source.FetchGroup(ctx, docs)
		<-slots
		var again []Ref
		var pause time.Duration
		for i, result := range results {
			if result.Err == nil || f.Once || ClassOf(result.Err) != Unavailable {
				f.finish(docs[i], result, started)
				continue
			}
			again = append(again, docs[i])
			if ctx.Err() == nil {
				last = result.Err
			}
			if e, ok := errors.AsType[*Error](result.Err); ok {
				pause = max(pause, e.RetryAfter)
			}
		}
		if len(again) == 0 {
			return
		}
		docs = again
		select {
		case <-time.After(max(pause, policy.NextBackOff())):
		case <-ctx.Done():
			giveUp()
			return
		}
	}
}

func (f *Fetcher) finish(doc Ref, result Result, started time.Time) {
	f.mu.Lock()
	r := f.reads[doc.String()]
	f.mu.Unlock()
	if result.Err != nil {
		// Several documents may share one error: each gets its own subject.
		if e, ok := errors.AsType[*Error](result.Err); ok && e.Subject == "" {
			own := *e
			result.Err = withSubject(&own, doc)
		}
	}
	r.Fetched = Fetched{result.Document, result.Err, time.Since(started)}
	close(r.done)
}

// deadlineError says that time ran out, and on what.
func deadlineError(ctx context.Context, last error) *Error {
	ended := ContextError(ctx)
	if e, ok := errors.AsType[*Error](last); ok && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return &Error{Class: Unavailable, What: e.What + "; tried until the deadline", Hint: cmp.Or(e.Hint, ended.Hint)}
	}
	return ended
}

// open makes the source of a scheme once, with its credentials resolved.
func (f *Fetcher) open(ctx context.Context, scheme string) (Source, error) {
	f.mu.Lock()
	o := f.sources[scheme]
	if o == nil {
		o = &openSource{}
		f.sources[scheme] = o
	}
	f.mu.Unlock()
	o.once.Do(func() {
		if o.err = f.resolveCredentials(ctx, scheme); o.err != nil {
			return
		}
		backend, _ := f.Registry.Backend(scheme)
		if backend.Open == nil {
			o.err = Errorf(Invalid, fmt.Sprintf("build it in with: make build SOURCES=%q", strings.Join(append(f.Registry.Schemes(), scheme), " ")),
				"cannot be read: this build leaves %s out", scheme)
			return
		}
		source, err := backend.Open(f.Settings)
		if keeper, ok := source.(Keeper); ok && err == nil && f.States != nil {
			err = keeper.Resume(f.States[scheme])
		}
		// Close may run already, after a deadline.
		f.mu.Lock()
		defer f.mu.Unlock()
		o.source, o.err = source, err
	})
	return o.source, o.err
}

func (f *Fetcher) resolveCredentials(ctx context.Context, scheme string) error {
	own := credentialsOf(f.Registry, f.Credentials, scheme)
	refs := make([]Ref, len(own))
	for i, c := range own {
		refs[i] = c.Ref
	}
	for i, fetched := range f.Fetch(ctx, refs) {
		err := fetched.Err
		var value Secret
		if err == nil {
			value, err = fetched.Document.Select(refs[i])
		}
		if err == nil {
			err = f.Setenv(own[i].Name, string(value.Reveal()))
			value.Wipe()
		}
		if err != nil {
			e := Errorf(ClassOf(err), HintOf(err), "%v", err)
			e.Subject = "credential " + own[i].Name + ":"
			return e
		}
	}
	return nil
}

// Wipe overwrites every document that was read.
func (f *Fetcher) Wipe() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.reads {
		select {
		case <-r.done:
			if r.Document != nil {
				r.Document.Wipe()
			}
		default:
		}
	}
}

// Abandoner is a Source that leaves with what it delivers something to be
// revoked, such as a lease. After Abandon, which is for a start whose values
// nobody gets, Close leaves nothing.
type Abandoner interface {
	Source
	Abandon()
}

// Abandon tells every source that was opened that nothing was delivered.
func (f *Fetcher) Abandon() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.sources {
		if source, ok := o.source.(Abandoner); ok {
			source.Abandon()
		}
	}
}

// Close closes every source that was opened, within ctx.
func (f *Fetcher) Close(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, o := range f.sources {
		if o.source != nil {
			errs = append(errs, o.source.Close(ctx))
		}
	}
	return errors.Join(errs...)
}

// oneByOne reads every document of a plain Source by itself.
type oneByOne struct{ Source }

func (oneByOne) Group(docs []Ref) [][]Ref {
	groups := make([][]Ref, len(docs))
	for i := range docs {
		groups[i] = docs[i : i+1]
	}
	return groups
}

func (s oneByOne) FetchGroup(ctx context.Context, docs []Ref) []Result {
	doc, err := s.Fetch(ctx, docs[0])
	return []Result{{doc, err}}
}
