package sources

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// memory is a source whose documents are answers of a function. It counts.
type memory struct {
	answer func(ctx context.Context, doc Ref, attempt int) (*Document, error)

	mu       sync.Mutex
	attempts map[string]int
	times    []time.Time
	running  atomic.Int32
	peak     atomic.Int32
	closed   atomic.Int32
}

func (m *memory) Fetch(ctx context.Context, doc Ref) (*Document, error) {
	m.mu.Lock()
	if m.attempts == nil {
		m.attempts = map[string]int{}
	}
	m.attempts[doc.String()]++
	attempt := m.attempts[doc.String()]
	m.times = append(m.times, time.Now())
	m.mu.Unlock()
	n := m.running.Add(1)
	defer m.running.Add(-1)
	for peak := m.peak.Load(); n > peak && !m.peak.CompareAndSwap(peak, n); peak = m.peak.Load() {
	}
	return m.answer(ctx, doc, attempt)
}

func (m *memory) Close(context.Context) error {
	m.closed.Add(1)
	return nil
}

func (m *memory) total() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, attempts := range m.attempts {
		n += attempts
	}
	return n
}

// batches is a memory that reads three documents at a time.
type batches struct {
	*memory
	mu    sync.Mutex
	calls [][]string
}

func (b *batches) Group(docs []Ref) [][]Ref { return slices.Collect(slices.Chunk(docs, 3)) }

func (b *batches) FetchGroup(ctx context.Context, docs []Ref) (results []Result) {
	var paths []string
	for _, doc := range docs {
		paths = append(paths, doc.Path)
		document, err := b.Fetch(ctx, doc)
		results = append(results, Result{document, err})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, paths)
	return results
}

func text(s string) (*Document, error) { return &Document{Bytes: []byte(s), Parse: ParseJSON}, nil }

func fetcherOf(schemes map[string]Source) *Fetcher {
	var backends []Backend
	for scheme, source := range schemes {
		backends = append(backends, Backend{Scheme: scheme, Params: []string{"v"}, Open: func(Settings) (Source, error) { return source, nil }})
	}
	return &Fetcher{Registry: NewRegistry(backends...)}
}

func refs(t *testing.T, spelled ...string) (all []Ref) {
	t.Helper()
	for _, s := range spelled {
		ref, err := ParseRef(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ref)
	}
	return all
}

func TestFetchReadsEachDocumentOnce(t *testing.T) {
	source := &memory{answer: func(_ context.Context, doc Ref, _ int) (*Document, error) {
		if doc.Key != "" || doc.Params["optional"] != "" || doc.Params["encode"] != "" {
			return nil, Errorf(Invalid, "", "was asked for with more than the document")
		}
		return text(`{"user": "app", "password": "p` + doc.Path + doc.Params["v"] + `"}`)
	}}
	fetcher := fetcherOf(map[string]Source{"m": source})
	all := refs(t, "m:db#user", "m:db#password", "m:db?v=2#password", "m:db?optional=true&encode=url#password", "m:other#password", "m:db")
	want := []string{"app", "pdb", "pdb2", "pdb", "pother", `{"user": "app", "password": "pdb"}`}
	for round := range 2 {
		for i, fetched := range fetcher.Fetch(t.Context(), all) {
			if fetched.Err != nil {
				t.Fatal(fetched.Err)
			}
			secret, err := fetched.Document.Select(all[i])
			if err != nil || string(secret.Reveal()) != want[i] {
				t.Errorf("round %d, %s: %q, %v", round, all[i], secret.Reveal(), err)
			}
		}
	}
	if n := source.total(); n != 3 {
		t.Errorf("%d reads of 3 documents", n)
	}
	fetcher.Wipe()
	if fetched := fetcher.Fetch(t.Context(), all[:1])[0]; strings.Trim(string(fetched.Document.Bytes), "\x00") != "" {
		t.Error("Wipe left the document")
	}
	if err := fetcher.Close(t.Context()); err != nil || source.closed.Load() != 1 {
		t.Errorf("closed %d times, %v", source.closed.Load(), err)
	}
	if len(fetcher.Fetch(t.Context(), nil)) != 0 {
		t.Error("results without references")
	}
}

func TestFetchRetriesOnlyWhatIsUnavailable(t *testing.T) {
	for _, class := range []Class{Invalid, NotFound, Denied, Unavailable} {
		source := &memory{answer: func(_ context.Context, _ Ref, attempt int) (*Document, error) {
			if attempt < 3 {
				return nil, Errorf(class, "", "failed")
			}
			return text("x")
		}}
		fetched := fetcherOf(map[string]Source{"m": source}).Fetch(t.Context(), refs(t, "m:a"))[0]
		if n := source.total(); class == Unavailable && (n != 3 || fetched.Err != nil) || class != Unavailable && (n != 1 || ClassOf(fetched.Err) != class) {
			t.Errorf("class %v: %d reads, %v", class, n, fetched.Err)
		}
	}
	// An error of no class, from a backend that forgot it, is not retried either.
	source := &memory{answer: func(context.Context, Ref, int) (*Document, error) { return nil, errors.New("plain") }}
	if fetched := fetcherOf(map[string]Source{"m": source}).Fetch(t.Context(), refs(t, "m:a"))[0]; fetched.Err == nil || source.total() != 1 {
		t.Errorf("%d reads, %v", source.total(), fetched.Err)
	}
}

