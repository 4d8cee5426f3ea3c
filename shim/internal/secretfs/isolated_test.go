//go:build integration

package secretfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux/isolate"
)

func TestMain(m *testing.M) {
	os.Exit(isolate.Main(m, isolate.Roles{"start": playStart, "swap": playSwap, "choose": playChoose, "no fowner": playNoFowner, "deliver": playDeliver, "read": playRead}))
}

// playStart writes the files that its arguments name into the directory that
// comes first, with their names for values.
func playStart(args []string) error {
	p, err := Choose(args[0], 1<<20)
	if err != nil {
		return err
	}
	var files []File
	for _, name := range args[1:] {
		files = append(files, secret(name, strings.Repeat(name, 1000)))
	}
	// Whoever watches may strike from here on.
	if _, err := os.Stdout.WriteString("."); err != nil {
		return err
	}
	return p.Write(files)
}

// playChoose is a start by another user.
func playChoose(args []string) error {
	p, err := Choose(args[0], 1<<20)
	if err != nil {
		return err
	}
	if err := p.Write([]File{secret("a", "1")}); err != nil {
		return err
	}
	fmt.Printf("%s %s", p.Kind, strings.Join(p.Warnings(), "; "))
	return nil
}

// playNoFowner has CAP_CHOWN, but neither CAP_FOWNER nor CAP_DAC_OVERRIDE.
func playNoFowner(args []string) error {
	caps, err := capability.NewPid2(0)
	if err != nil {
		return err
	}
	caps.Set(capability.PERMITTED|capability.EFFECTIVE, capability.CAP_CHOWN)
	if err := caps.Apply(capability.CAPS); err != nil {
		return err
	}
	p, err := Choose(args[0], 1<<20)
	if err != nil {
		return err
	}
	return p.Write([]File{{Name: "a", Content: []byte("1"), UID: 1000, GID: 1001, Mode: 0o440}})
}

func shell(t *testing.T, uid uint32, script string, args ...string) {
	t.Helper()
	cmd := isolate.As(exec.Command("sh", append([]string{"-euc", script, "sh"}, args...)...), uid, uid)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, output)
	}
}

func owner(t *testing.T, path string) string {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		t.Error(err)
	}
	return fmt.Sprintf("%d:%d %04o", stat.Uid, stat.Gid, stat.Mode&0o7777)
}

// elsewhere keeps the fixed places out of the way.
func elsewhere(t *testing.T) {
	t.Helper()
	set(t, &ownMount, isolate.Dir(t)+"/own")
}

func TestOwnMount(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	elsewhere(t)
	dir := isolate.Dir(t)
	p := choose(t, dir)
	if p.Kind != OwnMount || p.Path != dir || p.LinkDir != "" || len(p.Rejected) != 1 {
		t.Fatalf("%+v", p)
	}
	m := mountAt(dir)
	if m == nil || m.FSType != "tmpfs" || m.Source != ownSource {
		t.Fatalf("%+v", m)
	}
	if p.NoSwap != strings.Contains(m.VFSOptions, "noswap") || !p.NoSwap {
		t.Errorf("noswap is %v, the options are %s", p.NoSwap, m.VFSOptions)
	}
	for _, option := range []string{"nosuid", "nodev", "noexec"} {
		if !strings.Contains(m.Options, option) {
			t.Errorf("%s lacks %s", m.Options, option)
		}
	}
	write(t, p, File{Name: "a", Content: []byte("1"), UID: 1000, GID: 1001, Mode: 0o440})
	if got := owner(t, dir+"/a"); got != "1000:1001 0440" {
		t.Error(got)
	}
	if got := owner(t, dir); got != "0:0 0755" {
		t.Error(got)
	}
	if err := os.WriteFile(dir+"/b", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Error("not read-only afterwards:", err)
	}
	shell(t, 1000, `! chmod 0600 "$1/a" 2>/dev/null && test "$(cat "$1/a")" = 1`, dir)

	// A service restarted in the same mount namespace takes the mount up again.
	again := choose(t, dir)
	if again.Kind != OwnMount || !again.NoSwap {
		t.Errorf("%+v", again)
	}
	write(t, again, secret("b", strings.Repeat("x", 3<<19)[:1000]))
	check(t, dir, map[string]string{"b": strings.Repeat("x", 1000)})
	// The start fails after all, as when the command cannot be executed.
	again.Remove()
	check(t, dir, nil)
	if _, err := os.Stat(dir + "/" + manifestBase); !os.IsNotExist(err) {
		t.Error("the manifest is left:", err)
	}
	p.Remove()
	if mountAt(dir) != nil {
		t.Error("the mount is left")
	}
}

