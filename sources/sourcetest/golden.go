package sourcetest

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"secret-init/sources"
)

// Seen is an error as a user sees it, with the name of the case.
type Seen struct {
	Name string
	Err  error
}

// ports differ from run to run.
var ports = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// Golden compares the two lines that a user sees of each error with the file
// at path, or writes that file. No line may hold the canary.
func Golden(t *testing.T, path string, update bool, seen []Seen) {
	t.Helper()
	var text bytes.Buffer
	for _, s := range seen {
		if s.Err == nil {
			t.Fatalf("%s: no error", s.Name)
		}
		fmt.Fprintf(&text, "# %s\nerror: %v\n", s.Name, s.Err)
		if hint := sources.HintOf(s.Err); hint != "" {
			fmt.Fprintf(&text, "hint: %s\n", hint)
		}
		text.WriteByte('\n')
	}
	if strings.Contains(text.String(), Canary) {
		t.Errorf("the canary is in an error:\n%s", &text)
	}
	got := ports.ReplaceAll(text.Bytes(), []byte("127.0.0.1:PORT"))
	if update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the errors are not those of %s; now they are:\n%s", path, got)
	}
}
