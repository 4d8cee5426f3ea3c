package sources

import (
	"context"
	"time"
)

// Keeper is a Source whose session can be taken up by another process: the
// one that starts the command leaves it to those that refresh.
type Keeper interface {
	Source
	// Resume is called once, before any Fetch: with what State gave, or with
	// nil for a new session that is to be kept.
	Resume(state []byte) error
	// State hands the session over: after it Close gives up nothing. It holds
	// tokens. next is when the session itself has to be renewed; the zero
	// time is never. A nil state is nothing to take up and nothing to give up.
	State() (state []byte, next time.Time)
}

// Renewer is a Keeper whose leases can be prolonged.
type Renewer interface {
	Keeper
	// Renew looks after the lease that doc came with, and prolongs it when
	// due; the lease that it returns counts from now. A lease that is not due
	// comes back as it is. An error of any class but Unavailable says that
	// the document has to be fetched anew.
	Renew(ctx context.Context, doc Ref, lease Lease, due bool) (Lease, error)
}

// Kept is a document that one process leaves to the next.
type Kept struct {
	Bytes   []byte
	Tree    *Value // nil when the document has no keys
	Version string
	Lease   Lease
	// Read is when the source gave the document, Granted when its lease began
	// or was last prolonged.
	Read, Granted time.Time
}

// Keep makes a copy that outlives Wipe. Documents whose members are files
// already are not kept: ok is then false.
func (d *Document) Keep(now time.Time) (kept Kept, ok bool) {
	if d.Dir != "" {
		return Kept{}, false
	}
	kept = Kept{Version: d.Version, Lease: d.Lease, Read: now, Granted: now}
	if d.Bytes != nil {
		kept.Bytes = append([]byte{}, d.Bytes...)
	}
	if d.Parse != nil {
		// One that cannot be parsed has no keys that anybody could have taken.
		kept.Tree, _ = d.Parse(d.Bytes)
	}
	return kept, true
}

// Document is the document again.
func (k Kept) Document() *Document {
	d := &Document{Version: k.Version, Lease: k.Lease}
	if k.Bytes != nil {
		d.Bytes = append([]byte{}, k.Bytes...)
	}
	if k.Tree != nil {
		d.Parse = func([]byte) (*Value, error) { return k.Tree, nil }
	}
	return d
}

// Due is when the lease should be prolonged: at two thirds of its life. The
// zero time is never.
func (k Kept) Due() time.Time {
	if k.Lease.Duration <= 0 {
		return time.Time{}
	}
	return k.Granted.Add(k.Lease.Duration * 2 / 3)
}

// Ends is when the lease ends; the zero time is never.
func (k Kept) Ends() time.Time {
	if k.Lease.Duration <= 0 {
		return time.Time{}
	}
	return k.Granted.Add(k.Lease.Duration)
}

// Preload makes a document known, so that it is not read.
func (f *Fetcher) Preload(ref Ref, document *Document) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prepare()
	r := &read{done: make(chan struct{}), Fetched: Fetched{Document: document}}
	close(r.done)
	f.reads[ref.Document().String()] = r
}

// Read lists the documents that were read or preloaded, by reference;
// those that credentials came from are among them.
func (f *Fetcher) Read() map[string]*Document {
	f.mu.Lock()
	defer f.mu.Unlock()
	documents := map[string]*Document{}
	for id, r := range f.reads {
		select {
		case <-r.done:
			if r.Document != nil {
				documents[id] = r.Document
			}
		default:
		}
	}
	return documents
}

// Renew looks after one lease. The error of a source that cannot is of class Invalid.
func (f *Fetcher) Renew(ctx context.Context, ref Ref, lease Lease, due bool) (Lease, error) {
	f.mu.Lock()
	f.prepare()
	f.mu.Unlock()
	source, err := f.open(ctx, ref.Scheme)
	if err != nil {
		return Lease{}, withSubject(err, ref)
	}
	renewer, ok := source.(Renewer)
	if !ok {
		return Lease{}, withSubject(Errorf(Invalid, "", "cannot be renewed"), ref)
	}
	lease, err = renewer.Renew(ctx, ref.Document(), lease, due)
	if err != nil {
		return Lease{}, withSubject(err, ref)
	}
	return lease, nil
}

// HandOver takes the sessions out of all sources: Close then gives up nothing
// of theirs. States of sources that were not opened stay as they are. next is
// the earliest time at which a session has to be renewed; zero is never.
func (f *Fetcher) HandOver() (states map[string][]byte, next time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	states = map[string][]byte{}
	for scheme, state := range f.States {
		states[scheme] = state
	}
	for scheme, o := range f.sources {
		keeper, ok := o.source.(Keeper)
		if !ok {
			continue
		}
		state, at := keeper.State()
		if delete(states, scheme); state != nil {
			states[scheme] = state
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return states, next
}

// OpenKept opens the sources of all States, for Close to give up what they hold.
func (f *Fetcher) OpenKept(ctx context.Context) {
	f.mu.Lock()
	f.prepare()
	f.mu.Unlock()
	for scheme := range f.States {
		// What cannot be opened has nothing that could be given up.
		_, _ = f.open(ctx, scheme)
	}
}
