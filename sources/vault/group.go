//go:build !no_vault

package vault

import (
	"context"
	"slices"
	"strings"

	"secret-init/sources"
)

// Group puts together what may be one document: on a KV version 2 mount
// secret/db and secret/data/db are. All else goes by itself.
func (s *source) Group(docs []sources.Ref) [][]sources.Ref {
	var groups [][]sources.Ref
	index := map[string]int{}
	for _, doc := range docs {
		same := doc
		if !isWrite(doc) {
			parts := slices.DeleteFunc(strings.Split(doc.Path, "/"), func(part string) bool { return part == "data" })
			same.Path = strings.Join(parts, "/")
		}
		i, known := index[same.String()]
		if !known {
			i = len(groups)
			index[same.String()] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], doc)
	}
	return groups
}

// FetchGroup reads each document of docs once, whatever spells it.
func (s *source) FetchGroup(ctx context.Context, docs []sources.Ref) []sources.Result {
	results := make([]sources.Result, len(docs))
	first := map[string]int{}
	for i, doc := range docs {
		path := doc.Path
		if len(docs) > 1 {
			var err error
			if path, err = s.apiPath(ctx, doc); err != nil {
				results[i].Err = err
				continue
			}
		}
		if j, read := first[path]; read {
			results[i] = results[j]
			continue
		}
		first[path] = i
		results[i].Document, results[i].Err = s.Fetch(ctx, doc)
	}
	return results
}

// apiPath is where the API has a document that is read.
func (s *source) apiPath(ctx context.Context, doc sources.Ref) (string, error) {
	session, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	m, err := s.mountOf(ctx, session.clientFor(doc), doc.Path)
	return m.apiPath(doc.Path), err
}
