package file_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"secret-init/sources/file"
	"secret-init/sources/sourcetest"
)

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
