//go:build integration

package secretfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux/isolate"
)

// attacker is another user of the same container.
const attacker = 4242

// playSwap puts a directory of its own, and a link to another, in turns in
// the place of the one that a start is about to use.
func playSwap(args []string) error {
	path, victim := args[0], args[1]
	for {
		_ = os.Mkdir(path, 0o777)
		_ = os.Remove(path)
		_ = os.Symlink(victim, path)
		_ = os.Remove(path)
	}
}

// sticky is a directory that everybody may write to, as /dev/shm is, with
// fs.protected_regular as the kernel has it and as most hosts do.
func sticky(t *testing.T, run func(t *testing.T, dir string)) {
	const setting = "/proc/sys/fs/protected_regular"
	before, err := os.ReadFile(setting)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(setting, before, 0o644) })
	for _, value := range []string{"0", "2"} {
		if err := os.WriteFile(setting, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
		dir := isolate.Tmpfs(t, "mode=1777")
		set(t, &sharedDirs, []string{dir})
		run(t, dir)
		if got := owner(t, dir); got != "0:0 1777" {
			t.Errorf("a directory of everybody's was changed: %s", got)
		}
	}
}

func TestPlanted(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	sticky(t, func(t *testing.T, dir string) {
		victim := filepath.Join(isolate.Dir(t), "victim")
		if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		shell(t, attacker, `cd "$1"
			ln -s "$2" link; echo planted >file; chmod 0666 file
			echo '{"files":[{"name":"survivor"},{"name":"file"}]}' >.secret-init
			echo x >.secret-init.new; chmod 0666 .secret-init.new`, dir, victim)
		if err := os.WriteFile(dir+"/survivor", []byte("alive"), 0o600); err != nil {
			t.Fatal(err)
		}
		// The attacker keeps descriptors of what it planted.
		held, err := os.OpenFile(dir+"/file", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		if err := os.Link(held.Name(), dir+"/hard"); err != nil {
			t.Fatal(err)
		}
		p := choose(t, dir)
		if p.Kind != Existing {
			t.Fatalf("%+v", p)
		}
		write(t, p, secret("link", "1"), secret("file", "2"), secret("hard", "3"))
		for name, want := range map[string]string{"link": "1", "file": "2", "hard": "3", "survivor": "alive", ".secret-init.new": "x\n"} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			if name != "survivor" && name != ".secret-init.new" && owner(t, filepath.Join(dir, name)) != "0:0 0400" {
				t.Errorf("%s is %s", name, owner(t, filepath.Join(dir, name)))
			}
		}
		if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
			t.Errorf("the victim: %q, %v", got, err)
		}
		content := make([]byte, 100)
		if n, _ := held.ReadAt(content, 0); string(content[:n]) != "planted\n" {
			t.Errorf("the attacker reads %q", content[:n])
		}
		if len(p.Warnings()) != 3 {
			t.Errorf("%q", p.Warnings())
		}
		// A planted directory cannot be replaced: refused, and nothing is left.
		shell(t, attacker, `mkdir -p "$1/dir/full"`, dir)
		if err := choose(t, dir).Write([]File{secret("new", "1"), secret("dir", "1")}); err == nil {
			t.Error("a planted directory")
		}
		if _, err := os.Stat(dir + "/new"); !os.IsNotExist(err) {
			t.Error("new is left:", err)
		}
	})
}