// With a secret of the platform beneath it, nothing is mounted over dir.
func TestOwnMountElsewhere(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	elsewhere(t)
	dir := isolate.Dir(t)
	if err := os.WriteFile(dir+"/theirs", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(isolate.Dir(t), "source")
	if err := os.WriteFile(source, []byte("mounted"), 0o444); err != nil {
		t.Fatal(err)
	}
	isolate.Mount(t, source, dir+"/theirs", "", unix.MS_BIND, "")
	p := choose(t, dir)
	if p.Kind != OwnMount || p.Path != ownMount || p.LinkDir != dir {
		t.Fatalf("%+v", p)
	}
	write(t, p, secret("a", "1"))
	check(t, dir, map[string]string{"a": "1", "theirs": "mounted"})
	if !Provided(dir+"/theirs", Reader{UID: 1000}) {
		t.Error("theirs is not believed")
	}
	// Again, in the same namespace: no second mount on top.
	again := choose(t, dir)
	write(t, again, secret("a", "2"))
	check(t, dir, map[string]string{"a": "2", "theirs": "mounted"})
	count, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Count(string(count), " "+ownMount+" ") != 1 {
		t.Errorf("%v\n%s", err, count)
	}
	again.Remove()
	p.Remove()
	check(t, dir, map[string]string{"theirs": "mounted"})
}

// An empty volume on a disk is not hidden either, nor a plain file.
func TestOwnMountNotOverVolume(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	elsewhere(t)
	volume, dir := isolate.Dir(t), isolate.Dir(t)
	isolate.Mount(t, volume, dir, "", unix.MS_BIND, "")
	link := filepath.Join(isolate.Dir(t), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	plain := isolate.Dir(t)
	if err := os.WriteFile(plain+"/theirs", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link, plain} {
		if p := choose(t, path); p.Path != ownMount {
			t.Errorf("%s: %+v", path, p)
		} else {
			p.Remove()
		}
	}
}

// Without the right to mount, /dev/shm is next; not in the IPC namespace of
// the host, which is what the tests' own would be without isolation.
func TestShm(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	elsewhere(t)
	home := isolate.Dir(t)
	if err := os.Chown(home, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	output, err := isolate.As(isolate.Command("choose", home+"/secrets"), 1000, 1000).CombinedOutput()
	if err != nil || string(output) != "/dev/shm " {
		t.Fatalf("%v: %s", err, output)
	}
	entries, err := os.ReadDir("/dev/shm")
	if err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), "secret-init-") {
		t.Fatalf("%v, %v", entries, err)
	}
	place := "/dev/shm/" + entries[0].Name()
	if got := owner(t, place); got != "1000:1000 0755" {
		t.Error(got)
	}
	if got := owner(t, place+"/a"); got != "1000:1000 0400" {
		t.Error(got)
	}
	linksTo(t, home+"/secrets/a", place+"/a")
}

func TestHostShmRefused(t *testing.T) {
	// Mounts alone: the IPC namespace stays the host's.
	if !isolate.Run(t, unix.CLONE_NEWNS) {
		return
	}
	home := isolate.Dir(t)
	if ns, err := os.Readlink("/proc/self/ns/ipc"); err != nil || ns != initialIPC {
		t.Fatalf("these tests do not run in the host's IPC namespace: %s, %v", ns, err)
	}
	output, err := isolate.As(isolate.Command("choose", home+"/secrets"), 1000, 1000).CombinedOutput()
	if err == nil || !strings.Contains(string(output), "/dev/shm is the host's own") {
		t.Errorf("%v: %s", err, output)
	}
}

func TestNoRoom(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	for _, options := range []string{"size=64k", "size=1m,nr_inodes=5"} {
		dir := isolate.Tmpfs(t, options)
		var files []File
		for i := range 20 {
			files = append(files, secret(fmt.Sprint("f", i), strings.Repeat("x", 8<<10)))
		}
		err := choose(t, dir).Write(files)
		full := &FullError{}
		if !errors.As(err, &full) || !errors.Is(err, Full) || full.Path != dir {
			t.Errorf("%s: %v", options, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("%s: left %v, %v", options, entries, err)
		}
	}
}

func TestReadOnlyTmpfs(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	elsewhere(t)
	dir := isolate.Tmpfs(t, "ro")
	p := choose(t, dir)
	if p.Kind == Existing || !strings.Contains(p.Rejected[0], "is read-only") {
		t.Errorf("%+v", p)
	}
	p.Remove()
}

func TestNoFowner(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	dir := isolate.Tmpfs(t, "mode=0755")
	if output, err := isolate.Command("no fowner", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	if got := owner(t, dir+"/a"); got != "1000:1001 0440" {
		t.Error(got)
	}
}

// Killed at any point, a start leaves what the next one clears.
func TestKilled(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	dir := isolate.Tmpfs(t, "mode=0755")
	if err := os.WriteFile(dir+"/theirs", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const rounds = 200
	killed := map[string]int{}
	for round := range rounds {
		var names []string
		for i := range 30 {
			names = append(names, "s"+strconv.Itoa(round)+"-"+strconv.Itoa(i))
		}
		start := isolate.Command("start", append([]string{dir}, names...)...)
		pipe, err := start.StdoutPipe()
		if err == nil {
			err = start.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if n, err := pipe.Read(make([]byte, 1)); n != 1 {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(500)) * time.Microsecond)
		_ = start.Process.Signal(syscall.SIGKILL)
		if err := start.Wait(); err == nil {
			killed["done"]++
		} else if entries, _ := os.ReadDir(dir); slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), temporaryPrefix) }) {
			killed["with a temporary file"]++
		} else {
			killed["otherwise"]++
		}
		write(t, choose(t, dir), secret("a", "1"))
		check(t, dir, map[string]string{"a": "1", "theirs": ""})
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	t.Log(killed)
	if killed["done"] == rounds {
		t.Error("every start was over before it was killed")
	}
}

func TestRamfs(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	dir := isolate.Dir(t)
	isolate.Mount(t, "ramfs", dir, "ramfs", 0, "")
	p := choose(t, dir)
	if p.Kind != Existing || !p.NoSwap {
		t.Errorf("%+v", p)
	}
	write(t, p, secret("a", "1"))
	check(t, dir, map[string]string{"a": "1"})
}

func TestProvided(t *testing.T) {
	if !isolate.Run(t, isolate.Namespaces) {
		return
	}
	app, asRoot := Reader{UID: 1000, Groups: []int{1000}}, Reader{Groups: []int{0}}
	layer := isolate.Dir(t)
	volume := isolate.Tmpfs(t, "mode=0755")
	shell(t, 0, `cd "$1"; mkdir apps open group; chown 1000 apps; chmod 0777 open; chgrp 1000 group; chmod 0775 group
		for d in . apps open group; do echo x >$d/root; chmod 0444 $d/root; done
		echo x >theirs; chown 1000 theirs; echo x >wide; chmod 0666 wide; echo x >another; chown 1001 another; echo x >bound; chmod 0666 bound; mkdir directory; ln -s root link; ln -s none dangling
		cd "$2"; mkdir ..v1; echo x >..v1/db; chmod 0644 ..v1/db; chown 1000 ..v1/db; ln -s ..v1 ..data; ln -s ..data/db db`, layer, volume)
	isolate.Mount(t, layer+"/bound", layer+"/bound", "", unix.MS_BIND, "")
	if Provided(layer+"/bound", app) || Provided(volume+"/db", app) {
		t.Error("mounts that can be written to are believed")
	}
	for _, path := range []string{layer + "/bound", volume} {
		if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	}
	own := choose(t, isolate.Tmpfs(t, "mode=0755"))
	write(t, own, secret("root", "1"))
	mounted := &Place{fd: -1}
	if err := mounted.mountOwn(isolate.Dir(t), 1<<20); err != nil {
		t.Fatal(err)
	}
	shell(t, 0, `echo x >"$1/root"; chown 1000 "$1/root"`, mounted.Path)
	if err := mounted.makeReadOnly(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(own.Path + "/" + manifestBase); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path string
		reader     Reader
		want       bool
	}{
		{"Compose: a file bind mount", layer + "/bound", app, true},
		{"Kubernetes: ..data links on a read-only tmpfs", volume + "/db", app, true},
		{"Compose environment: root's plain file", layer + "/root", app, true},
		{"the same, for root", layer + "/root", asRoot, true},
		{"a link to it", layer + "/link", app, true},
		{"in a directory of the reader's", layer + "/apps/root", app, false},
		{"in a directory of everybody's", layer + "/open/root", app, false},
		{"in a directory of the reader's group", layer + "/group/root", app, false},
		{"the reader's own file", layer + "/theirs", app, false},
		{"another user's file", layer + "/another", app, false},
		{"everybody's file", layer + "/wide", app, false},
		{"everybody's file, for root", layer + "/wide", asRoot, false},
		{"a directory", layer + "/directory", app, false},
		{"a link to nothing", layer + "/dangling", app, false},
		{"nothing", layer + "/none", app, false},
		{"ours, by its mount", mounted.Path + "/root", asRoot, false},
	} {
		if got := Provided(test.path, test.reader); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
	write(t, choose(t, own.Path), secret("root", "2"))
	if Provided(own.Path+"/root", asRoot) {
		t.Error("ours, by its manifest, is believed")
	}
	shell(t, 0, `cd "$1"; mkdir -m 0700 closed; echo x >closed/a; chmod 0444 closed/a; chmod 0000 root`, own.Path)
	if Readable(own.Path+"/closed/a", app) || Readable(own.Path+"/root", app) || !Readable(own.Path+"/root", asRoot) || !Readable(layer+"/root", app) {
		t.Error("readable by the reader")
	}
}
