package file_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"secret-init/sources"
	"secret-init/sources/file"
	"secret-init/sources/sourcetest"
)

// TestFIFO: reading one would wait until the deadline for somebody to write.
func TestFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	fetcher := &sources.Fetcher{Registry: sources.NewRegistry(file.Backend)}
	ref, err := fetcher.Registry.Parse("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if err := fetcher.Fetch(ctx, []sources.Ref{ref})[0].Err; err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Error(err)
	}
}

func TestConformance(t *testing.T) {
	dir := t.TempDir()
	put := func(t *testing.T, name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	sourcetest.Run(t, sourcetest.Harness{
		Backend:  file.Backend,
		PutWhole: put,
		PutFields: func(t *testing.T, name string, fields map[string]string) string {
			t.Helper()
			content, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			return put(t, name+".json", content)
		},
		Missing: "file:" + dir + "/absent",
		Malformed: func(t *testing.T) string {
			return put(t, "malformed.json", []byte(`{"value": "`+sourcetest.Canary)) + "#value"
		},
	})
}
