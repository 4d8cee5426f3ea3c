package secretfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

func TestResolve(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{
		os.MkdirAll(root+"/a/b", 0o755),
		os.MkdirAll(root+"/open/b", 0o755),
		os.MkdirAll(root+"/sticky/b", 0o755),
		os.Chmod(root+"/open", 0o777),
		os.Chmod(root+"/sticky", 0o777|os.ModeSticky),
		os.Symlink("a", root+"/relative"),
		os.Symlink(root+"/a/../relative/b", root+"/absolute"),
		os.Symlink(root+"/open/b", root+"/through"),
		os.Symlink("loop", root+"/loop"),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	for _, test := range []struct {
		path        string
		parentsOnly bool
		want, err   string
	}{
		{"/a/b", false, "/a/b", ""},
		{"/a/../a/./b", false, "/a/b", ""},
		{"/relative/b", false, "/a/b", ""},
		{"/absolute", false, "/a/b", ""},
		{"/open", false, "", "can be changed by others"},
		{"/open", true, "/open", ""},
		{"/open/b", true, "", "can be changed by others"},
		{"/through", true, "", "can be changed by others"},
		{"/sticky/b", false, "/sticky/b", ""},
		{"/loop", false, "", "too many levels"},
		{"/none", false, "", "no such file"},
	} {
		got, err := resolve(root+test.path, test.parentsOnly)
		if err == nil && (test.err != "" || got != root+test.want) || err != nil && (test.err == "" || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s, %v: %q, %v", test.path, test.parentsOnly, got, err)
		}
	}
}

func TestContainerOf(t *testing.T) {
	const uid = "0f3e9f0e-7d51-4c32-9a5e-5c0f3f0a9b11"
	of := func(roots ...string) container {
		var mounts []*mountinfo.Info
		for _, root := range roots {
			mounts = append(mounts, &mountinfo.Info{Root: root})
		}
		return containerOf(mounts)
	}
	first := of("/", "/var/lib/kubelet/pods/"+uid+"/etc-hosts", "/var/lib/kubelet/pods/"+uid+"/containers/app/0a1b2c3d")
	if first.id == "" || first.attempt != "0a1b2c3d" {
		t.Errorf("%+v", first)
	}
	// The kubelet's directory may be a filesystem of its own.
	if again := of("/pods/" + uid + "/containers/app/99999999"); again.id != first.id || again.attempt == first.attempt {
		t.Errorf("the same container, restarted: %+v", again)
	}
	if other := of("/pods/" + uid + "/containers/sidecar/0a1b2c3d"); other.id == first.id {
		t.Errorf("another container of the pod: %+v", other)
	}
	for _, roots := range [][]string{nil, {"/"}, {"/docker/containers/4fa6e0f0c6a7/hosts"}, {"/pods/x/containers/app/0a1b2c3d"}} {
		if got := of(roots...); got != (container{}) {
			t.Errorf("%q: %+v", roots, got)
		}
	}
}

// The containers of a pod share /dev/shm: each removes what earlier attempts
// at itself have left, and nothing else.
func TestSweep(t *testing.T) {
	root, dir := shm(t)
	set(t, &ipcNS, "/proc/self/ns/uts")
	start := func(id, attempt string) *Place {
		set(t, &thisContainer, func() container { return container{id, attempt} })
		p := useShm(t, dir)
		write(t, p, secret("a", id+attempt))
		return p
	}
	neighbour := start("bbbb", "1")
	old := start("aaaa", "1")
	same := start("aaaa", "2") // in the running container, as by kubectl exec
	now := start("aaaa", "2")
	outside := start("", "")
	for _, place := range []*Place{neighbour, same, now, outside} {
		if _, err := os.Stat(place.Path + "/a"); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(old.Path); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", old.Path, err)
	}
	if entries, _ := os.ReadDir(root); len(entries) != 4 {
		t.Errorf("%v", entries)
	}
}

// Two containers share a volume: what one wrote is not the other's to clear.
func TestSharedVolume(t *testing.T) {
	dir := memory(t)
	as := func(id string, files ...File) {
		set(t, &thisContainer, func() container { return container{id, "1"} })
		write(t, choose(t, dir), files...)
	}
	as("aaaa", secret("a", "1"), secret("gone", "1"))
	as("bbbb", secret("b", "1"))
	as("aaaa", secret("a", "2"))
	for name, want := range map[string]string{"a": "2", "b": "1"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := os.Stat(dir + "/gone"); !os.IsNotExist(err) {
		t.Error("gone is left:", err)
	}
}
