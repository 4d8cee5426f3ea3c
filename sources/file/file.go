// Package file reads plain files: secrets that the platform has already put
// into the container. A directory is a document whose keys are its files.
package file

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"secret-init/sources"
)

// Backend is the scheme "file".
var Backend = sources.Backend{
	Scheme:     "file",
	ConfigOnly: true,
	Check:      check,
	InPlace: func(ref sources.Ref) bool {
		info, err := os.Stat(ref.Path)
		return err == nil && info.IsDir()
	},
	Open: func(sources.Settings) (sources.Source, error) { return source{}, nil },
}

func check(ref sources.Ref) (sources.Ref, error) {
	if !filepath.IsAbs(ref.Path) {
		return ref, sources.Errorf(sources.Invalid, "write it from the root, as in file:/run/secrets/"+filepath.Base(ref.Path), "the path %q is not absolute", ref.Path)
	}
	ref.Path = filepath.Clean(ref.Path)
	return ref, nil
}

type source struct{}

func (source) Close(context.Context) error { return nil }

func (source) Fetch(ctx context.Context, doc sources.Ref) (*sources.Document, error) {
	if ctx.Err() != nil {
		return nil, sources.ContextError(ctx)
	}
	info, err := os.Stat(doc.Path)
	if err != nil {
		return nil, sources.FileError(err, doc.Path)
	}
	if info.IsDir() {
		return directory(doc.Path)
	}
	content, err := sources.ReadFile(doc.Path)
	if err != nil {
		return nil, err
	}
	return &sources.Document{Bytes: content, Parse: parser(doc.Path)}, nil
}

// directory is a document with one key a file. Names with a leading dot are
// the platform's own (Kubernetes keeps its versions in ..data).
func directory(path string) (*sources.Document, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, sources.FileError(err, path)
	}
	all := &sources.Value{Kind: sources.Object}
	for _, entry := range entries {
		name := filepath.Join(path, entry.Name())
		info, err := os.Stat(name)
		if strings.HasPrefix(entry.Name(), ".") || err == nil && info.IsDir() {
			continue
		}
		content, err := sources.ReadFile(name)
		if err != nil {
			e := err.(*sources.Error)
			e.What = "has a file " + entry.Name() + " that " + e.What
			return nil, e
		}
		all.Members = append(all.Members, sources.ValueMember{Name: entry.Name(), Value: &sources.Value{Kind: sources.String, Text: content}})
	}
	return &sources.Document{Dir: path, Parse: func([]byte) (*sources.Value, error) { return all, nil }}, nil
}

func parser(path string) func([]byte) (*sources.Value, error) {
	switch filepath.Ext(path) {
	case ".json":
		return sources.ParseJSON
	case ".yaml", ".yml":
		return sources.ParseYAML
	}
	return nil
}
