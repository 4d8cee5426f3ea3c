package secretfs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// memory is a directory on tmpfs that goes with the test.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "secretfs-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// set gives a package variable another value for one test.
func set[T any](t *testing.T, variable *T, value T) {
	t.Helper()
	before := *variable
	*variable = value
	t.Cleanup(func() { *variable = before })
}

func choose(t *testing.T, dir string) *Place {
	t.Helper()
	p, err := Choose(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(p.fd) })
	return p
}

// secret is a file of our own.
func secret(name, content string) File {
	return File{Name: name, Content: []byte(content), UID: os.Geteuid(), GID: os.Getegid(), Mode: 0o400}
}

func write(t *testing.T, p *Place, files ...File) {
	t.Helper()
	if err := p.Write(files); err != nil {
		t.Fatal(err)
	}
}

// check compares the directory, but for the manifest, with what it should hold.
func check(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		if entry.Name() != thisContainer().manifestName() {
			names = append(names, entry.Name())
		}
	}
	var expected []string
	for name, content := range want {
		expected = append(expected, name)
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != content {
			t.Errorf("%s holds %q (%v), not %q", name, got, err, content)
		}
	}
	slices.Sort(expected)
	if !slices.Equal(names, expected) {
		t.Errorf("%s has %q, not %q", dir, names, expected)
	}
}

func TestChooseExisting(t *testing.T) {
	dir := memory(t)
	p := choose(t, dir)
	if p.Kind != Existing || p.Path != dir || p.LinkDir != "" || len(p.Rejected) > 0 {
		t.Errorf("%+v", p)
	}
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() == 0 && info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	write(t, p, secret("a", "1"), secret("b", "2"))
	check(t, dir, map[string]string{"a": "1", "b": "2"})
	if info, err := os.Stat(filepath.Join(dir, "a")); err != nil || info.Mode() != 0o400 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if p.FilePath("a") != dir+"/a" {
		t.Error(p.FilePath("a"))
	}
	p.Remove()
	if _, err := os.Stat(filepath.Join(dir, manifestBase)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the manifest is left:", err)
	}
	check(t, dir, nil)
}

// A directory that is missing on a tmpfs is made, and taken back.
func TestChooseMakesDirectory(t *testing.T) {
	root := memory(t)
	dir := filepath.Join(root, "run", "secrets")
	old := unix.Umask(0o077)
	p := choose(t, dir)
	unix.Umask(old)
	write(t, p, secret("a", "1"))
	for _, made := range []string{dir, filepath.Dir(dir)} {
		if info, err := os.Stat(made); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", made, info.Mode(), err)
		}
	}
	p.Remove()
	check(t, root, nil)
}

