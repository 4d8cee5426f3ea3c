package secretfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func linksTo(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.Readlink(path); err != nil || got != want {
		t.Errorf("%s leads to %q (%v), not %q", path, got, err, want)
	}
}

func TestAbsoluteTarget(t *testing.T) {
	dir, elsewhere := memory(t), t.TempDir()
	link := filepath.Join(elsewhere, "tls.key")
	file := secret("tls", "1")
	file.Link = link
	p := choose(t, dir)
	write(t, p, file)
	linksTo(t, link, dir+"/tls")
	if len(p.Warnings()) > 0 {
		t.Error(p.Warnings())
	}
	// A second start finds it, and says nothing.
	p = choose(t, dir)
	write(t, p, file)
	linksTo(t, link, dir+"/tls")
	if len(p.Warnings()) > 0 {
		t.Error(p.Warnings())
	}
	p.Remove()
	check(t, elsewhere, nil)
}

func TestAbsoluteTargetReplaces(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"link": func(path string) error { return os.Symlink("/etc/passwd", path) },
	} {
		dir, link := memory(t), filepath.Join(t.TempDir(), "tls.key")
		if err := plant(link); err != nil {
			t.Fatal(err)
		}
		file := secret("tls", "1")
		file.Link = link
		p := choose(t, dir)
		write(t, p, file)
		linksTo(t, link, dir+"/tls")
		if len(p.Warnings()) != 1 {
			t.Errorf("%s: %q", name, p.Warnings())
		}
	}
}

// What cannot be linked takes everything else back with it.
func TestAbsoluteTargetFails(t *testing.T) {
	for name, prepare := range map[string]func(parent string) error{
		"directory in its place": func(parent string) error { return os.Mkdir(parent+"/tls.key", 0o755) },
		"no parent":              func(parent string) error { return os.Remove(parent) },
		"everybody's parent":     func(parent string) error { return os.Chmod(parent, 0o777) },
	} {
		dir, parent := memory(t), filepath.Join(t.TempDir(), "private")
		if err := os.Mkdir(parent, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := prepare(parent); err != nil {
			t.Fatal(err)
		}
		file := secret("tls", "1")
		file.Link = parent + "/tls.key"
		err := choose(t, dir).Write([]File{file})
		if err == nil || !strings.Contains(err.Error(), "no link can be placed at "+file.Link) {
			t.Errorf("%s: %v", name, err)
		}
		check(t, dir, nil)
	}
}

// shm is a start that ends up in a /dev/shm of its own.
func shm(t *testing.T) (root, dir string) {
	t.Helper()
	root = memory(t)
	if err := os.Chmod(root, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	set(t, &sharedShm, root)
	return root, filepath.Join(t.TempDir(), "secrets")
}

func useShm(t *testing.T, dir string) *Place {
	t.Helper()
	p := &Place{fd: -1}
	if err := p.useShm(dir, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLinksFromDir(t *testing.T) {
	root, dir := shm(t)
	set(t, &ipcNS, "/proc/self/ns/uts")
	p := useShm(t, dir)
	if info, err := os.Stat(p.Path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("before it is filled: %v, %v", info.Mode(), err)
	}
	write(t, p, secret("a", "1"))
	if p.Kind != Shm || p.LinkDir != dir || p.FilePath("a") != dir+"/a" {
		t.Errorf("%+v", p)
	}
	if info, err := os.Stat(p.Path); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("afterwards: %v, %v", info.Mode(), err)
	}
	linksTo(t, dir+"/a", p.Path+"/a")
	check(t, dir, map[string]string{"a": "1"})

	// After docker restart the tmpfs is empty, while the links are still there.
	if err := os.RemoveAll(p.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(p.Path+"/a", dir+"/.secret-init-KILLED"); err != nil {
		t.Fatal(err)
	}
	again := useShm(t, dir)
	write(t, again, secret("b", "2"))
	check(t, dir, map[string]string{"b": "2"})
	if len(again.Warnings()) > 0 {
		t.Error(again.Warnings())
	}
	again.Remove()
	check(t, dir, nil)
	check(t, root, nil)
}

// The path in the IPC namespace of the host, and where that cannot be told.
func TestHostIPC(t *testing.T) {
	_, dir := shm(t)
	host := filepath.Join(t.TempDir(), "ipc")
	if err := os.Symlink(initialIPC, host); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{host, host + "-none"} {
		set(t, &ipcNS, ns)
		if err := (&Place{}).useShm(dir, 0); err == nil || !strings.Contains(err.Error(), "host's own") {
			t.Errorf("%s: %v", ns, err)
		}
	}
}
