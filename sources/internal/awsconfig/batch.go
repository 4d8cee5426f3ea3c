package awsconfig

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"secret-init/sources"
)

// Group splits docs into the sets that go out as one request: at most size
// of them, all of one region, and no two that an answer might name alike.
// names gives what an answer may call a document; one without any goes alone.
func Group(docs []sources.Ref, settings sources.Settings, size int, names func(sources.Ref) []string) [][]sources.Ref {
	// The SDK's own order; a profile's region is not known yet, and its own group.
	usual := cmp.Or(settings.Getenv("AWS_REGION"), settings.Getenv("AWS_DEFAULT_REGION"))
	type set struct {
		region string
		names  []string
		docs   []sources.Ref
	}
	var sets []*set
	for _, doc := range docs {
		region, own := cmp.Or(RegionOf(doc), usual), names(doc)
		i := slices.IndexFunc(sets, func(s *set) bool {
			taken := func(name string) bool { return slices.Contains(s.names, name) }
			return len(own) > 0 && len(s.names) > 0 && s.region == region && len(s.docs) < size && !slices.ContainsFunc(own, taken)
		})
		if i < 0 {
			i = len(sets)
			sets = append(sets, &set{region: region})
		}
		sets[i].names = append(sets[i].names, own...)
		sets[i].docs = append(sets[i].docs, doc)
	}
	groups := make([][]sources.Ref, len(sets))
	for i, s := range sets {
		groups[i] = s.docs
	}
	return groups
}

// Same is one outcome for all of n documents.
func Same(n int, err error) []sources.Result {
	return slices.Repeat([]sources.Result{{Err: err}}, n)
}

// ReadRest reads, each by itself and all at the same time, the documents for
// which a batch has brought neither a document nor an error.
func ReadRest(ctx context.Context, docs []sources.Ref, results []sources.Result, fetch func(context.Context, sources.Ref) (*sources.Document, error)) []sources.Result {
	var all sync.WaitGroup
	for i := range results {
		if r := &results[i]; r.Document == nil && r.Err == nil {
			all.Go(func() { r.Document, r.Err = fetch(ctx, docs[i]) })
		}
	}
	all.Wait()
	return results
}