func TestAllOrNothing(t *testing.T) {
	dir := memory(t)
	write(t, choose(t, dir), secret("old", "0"), secret("both", "0"))
	bystander := filepath.Join(dir, "bystander")
	if err := os.WriteFile(bystander, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// A directory stands where the last file should go.
	if err := os.MkdirAll(filepath.Join(dir, "z", "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := choose(t, dir)
	err := p.Write([]File{secret("both", "1"), secret("new", "1"), secret("z", "1")})
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("error %v", err)
	}
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	// Not even the manifest, or what an earlier start left: later it would pass for provided.
	if !slices.Equal(names, []string{"bystander", "z"}) {
		t.Errorf("left: %q", names)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "/a", "../a", "a\x00b", ".secret-init", ".secret-init-x", ".secret-init.new"} {
		dir := memory(t)
		if err := choose(t, dir).Write([]File{secret(name, "1")}); err == nil {
			t.Errorf("%q was taken for a name", name)
		}
		check(t, dir, nil)
	}
	if err := choose(t, memory(t)).Write([]File{secret("a", "1"), secret("a", "2")}); err == nil {
		t.Error("two files of one name")
	}
}

// The next start removes exactly what the last one wrote.
func TestReplacesItsOwn(t *testing.T) {
	dir := memory(t)
	write(t, choose(t, dir), secret("gone", "0"), secret("stays", "0"))
	if err := os.WriteFile(filepath.Join(dir, "other"), []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := choose(t, dir)
	write(t, p, secret("stays", "1"), secret("new", "1"))
	check(t, dir, map[string]string{"stays": "1", "new": "1", "other": "theirs"})
	if len(p.Warnings()) > 0 {
		t.Error(p.Warnings())
	}
	p = choose(t, dir)
	write(t, p, secret("other", "2"))
	check(t, dir, map[string]string{"other": "2"})
	if len(p.Warnings()) != 1 || !strings.Contains(p.Warnings()[0], "replacing what stands there") {
		t.Error(p.Warnings())
	}
}

// A start that was killed has left temporary files, and a manifest of them.
func TestClearsTemporaryFiles(t *testing.T) {
	dir := memory(t)
	p := choose(t, dir)
	if err := p.writeManifest([]Entry{{Name: ".secret-init-KILLED"}, {Name: "db"}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".secret-init-KILLED", ".secret-init.new", ".secret-init-STRANGER"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(t, choose(t, dir), secret("a", "1"))
	check(t, dir, map[string]string{"a": "1", ".secret-init-STRANGER": ""})
}

func TestManifestNamesNothingElse(t *testing.T) {
	root := memory(t)
	dir := filepath.Join(root, "secrets")
	outside := filepath.Join(root, "outside")
	for path, content := range map[string]string{
		outside: "", dir + "/.secret-init": `{"files":[{"name":"../outside"},{"name":"/dev/shm"},{"name":".."},{"name":""},{"name":"sub/x"}]}`, dir + "/sub/x": "",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := choose(t, dir)
	if names := ownNames(p.fd); len(names) > 0 {
		t.Errorf("believed %q", names)
	}
	write(t, p)
	for _, path := range []string{outside, dir + "/sub/x"} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

// A manifest with a second name was written for another directory; a fifo
// must not hold the start up, and a link is not followed.
func TestManifestThatIsNoFile(t *testing.T) {
	content := []byte(`{"files":[{"name":"a"}]}`)
	for name, plant := range map[string]func(path string) error{
		"hard link": func(path string) error {
			return errors.Join(os.WriteFile(path+".x", content, 0o444), os.Link(path+".x", path))
		},
		"symbolic link": func(path string) error {
			return errors.Join(os.WriteFile(path+".x", content, 0o444), os.Symlink(path+".x", path))
		},
		"fifo": func(path string) error { return unix.Mkfifo(path, 0o644) },
		"fifo with a writer": func(path string) error {
			if err := unix.Mkfifo(path, 0o644); err != nil {
				return err
			}
			writer, err := os.OpenFile(path, os.O_RDWR, 0)
			t.Cleanup(func() { _ = writer.Close() })
			return err
		},
		"no JSON": func(path string) error { return os.WriteFile(path, []byte("a"), 0o444) },
		"too long": func(path string) error {
			return os.WriteFile(path, append(bytes.Repeat([]byte(" "), 2<<20), content...), 0o444)
		},
	} {
		dir := memory(t)
		if err := plant(filepath.Join(dir, manifestBase)); err != nil {
			t.Fatal(err)
		}
		p := choose(t, dir)
		if names := ownNames(p.fd); len(names) > 0 {
			t.Errorf("%s: believed %q", name, names)
		}
		write(t, p, secret("b", "1"))
		if names := ownNames(p.fd); !slices.Equal(names, []string{"b"}) {
			t.Errorf("%s: afterwards %q", name, names)
		}
	}
}

func TestDelivered(t *testing.T) {
	dir := memory(t)
	set(t, &ownMount, filepath.Join(dir, "none"))
	set(t, &shmPattern, "secretfs-none-")
	if _, err := Delivered(dir); !errors.Is(err, ErrNothingDelivered) {
		t.Error(err)
	}
	file := secret("db", "1")
	file.Variable = "DB_FILE"
	write(t, choose(t, dir), file, secret("plain", "1"))
	want := []Entry{{Name: "db", Variable: "DB_FILE", Path: dir + "/db"}, {Name: "plain", Path: dir + "/plain"}}
	if got, err := Delivered(dir); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if err := os.Remove(dir + "/db"); err != nil {
		t.Fatal(err)
	}
	if got, err := Delivered(dir); err != nil || !slices.Equal(got, want[1:]) {
		t.Errorf("after a removal: %v, %v", got, err)
	}
}

func TestSwappable(t *testing.T) {
	const heading = "Filename\tType\tSize\tUsed\tPriority\n"
	for _, test := range []struct {
		swaps, limit string
		noSwap, want bool
	}{
		{heading, "max\n", false, false},
		{heading + "/swapfile file 1 0 -2\n", "max\n", false, true},
		{heading + "/swapfile file 1 0 -2\n", "", false, true},
		{heading + "/swapfile file 1 0 -2\n", "0\n", false, false},
		{heading + "/swapfile file 1 0 -2\n", "max\n", true, false},
	} {
		dir := t.TempDir()
		set(t, &swapTable, dir+"/swaps")
		set(t, &cgroupSwap, dir+"/max")
		if err := os.WriteFile(swapTable, []byte(test.swaps), 0o600); err != nil {
			t.Fatal(err)
		}
		if test.limit != "" {
			if err := os.WriteFile(cgroupSwap, []byte(test.limit), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := (&Place{NoSwap: test.noSwap}).Swappable(); got != test.want {
			t.Errorf("%q, %q, %v: %v", test.swaps, test.limit, test.noSwap, got)
		}
	}
}