func TestFetchHonoursRetryAfter(t *testing.T) {
	const wait = time.Second
	source := &memory{answer: func(_ context.Context, _ Ref, attempt int) (*Document, error) {
		if attempt == 1 {
			return nil, &Error{Class: Unavailable, What: "is busy", RetryAfter: wait}
		}
		return text("x")
	}}
	fetched := fetcherOf(map[string]Source{"m": source}).Fetch(t.Context(), refs(t, "m:a"))[0]
	if fetched.Err != nil || len(source.times) != 2 {
		t.Fatalf("%d reads, %v", len(source.times), fetched.Err)
	}
	if pause := source.times[1].Sub(source.times[0]); pause < wait || fetched.Took < wait {
		t.Errorf("read again after %v, took %v", pause, fetched.Took)
	}
}

func TestFetchMeetsTheDeadline(t *testing.T) {
	never := make(chan struct{})
	defer close(never)
	sources := map[string]Source{
		"deaf": &memory{answer: func(context.Context, Ref, int) (*Document, error) { <-never; return text("x") }},
		"polite": &memory{answer: func(ctx context.Context, _ Ref, _ int) (*Document, error) {
			<-ctx.Done()
			return nil, Errorf(Unavailable, "own hint", "was interrupted")
		}},
		"down": &memory{answer: func(context.Context, Ref, int) (*Document, error) {
			return nil, Errorf(Unavailable, "own hint", "answers 503")
		}},
		"patient": &memory{answer: func(context.Context, Ref, int) (*Document, error) {
			return nil, &Error{Class: Unavailable, What: "is busy", RetryAfter: time.Hour}
		}},
		"fine": &memory{answer: func(context.Context, Ref, int) (*Document, error) { return text("x") }},
	}
	want := []string{
		"deaf a did not answer before the deadline",
		"polite a did not answer before the deadline",
		"down a answers 503; tried until the deadline",
		"patient a is busy; tried until the deadline",
	}
	const timeout = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	fetcher := fetcherOf(sources)
	started := time.Now()
	results := fetcher.Fetch(ctx, refs(t, "deaf:a", "polite:a", "down:a", "patient:a", "fine:a"))
	if late := time.Since(started) - timeout; late > 100*time.Millisecond {
		t.Errorf("%v after the deadline", late)
	}
	for i, what := range want {
		if err := results[i].Err; err == nil || err.Error() != what || ClassOf(err) != Unavailable {
			t.Errorf("%v, want %s", err, what)
		}
	}
	if hint := HintOf(results[0].Err); !strings.Contains(hint, "--timeout") {
		t.Errorf("hint %q", hint)
	}
	if hint := HintOf(results[2].Err); hint != "own hint" {
		t.Errorf("hint %q", hint)
	}
	if results[4].Err != nil {
		t.Errorf("what was there in time was lost: %v", results[4].Err)
	}
	if got := strings.Join(fetcher.Waiting(), ", "); got != "deaf a" {
		t.Errorf("waits for %q", got)
	}
	// What is still under way must not be in the way of the end.
	fetcher.Wipe()
	if err := fetcher.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFetchCancelled(t *testing.T) {
	source := &memory{answer: func(ctx context.Context, _ Ref, _ int) (*Document, error) {
		<-ctx.Done()
		return nil, Errorf(Unavailable, "", "was interrupted")
	}}
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(errors.New("SIGTERM")) })
	err := fetcherOf(map[string]Source{"m": source}).Fetch(ctx, refs(t, "m:a"))[0].Err
	if err == nil || err.Error() != "m a was not read: SIGTERM" || ClassOf(err) != Unavailable {
		t.Error(err)
	}
}

func TestFetchReportsAllFailuresTogether(t *testing.T) {
	shared := Errorf(Denied, "log in", "login was refused")
	source := &memory{answer: func(_ context.Context, doc Ref, _ int) (*Document, error) {
		switch doc.Path {
		case "ok":
			return text("x")
		case "absent":
			return nil, Errorf(NotFound, "", "does not exist")
		}
		return nil, shared
	}}
	results := fetcherOf(map[string]Source{"m": source}).Fetch(t.Context(), refs(t, "m:a", "m:ok", "m:absent", "m:b"))
	var got []string
	for _, fetched := range results {
		got = append(got, fmt.Sprint(fetched.Err))
	}
	if text := strings.Join(got, "; "); text != "m a login was refused; <nil>; m absent does not exist; m b login was refused" {
		t.Error(text)
	}
	if shared.Subject != "" {
		t.Error("an error that two documents share was given the subject of one")
	}
}

