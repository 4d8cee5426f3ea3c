package secretfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

func generation(n int) []File {
	return []File{secret("a", fmt.Sprint(n)), secret("b", fmt.Sprint(n)), secret("c", strings.Repeat(fmt.Sprint(n), 1000))}
}

func readAt(dir int, name string) (string, error) {
	fd, err := linux.OpenAt(dir, name, unix.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	content, err := io.ReadAll(file)
	return string(content), err
}

// TestExchange swaps a thousand times under a reader: through one descriptor
// of ..data it never sees two generations. By path it may find nothing, since
// Settle, which a refresh calls a second later, comes at once here.
func TestExchange(t *testing.T) {
	dir := memory(t)
	p := choose(t, dir)
	if err := p.WriteExchangeable(generation(0)); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan string, 1)
	go func() {
		done <- func() string {
			seen := map[string]bool{}
			for {
				select {
				case <-stop:
					if len(seen) < 50 {
						return fmt.Sprintf("only %d generations were seen", len(seen))
					}
					return ""
				default:
				}
				data, err := linux.OpenAt(unix.AT_FDCWD, filepath.Join(dir, dataBase), unix.O_RDONLY|unix.O_DIRECTORY, 0)
				if errors.Is(err, os.ErrNotExist) {
					continue
				}
				if err != nil {
					return err.Error()
				}
				a, errA := readAt(data, "a")
				b, errB := readAt(data, "b")
				c, errC := readAt(data, "c")
				linux.Close(data)
				// Settle below comes two generations later, at the earliest.
				if errors.Join(errA, errB, errC) == nil && (a != b || c != strings.Repeat(a, 1000)) {
					return fmt.Sprintf("one descriptor shows %s, %s and %.8s", a, b, c)
				}
				seen[a] = true
				if _, err := os.ReadFile(filepath.Join(dir, "a")); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err.Error()
				}
			}
		}()
	}()
	for n := 1; n <= 1000; n++ {
		if err := p.Exchange(generation(n)); err != nil {
			t.Fatal(err)
		}
		p.Settle()
	}
	close(stop)
	if problem := <-done; problem != "" {
		t.Error(problem)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 6 {
		t.Errorf("%v is left of 1000 exchanges (%v)", entries, err)
	}
	if info, err := os.Stat(filepath.Join(dir, manifestBase)); err != nil || info.Size() > 1000 {
		t.Errorf("the manifest has grown to %v bytes (%v)", info.Size(), err)
	}
}

// TestExchangeBeforeSettle: until Settle a reader with an older descriptor
// has all of its files, and one by path always has some.
func TestExchangeBeforeSettle(t *testing.T) {
	dir := memory(t)
	p := choose(t, dir)
	if err := p.WriteExchangeable(generation(1)); err != nil {
		t.Fatal(err)
	}
	data, err := linux.OpenAt(unix.AT_FDCWD, filepath.Join(dir, dataBase), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer linux.Close(data)
	if err := p.Exchange(generation(2)); err != nil {
		t.Fatal(err)
	}
	if a, err := readAt(data, "a"); a != "1" {
		t.Errorf("the older descriptor shows %q (%v)", a, err)
	}
	if now, err := os.ReadFile(filepath.Join(dir, "a")); string(now) != "2" {
		t.Errorf("the path shows %q (%v)", now, err)
	}
	p.Settle()
	if _, err := readAt(data, "a"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the old file is still there: %v", err)
	}
}

func TestExchangeNames(t *testing.T) {
	dir, other := memory(t), memory(t)
	p := choose(t, dir)
	target := filepath.Join(other, "tls.key")
	linked := secret("key", "1")
	linked.Link, linked.Variable = target, "KEY_FILE"
	if err := p.WriteExchangeable([]File{secret("gone", "1"), linked}); err != nil {
		t.Fatal(err)
	}
	linked.Content = []byte("2")
	if err := p.Exchange([]File{linked, secret("more", "2")}); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(target); string(now) != "2" {
		t.Errorf("the absolute target shows %q (%v)", now, err)
	}
	if leads, _ := os.Readlink(target); leads != filepath.Join(dir, "key") {
		t.Errorf("the target leads to %s", leads)
	}
	if _, err := os.Lstat(filepath.Join(dir, "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not wanted any more: %v", err)
	}
	if Provided(filepath.Join(dir, "key"), Reader{UID: 1000}) {
		t.Error("our own file passes for one that was provided")
	}
	entries, err := Delivered(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("secret-init env would find %+v (%v)", entries, err)
	}
	for _, name := range []string{dataBase, dataBase + "_x", manifestBase, "a/b", ".."} {
		if err := p.Exchange([]File{secret(name, "x")}); err == nil {
			t.Errorf("%q became a file's name", name)
		}
	}
	t.Run("a plain start takes it over", func(t *testing.T) {
		write(t, choose(t, dir), secret("key", "3"))
		check(t, dir, map[string]string{"key": "3"})
	})
	t.Run("cleared", func(t *testing.T) {
		again := choose(t, dir)
		if err := again.WriteExchangeable([]File{linked}); err != nil {
			t.Fatal(err)
		}
		if err := again.Exchange([]File{linked}); err != nil {
			t.Fatal(err)
		}
		if err := Clear(again.Describe()); err != nil {
			t.Fatal(err)
		}
		for _, place := range []string{dir, other} {
			if entries, err := os.ReadDir(place); err != nil || len(entries) > 0 {
				t.Errorf("%v is left (%v)", entries, err)
			}
		}
	})
}

// TestExchangeFails: when the new files cannot be written, the old ones stay,
// and nothing of the new ones does.
func TestExchangeFails(t *testing.T) {
	dir := memory(t)
	p := choose(t, dir)
	if err := p.WriteExchangeable(generation(1)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	unwritable := secret("b", "2")
	unwritable.Name = strings.Repeat("n", 300) // ENAMETOOLONG
	if err := p.Exchange([]File{secret("a", "2"), unwritable}); err == nil {
		t.Fatal("no error")
	}
	after, err := os.ReadDir(dir)
	if err != nil || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("before %v, after %v (%v)", before, after, err)
	}
	if now, err := os.ReadFile(filepath.Join(dir, "a")); string(now) != "1" {
		t.Errorf("the file has %q (%v)", now, err)
	}
}