// The directory itself is planted, or changed by somebody else on the way.
func TestHostileDirectory(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	elsewhere(t)
	root := isolate.Tmpfs(t, "mode=1777")
	victim := filepath.Join(root, "victim")
	if err := os.Mkdir(victim, 0o700); err != nil {
		t.Fatal(err)
	}
	shell(t, attacker, `cd "$1"; mkdir -p theirs/secrets above; ln -s "$2" link`, root, victim)
	for _, path := range []string{root + "/theirs/secrets", root + "/above/new/secrets", root + "/link", root + "/link/secrets"} {
		p, err := Choose(path, 1<<20)
		if err == nil {
			if p.Kind == Existing || p.LinkDir != "" || strings.HasPrefix(p.Path, root) {
				t.Errorf("%s: %+v", path, p)
			}
			p.Remove()
		}
	}
	if got := owner(t, victim); got != "0:0 0700" {
		t.Errorf("the victim is %s", got)
	}
	// In a start as root, a directory that is theirs becomes root's.
	shell(t, attacker, `mkdir -m 0777 "$1/planted"`, root)
	write(t, choose(t, root+"/planted"), secret("a", "1"))
	if got := owner(t, root+"/planted"); got != "0:0 0755" {
		t.Error(got)
	}
	// In one that is not, it is refused; so is one that others may write to.
	shell(t, attacker, `mkdir "$1/again"`, root)
	if err := os.Mkdir(root+"/open", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root+"/open", 0o777); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{root + "/again": "can be changed by others", root + "/open": "can be changed by others"} {
		output, err := isolate.As(isolate.Command("choose", path), 1000, 1000).CombinedOutput()
		if !strings.Contains(string(output), want) && !strings.HasPrefix(string(output), string(Shm)) {
			t.Errorf("%s: %v: %s", path, err, output)
		}
		if entries, _ := os.ReadDir(path); len(entries) > 0 {
			t.Errorf("%s has %v", path, entries)
		}
	}
	// Their own is made safe; a volume of the kubelet's is warned about.
	own, kubelet := root+"/own", isolate.Tmpfs(t, "mode=0777")
	shell(t, 1000, `mkdir -m 0777 "$1"`, own)
	for path, want := range map[string]string{own: "tmpfs ", kubelet: "can be changed by every user"} {
		output, err := isolate.As(isolate.Command("choose", path), 1000, 1000).CombinedOutput()
		if err != nil || !strings.Contains(string(output), want) {
			t.Errorf("%s: %v: %s", path, err, output)
		}
	}
	if got := owner(t, own); got != "1000:1000 0755" {
		t.Error(got)
	}
}

// A race: whatever stands there at any moment, the victim is never touched,
// and what is written is in a directory of root's.
func TestSwapRace(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	elsewhere(t)
	root := isolate.Tmpfs(t, "mode=1777")
	victim, path := filepath.Join(root, "victim"), filepath.Join(root, "secrets")
	if err := os.Mkdir(victim, 0o700); err != nil {
		t.Fatal(err)
	}
	swap := isolate.As(isolate.Command("swap", path, victim), attacker, attacker)
	if err := swap.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = swap.Process.Kill(); _ = swap.Wait() }()
	used := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		p := &Place{fd: -1}
		if err := p.useExisting(path, 1<<20); err != nil {
			continue
		}
		used++
		if err := p.Write([]File{secret("a", "1")}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path + "/a"); err != nil || string(got) != "1" {
			t.Fatalf("%q, %v", got, err)
		}
		if got := owner(t, path); got != "0:0 0755" {
			t.Fatal(got)
		}
		p.Remove()
		_ = unix.Close(p.fd)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	if entries, _ := os.ReadDir(victim); len(entries) > 0 || owner(t, victim) != "0:0 0700" {
		t.Errorf("the victim has %v and is %s", entries, owner(t, victim))
	}
	t.Logf("%d starts got the directory", used)
	if used == 0 {
		t.Error("no start ever got the directory: nothing was tested")
	}
}

// A name says nothing: only what is ours is removed from /dev/shm.
func TestSweepLeavesOthers(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	set(t, &thisContainer, func() container { return container{"aaaa", "2"} })
	set(t, &sharedShm, isolate.Tmpfs(t, "mode=1777"))
	victim := isolate.Dir(t)
	shell(t, 0, `cd "$1"; echo x >"$2/precious"; mkdir secret-init-aaaa-1-OURS; echo x >secret-init-aaaa-1-OURS/a`, sharedShm, victim)
	shell(t, attacker, `cd "$1"; mkdir secret-init-aaaa-1-THEIRS; echo x >secret-init-aaaa-1-THEIRS/a; ln -s "$2" secret-init-aaaa-1-LINK`, sharedShm, victim)
	useShm(t, isolate.Dir(t)+"/secrets")
	for path, want := range map[string]bool{
		sharedShm + "/secret-init-aaaa-1-OURS": false, sharedShm + "/secret-init-aaaa-1-THEIRS/a": true, victim + "/precious": true,
	} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}
