package secretfs

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// container says which container of a Kubernetes pod this is, and which
// attempt at running it. The containers of a pod share one /dev/shm (and any
// emptyDir) that outlives each of them, so that an old file there may be a
// dead start's or a living neighbour's.
type container struct{ id, attempt string }

// terminationLog is what the kubelet mounts at /dev/termination-log: a file
// of the pod's and the container's own, named at random for each attempt
// (makeMounts in its pkg/kubelet/kuberuntime).
var terminationLog = regexp.MustCompile(`(?:^|/)pods/([0-9a-f-]{32,36}/containers/[^/]+)/([0-9a-f]{1,8})$`)

// thisContainer is a variable, so that a test can play several.
var thisContainer = sync.OnceValue(func() container {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return container{}
	}
	return containerOf(mounts)
})

// containerOf is the zero container outside of Kubernetes, and where the
// runtime hides where mounts come from: then nothing can be told apart.
func containerOf(mounts []*mountinfo.Info) container {
	for _, m := range mounts {
		if match := terminationLog.FindStringSubmatch(m.Root); match != nil {
			sum := sha256.Sum256([]byte(match[1]))
			return container{id: hex.EncodeToString(sum[:8]), attempt: match[2]}
		}
	}
	return container{}
}

// manifestName is the manifest's own for each container of a pod: they may
// share a volume, and what one wrote is not the other's to replace.
func (c container) manifestName() string {
	if c.id == "" {
		return manifestBase
	}
	return manifestBase + "." + c.id
}

// shmPrefix begins the names of our directories in /dev/shm.
func (c container) shmPrefix() string {
	if c.id == "" {
		return shmPattern
	}
	return shmPattern + c.id + "-" + c.attempt + "-"
}

// sweep removes what earlier attempts at this same container have left in
// /dev/shm. The kubelet starts an attempt only after the one before is dead,
// so that a directory of another attempt is nobody's; one of this attempt may
// belong to the command that is running, while somebody else executes a
// second start in its container. Where there is no attempt to go by, nothing is removed.
func (c container) sweep(shm int) {
	if c.id == "" {
		return
	}
	names, err := list(shm)
	if err != nil {
		return
	}
	for _, name := range names {
		ofThis := strings.HasPrefix(name, shmPattern+c.id+"-")
		if ofThis && !strings.HasPrefix(name, c.shmPrefix()) {
			removeOwnDir(shm, name)
		}
	}
}

// removeOwnDir removes a directory of ours with the files in it: a name says
// nothing, its owner does.
func removeOwnDir(parent int, name string) {
	dir, err := linux.OpenBeneath(parent, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return
	}
	defer linux.Close(dir)
	stat, err := linux.Fstat(dir)
	if err != nil || !own(stat) {
		return
	}
	names, err := list(dir)
	if err != nil {
		return
	}
	for _, entry := range names {
		_ = removeName(dir, entry)
	}
	_ = linux.RmdirAt(parent, name)
}