func TestFetchIsBounded(t *testing.T) {
	source := &memory{answer: func(context.Context, Ref, int) (*Document, error) {
		time.Sleep(5 * time.Millisecond)
		return text("x")
	}}
	var spelled []string
	for i := range 100 {
		spelled = append(spelled, fmt.Sprintf("m:%d", i))
	}
	for _, fetched := range fetcherOf(map[string]Source{"m": source}).Fetch(t.Context(), refs(t, spelled...)) {
		if fetched.Err != nil {
			t.Fatal(fetched.Err)
		}
	}
	if peak := source.peak.Load(); peak > maxConcurrent || peak < 2 {
		t.Errorf("%d reads at once", peak)
	}
}

// TestFetchWaitingHoldsNoSlot: more documents are down than may be read at
// once, and the one that is up is read all the same.
func TestFetchWaitingHoldsNoSlot(t *testing.T) {
	down := &memory{answer: func(context.Context, Ref, int) (*Document, error) { return nil, Errorf(Unavailable, "", "is down") }}
	up := &memory{answer: func(context.Context, Ref, int) (*Document, error) {
		return text("x")
	}}
	var spelled []string
	for i := range 3 * maxConcurrent {
		spelled = append(spelled, fmt.Sprintf("down:%d", i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	results := fetcherOf(map[string]Source{"down": down, "up": up}).Fetch(ctx, refs(t, append(spelled, "up:a")...))
	for _, fetched := range results[:len(spelled)] {
		if fetched.Err == nil || !strings.Contains(fetched.Err.Error(), "is down") {
			t.Fatalf("%v", fetched.Err)
		}
	}
	if err := results[len(spelled)].Err; err != nil {
		t.Error(err)
	}
}

// TestFetchWaitingForASlot: the deadline also ends the wait for one.
func TestFetchWaitingForASlot(t *testing.T) {
	never := make(chan struct{})
	defer close(never)
	source := &memory{answer: func(context.Context, Ref, int) (*Document, error) { <-never; return text("x") }}
	var spelled []string
	for i := range 2 * maxConcurrent {
		spelled = append(spelled, fmt.Sprintf("m:%d", i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for _, fetched := range fetcherOf(map[string]Source{"m": source}).Fetch(ctx, refs(t, spelled...)) {
		if ClassOf(fetched.Err) != Unavailable {
			t.Fatal(fetched.Err)
		}
	}
	if n := source.total(); n != maxConcurrent {
		t.Errorf("%d reads were begun", n)
	}
}

func TestFetchBatches(t *testing.T) {
	source := &batches{memory: &memory{answer: func(_ context.Context, doc Ref, attempt int) (*Document, error) {
		switch {
		case doc.Path == "absent":
			return nil, Errorf(NotFound, "", "does not exist")
		case doc.Path == "late" && attempt == 1:
			return nil, Errorf(Unavailable, "", "is down")
		}
		return text(doc.Path)
	}}}
	all := refs(t, "m:a", "m:late", "m:absent", "m:b", "m:c", "m:a#x")
	results := fetcherOf(map[string]Source{"m": source}).Fetch(t.Context(), all)
	for i, want := range []string{"a", "late", "", "b", "c", "a"} {
		if want == "" {
			if ClassOf(results[i].Err) != NotFound {
				t.Errorf("%s: %v", all[i], results[i].Err)
			}
		} else if results[i].Err != nil || string(results[i].Document.Bytes) != want {
			t.Errorf("%s: %v", all[i], results[i].Err)
		}
	}
	var calls []string
	for _, paths := range source.calls {
		calls = append(calls, strings.Join(paths, "+"))
	}
	slices.Sort(calls)
	// Only what was unavailable goes out again.
	if got := strings.Join(calls, " "); got != "a+late+absent b+c late" {
		t.Errorf("requests: %s", got)
	}
}

func TestFetchWithoutABackend(t *testing.T) {
	fetcher := &Fetcher{Registry: NewRegistry(
		Backend{Scheme: "here", Open: func(Settings) (Source, error) { return nil, Errorf(Invalid, "set IT", "has no setting IT") }},
		Backend{Scheme: "gone"})}
	results := fetcher.Fetch(t.Context(), refs(t, "gone:a", "here:a"))
	if err := results[0].Err; err == nil || err.Error() != "gone a cannot be read: this build leaves gone out" || HintOf(err) != `build it in with: make build SOURCES="here gone"` {
		t.Errorf("%v, hint %q", err, HintOf(err))
	}
	if err := results[1].Err; err == nil || err.Error() != "here a has no setting IT" || HintOf(err) != "set IT" {
		t.Errorf("%v, hint %q", err, HintOf(err))
	}
	if err := fetcher.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFetchCloseReportsErrors(t *testing.T) {
	failing := errors.New("closing failed")
	fetcher := &Fetcher{Registry: NewRegistry(Backend{Scheme: "m", Open: func(Settings) (Source, error) {
		return closeFails{&memory{answer: func(context.Context, Ref, int) (*Document, error) { return text("x") }}, failing}, nil
	}})}
	fetcher.Fetch(t.Context(), refs(t, "m:a"))
	if err := fetcher.Close(t.Context()); !errors.Is(err, failing) {
		t.Error(err)
	}
}

type closeFails struct {
	*memory
	err error
}

func (c closeFails) Close(context.Context) error { return c.err }
