package sources

import (
	"context"
	"errors"
	"testing"
	"time"
)

// keeper is a source with a session: the state is a count of the processes.
type keeper struct {
	Source
	resumed string
	closed  int
	renewed int
}

func (k *keeper) Resume(state []byte) error { k.resumed = string(state); return nil }

func (k *keeper) State() ([]byte, time.Time) {
	return []byte(k.resumed + "x"), time.Unix(1000, 0)
}

func (k *keeper) Fetch(context.Context, Ref) (*Document, error) {
	return nil, Errorf(Unavailable, "", "is down")
}

func (k *keeper) Close(context.Context) error { k.closed++; return nil }

func (k *keeper) Renew(_ context.Context, doc Ref, lease Lease, due bool) (Lease, error) {
	if lease.ID == "" {
		return Lease{}, Errorf(Denied, "", "has no lease")
	}
	k.renewed++
	return lease, nil
}

func TestHandOver(t *testing.T) {
	k := &keeper{}
	f := &Fetcher{
		Registry: NewRegistry(Backend{Scheme: "kept", Open: func(Settings) (Source, error) { return k, nil }}),
		Once:     true, States: map[string][]byte{"kept": []byte("s"), "other": []byte("o")},
	}
	ref := Ref{Scheme: "kept", Path: "a"}
	started := time.Now()
	fetched := f.Fetch(t.Context(), []Ref{ref})[0]
	if ClassOf(fetched.Err) != Unavailable || fetched.Err.Error() != "kept a is down" || time.Since(started) > firstRetryWait {
		t.Errorf("%v after %v: with Once nothing is tried again", fetched.Err, time.Since(started))
	}
	if k.resumed != "s" {
		t.Errorf("resumed with %q", k.resumed)
	}
	if _, err := f.Renew(t.Context(), ref, Lease{ID: "l"}, true); err != nil || k.renewed != 1 {
		t.Errorf("%v, renewed %d times", err, k.renewed)
	}
	if _, err := f.Renew(t.Context(), ref, Lease{}, true); err == nil || err.Error() != "kept a has no lease" {
		t.Error(err)
	}
	states, next := f.HandOver()
	if string(states["kept"]) != "sx" || string(states["other"]) != "o" || len(states) != 2 || !next.Equal(time.Unix(1000, 0)) {
		t.Errorf("%q at %v", states, next)
	}
}

func TestRenewOfWhatCannot(t *testing.T) {
	f := &Fetcher{Registry: NewRegistry(Backend{Scheme: "plain", Open: func(Settings) (Source, error) { return struct{ Source }{}, nil }})}
	if _, err := f.Renew(t.Context(), Ref{Scheme: "plain", Path: "a"}, Lease{}, true); ClassOf(err) != Invalid {
		t.Error(err)
	}
	if states, next := f.HandOver(); len(states) != 0 || !next.IsZero() {
		t.Errorf("%q, %v", states, next)
	}
}

func TestKept(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	d := &Document{Bytes: []byte(`{"n": 1.10, "o": {"p": "x"}}`), Parse: ParseJSON, Version: "3", Lease: Lease{ID: "l", Duration: 30 * time.Second}}
	kept, ok := d.Keep(now)
	d.Wipe()
	if !ok || !kept.Due().Equal(now.Add(20*time.Second)) || !kept.Ends().Equal(now.Add(30*time.Second)) {
		t.Errorf("%v: due %v, ends %v", ok, kept.Due(), kept.Ends())
	}
	for key, want := range map[string]string{"n": "1.10", "/o/p": "x", "": `{"n": 1.10, "o": {"p": "x"}}`} {
		again := kept.Document()
		got, err := again.Select(Ref{Scheme: "s", Path: "p", Key: key})
		if err != nil || string(got.Reveal()) != want {
			t.Errorf("%q: %q, %v", key, got.Reveal(), err)
		}
		again.Wipe()
	}
	plain, _ := (&Document{Bytes: []byte("plain"), Parse: ParseJSON}).Keep(now)
	if got, err := plain.Document().Select(Ref{Scheme: "s", Path: "p"}); err != nil || string(got.Reveal()) != "plain" {
		t.Errorf("%q, %v", got.Reveal(), err)
	}
	if !plain.Due().IsZero() || !plain.Ends().IsZero() {
		t.Error("a document without a lease has a time to renew it")
	}
	if _, ok := (&Document{Dir: "/d"}).Keep(now); ok {
		t.Error("files that lie where they are were kept")
	}
}

func TestPreload(t *testing.T) {
	f := &Fetcher{Registry: NewRegistry(Backend{Scheme: "s", Open: func(Settings) (Source, error) { return nil, errors.New("opened") }})}
	ref := Ref{Scheme: "s", Path: "p", Key: "k"}
	f.Preload(ref, &Document{Bytes: []byte("b")})
	fetched := f.Fetch(t.Context(), []Ref{ref})[0]
	if fetched.Err != nil || string(fetched.Document.Bytes) != "b" || len(f.Read()) != 1 {
		t.Errorf("%+v", fetched)
	}
}
