package sources

import (
	"context"
	"strings"
	"sync"
	"testing"
)

// rounds is three schemes, each of which needs a credential that the next may
// hold: c opens b, b opens a. A source opens only with its credential.
func rounds(t *testing.T, credentials ...string) (*Fetcher, map[string]*memory, func(string) string) {
	t.Helper()
	var mu sync.Mutex
	environment := map[string]string{}
	getenv := func(name string) string {
		mu.Lock()
		defer mu.Unlock()
		return environment[name]
	}
	memories := map[string]*memory{}
	var backends []Backend
	for _, scheme := range []string{"a", "b", "c"} {
		name := strings.ToUpper(scheme) + "_KEY"
		memories[scheme] = &memory{answer: func(_ context.Context, doc Ref, _ int) (*Document, error) {
			if doc.Path == "absent" {
				return nil, Errorf(NotFound, "look again", "does not exist")
			}
			return text(`{"key": "` + doc.Path + ` of ` + scheme + ` with ` + getenv(name) + `"}`)
		}}
		backends = append(backends, Backend{Scheme: scheme, Credentials: []Variable{{Name: name}},
			Open: func(Settings) (Source, error) { return memories[scheme], nil }})
	}
	fetcher := &Fetcher{Registry: NewRegistry(backends...), Settings: Settings{Getenv: getenv}, Setenv: func(name, value string) error {
		mu.Lock()
		defer mu.Unlock()
		environment[name] = value
		return nil
	}}
	for _, spelled := range credentials {
		name, ref, _ := strings.Cut(spelled, "=")
		fetcher.Credentials = append(fetcher.Credentials, Credential{name, refs(t, ref)[0]})
	}
	return fetcher, memories, getenv
}

func TestCredentialsComeInRounds(t *testing.T) {
	fetcher, memories, getenv := rounds(t, "A_KEY=b:one#key", "B_KEY=c:two#key")
	all := refs(t, "a:x#key", "b:one#key")
	results := fetcher.Fetch(t.Context(), all)
	for i, want := range []string{"x of a with one of b with two of c with ", "one of b with two of c with "} {
		if results[i].Err != nil {
			t.Fatal(results[i].Err)
		}
		if secret, err := results[i].Document.Select(all[i]); err != nil || string(secret.Reveal()) != want {
			t.Errorf("%q, %v", secret.Reveal(), err)
		}
	}
	for scheme, n := range map[string]int{"a": 1, "b": 1, "c": 1} {
		if memories[scheme].total() != n {
			t.Errorf("%d reads of %s", memories[scheme].total(), scheme)
		}
	}
	if getenv("C_KEY") != "" {
		t.Error("a credential that nobody asked for was set")
	}
}

func TestCredentialsOfUnusedSourcesAreNotFetched(t *testing.T) {
	fetcher, memories, getenv := rounds(t, "A_KEY=b:one#key")
	if err := fetcher.Fetch(t.Context(), refs(t, "c:x#key"))[0].Err; err != nil {
		t.Fatal(err)
	}
	if memories["b"].total() != 0 || getenv("A_KEY") != "" {
		t.Error("the credential of a source without a reference was fetched")
	}
}

func TestCredentialErrors(t *testing.T) {
	for credential, want := range map[string]string{
		"A_KEY=b:absent#key": "credential A_KEY: b absent does not exist",
		"A_KEY=b:x#kee":      `credential A_KEY: b x has no key "kee"`,
	} {
		fetcher, memories, _ := rounds(t, credential)
		results := fetcher.Fetch(t.Context(), refs(t, "a:x#key", "a:y#key", "c:x#key"))
		for _, fetched := range results[:2] {
			if err := fetched.Err; err == nil || err.Error() != want || ClassOf(err) != NotFound || HintOf(err) == "" {
				t.Errorf("%v, want %s", err, want)
			}
		}
		if results[2].Err != nil || memories["a"].total() != 0 {
			t.Errorf("%v, %d reads without the credential", results[2].Err, memories["a"].total())
		}
	}
}

func TestCredentialCycle(t *testing.T) {
	for credentials, want := range map[string]string{
		"A_KEY=b:x#key":                             "",
		"A_KEY=b:x#key B_KEY=c:x#key":               "",
		"A_KEY=a:x#key":                             "a needs a",
		"A_KEY=b:x#key B_KEY=a:x#key":               "b needs a needs b",
		"A_KEY=b:x#key B_KEY=c:x#key C_KEY=a:x#key": "b needs c needs a needs b",
	} {
		fetcher, _, _ := rounds(t, strings.Fields(credentials)...)
		if got := CredentialCycle(fetcher.Registry, fetcher.Credentials); got != want {
			t.Errorf("%s: %q, want %q", credentials, got, want)
		}
	}
}
