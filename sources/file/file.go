// Package file reads plain files: secrets that the platform has already put
// into the container. A directory is a document whose keys are its files.
package file

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"secret-init/sources"
)

// maxSize bounds what is read into memory, in bytes.
const maxSize = 16 << 20

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
		return ref, sources.Errorf(sources.Invalid, "write it from the root: file:/run/secrets/"+filepath.Base(ref.Path), "the path %q is not absolute", ref.Path)
	}
	ref.Path = filepath.Clean(ref.Path)
	return ref, nil
}

type source struct{}

func (source) Close(context.Context) error { return nil }

func (source) Fetch(ctx context.Context, doc sources.Ref) (*sources.Document, error) {
	if ctx.Err() != nil {
		return nil, sources.Errorf(sources.Unavailable, "", "was not read: %v", ctx.Err())
	}
	info, err := os.Stat(doc.Path)
	if err != nil {
		return nil, translate(err)
	}
	if info.IsDir() {
		return directory(doc.Path)
	}
	content, err := readFile(doc.Path)
	if err != nil {
		return nil, err
	}
	return &sources.Document{Bytes: content, Parse: parser(doc.Path)}, nil
}

// readFile reads a regular file: a pipe or a device could block for ever.
func readFile(path string) ([]byte, error) {
	// O_NONBLOCK: opening a fifo would wait for its writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, translate(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, translate(err)
	}
	if !info.Mode().IsRegular() {
		return nil, sources.Errorf(sources.Invalid, "", "is not a regular file")
	}
	content, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, translate(err)
	}
	if len(content) > maxSize {
		return nil, sources.Errorf(sources.Invalid, "", "is larger than %d MiB", maxSize>>20)
	}
	return content, nil
}

// directory is a document with one key a file. Names with a leading dot are
// the platform's own (Kubernetes keeps its versions in ..data).
func directory(path string) (*sources.Document, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, translate(err)
	}
	all := &sources.Value{Kind: sources.Object}
	for _, entry := range entries {
		name := filepath.Join(path, entry.Name())
		info, err := os.Stat(name)
		if strings.HasPrefix(entry.Name(), ".") || err == nil && info.IsDir() {
			continue
		}
		content, err := readFile(name)
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

func translate(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sources.Errorf(sources.NotFound, "", "does not exist")
	case errors.Is(err, fs.ErrPermission):
		return sources.Errorf(sources.Denied, "", "cannot be read: permission denied")
	}
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return sources.Errorf(sources.Invalid, "", "cannot be read: %v", err)
}
