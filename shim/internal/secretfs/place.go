// Package secretfs keeps secrets in memory: it finds a directory that is
// provably on tmpfs or ramfs, writes files there with their owner and mode,
// puts links where the user expects the files, and removes what it wrote. It
// never decides what is written, and never writes a value anywhere else.
package secretfs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// Fixed places. Variables, so that a test can build a world of its own.
var (
	ownMount   = "/run/secret-init"
	sharedShm  = "/dev/shm"
	ipcNS      = "/proc/self/ns/ipc"
	shmPattern = "secret-init-"
)

// ownSource is how mountinfo names a mount of ours.
const ownSource = "secret-init"

const ownFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// initialIPC is the inode of the initial IPC namespace (PROC_IPC_INIT_INO in
// the kernel's include/linux/proc_ns.h): that of the host.
const initialIPC = "ipc:[4026531839]"

// Kind says by which step of the search a place was found.
type Kind string

// The steps, in their order.
const (
	Existing Kind = "tmpfs"     // --dir is on tmpfs already
	OwnMount Kind = "own mount" // a tmpfs that we mounted
	Shm      Kind = "/dev/shm"  // a directory in the container's /dev/shm
)

// Place is a directory in memory, open for writing.
type Place struct {
	// Path is where files really are.
	Path string
	Kind Kind
	// LinkDir is where links to them go; empty when Path is --dir itself or
	// when no link can be placed there.
	LinkDir string
	// Rejected says for each earlier step why it was not taken.
	Rejected []string
	// NoSwap: the kernel keeps this tmpfs out of swap.
	NoSwap bool

	fd       int
	undo     []func()
	warnings []string
}

// NoPlaceError: there is nowhere to write in memory.
type NoPlaceError struct {
	Dir      string
	Rejected []string
	// UID of a start that is not root's; 0 otherwise.
	UID int
}

func (e *NoPlaceError) Error() string {
	return "no safe place to write secrets: " + strings.Join(e.Rejected, "; ")
}

// Hint is the flag for each platform.
func (e *NoPlaceError) Hint() string {
	options := ""
	if e.UID != 0 {
		// docker restart resets the owner of a tmpfs that has no uid option.
		options = fmt.Sprintf(":uid=%d,mode=0700", e.UID)
	}
	return fmt.Sprintf("docker run --tmpfs %[1]s%[2]s, Compose tmpfs: [\"%[1]s%[2]s\"], ECS linuxParameters.tmpfs (containerPath %[1]s), Kubernetes emptyDir with medium: Memory at %[1]s", e.Dir, options)
}

// Choose finds the first place that works, in the order that the manual
// promises, and opens it. size is how many bytes of files a mount of our own
// must hold. Nothing is left behind when it fails.
func Choose(dir string, size int64) (*Place, error) {
	p := &Place{fd: -1}
	steps := []func(dir string, size int64) error{p.useExisting, p.mountOwn, p.useShm}
	for _, step := range steps {
		err := step(dir, size)
		if err == nil {
			return p, nil
		}
		p.Rejected = append(p.Rejected, err.Error())
	}
	return nil, &NoPlaceError{Dir: dir, Rejected: p.Rejected, UID: os.Geteuid()}
}

func (p *Place) useExisting(dir string, _ int64) error {
	if p.reopenOwn(dir) {
		return nil
	}
	created, err := createInMemory(dir)
	if err != nil {
		return err
	}
	fd, err := openExisting(dir)
	if err != nil {
		removeDirs(created)
		return err
	}
	p.fd, p.Path, p.Kind = fd, dir, Existing
	p.undo = append(p.undo, func() { removeDirs(created) })
	return nil
}

// reopenOwn takes up the mount of an earlier start in the same mount
// namespace, as when a service is restarted on a host: it was left read-only.
func (p *Place) reopenOwn(dir string) bool {
	if !isOwnMount(dir) {
		return false
	}
	if linux.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|ownFlags, "") != nil {
		return false
	}
	fd, err := linux.OpenDir(dir)
	if err != nil {
		return false
	}
	p.fd, p.Path, p.Kind = fd, dir, OwnMount
	p.undo = append(p.undo, p.makeReadOnly)
	return true
}

func (p *Place) makeReadOnly() {
	_ = linux.Mount("", p.Path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|ownFlags, "")
}

func isOwnMount(dir string) bool {
	found, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
	return err == nil && len(found) > 0 && isOwn(found[len(found)-1])
}

func isOwn(m *mountinfo.Info) bool { return m.FSType == "tmpfs" && m.Source == ownSource }

// createInMemory makes dir where only it is missing: /run may be a tmpfs.
func createInMemory(dir string) (created []string, err error) {
	above := dir
	for _, err := os.Stat(above); errors.Is(err, fs.ErrNotExist); _, err = os.Stat(above) {
		above = filepath.Dir(above)
	}
	if above == dir {
		return nil, nil
	}
	fd, err := linux.OpenAt(unix.AT_FDCWD, above, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", above, bare(err))
	}
	defer linux.Close(fd)
	if checkMemory(fd, above) != nil {
		return nil, fmt.Errorf("%s does not exist", dir)
	}
	created, err = makeDirs(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, bare(err))
	}
	return created, nil
}

func openExisting(dir string) (fd int, err error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", dir, bare(err))
	}
	fd, err = linux.OpenDir(real)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", dir, bare(err))
	}
	err = checkMemory(fd, dir)
	if err == nil {
		err = takeOver(fd, dir)
	}
	if err != nil {
		linux.Close(fd)
		return -1, err
	}
	return fd, nil
}

func checkMemory(fd int, name string) error {
	filesystem, err := linux.Fstatfs(fd)
	if err != nil {
		return fmt.Errorf("%s: %w", name, bare(err))
	}
	if !filesystem.InMemory() {
		return fmt.Errorf("%s is on %s, not on tmpfs", name, filesystem.Name())
	}
	if filesystem.ReadOnly {
		return fmt.Errorf("%s is read-only", name)
	}
	return nil
}

// takeOver makes a directory one that only we can change: in a start as root
// it becomes root's, 0755. Otherwise it must be ours, or root's and sticky.
func takeOver(fd int, name string) error {
	stat, err := linux.Fstat(fd)
	if err != nil {
		return fmt.Errorf("%s: %w", name, bare(err))
	}
	uid := uint32(os.Geteuid())
	if uid == 0 {
		if stat.Uid != 0 || stat.Gid != 0 {
			if err := linux.Fchown(fd, 0, 0); err != nil {
				return fmt.Errorf("%s belongs to uid %d and cannot be made root's: %w", name, stat.Uid, bare(err))
			}
		}
		if stat.Mode&0o7777 != 0o755 {
			if err := linux.Fchmod(fd, 0o755); err != nil {
				return fmt.Errorf("%s: mode 0755: %w", name, bare(err))
			}
		}
	} else if stat.Uid != uid && stat.Uid != 0 {
		return fmt.Errorf("%s belongs to uid %d", name, stat.Uid)
	} else if stat.Uid == 0 && stat.Mode&0o022 != 0 && stat.Mode&unix.S_ISVTX == 0 {
		return fmt.Errorf("%s can be changed by others (mode %04o)", name, stat.Mode&0o7777)
	}
	if err := probeWrite(fd); err != nil {
		return fmt.Errorf("%s cannot be written: %w", name, bare(err))
	}
	return nil
}

// probeWrite creates and removes a file: access(2) would ask for the real
// uid, and knows nothing of capabilities that were dropped.
func probeWrite(dir int) error {
	name := temporaryName()
	fd, err := linux.OpenAt(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	linux.Close(fd)
	return linux.UnlinkAt(dir, name)
}

// mountOwn mounts a tmpfs on dir when nothing there would be hidden, else on
// a directory of our own.
func (p *Place) mountOwn(dir string, size int64) error {
	target := dir
	if !emptyAndBare(dir) {
		target = ownMount
	}
	created, err := makeDirs(target)
	if err != nil {
		return fmt.Errorf("no tmpfs of our own: %s: %w", target, bare(err))
	}
	data := fmt.Sprintf("mode=0755,size=%d", size)
	// noswap is known from Linux 6.4 on (tmpfs(5)).
	err = linux.Mount(ownSource, target, "tmpfs", ownFlags, data+",noswap")
	p.NoSwap = err == nil
	if errors.Is(err, unix.EINVAL) {
		err = linux.Mount(ownSource, target, "tmpfs", ownFlags, data)
	}
	if err != nil {
		removeDirs(created)
		return fmt.Errorf("no tmpfs of our own: %w", bare(err))
	}
	fd, err := linux.OpenDir(target)
	if err == nil {
		err = checkMemory(fd, target)
	}
	if err != nil {
		_ = linux.Unmount(target)
		removeDirs(created)
		return fmt.Errorf("no tmpfs of our own: %w", bare(err))
	}
	p.fd, p.Path, p.Kind = fd, target, OwnMount
	p.undo = append(p.undo, func() { removeDirs(created) }, func() { _ = linux.Unmount(target) })
	if target != dir {
		p.setLinkDir(dir)
	}
	return nil
}

// emptyAndBare: a mount on dir would hide neither a file nor another mount.
func emptyAndBare(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(entries) > 0 {
		return false
	}
	beneath, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	return err == nil && len(beneath) == 0
}

// useShm takes a directory with a random name in the container's /dev/shm.
func (p *Place) useShm(dir string, _ int64) error {
	if ns, err := os.Readlink(ipcNS); err == nil && ns == initialIPC {
		return fmt.Errorf("%s is the host's own (IPC namespace of the host), where files outlive the container", sharedShm)
	}
	shm, err := linux.OpenDir(sharedShm)
	if err != nil {
		return fmt.Errorf("%s: %w", sharedShm, bare(err))
	}
	defer linux.Close(shm)
	if err := checkMemory(shm, sharedShm); err != nil {
		return err
	}
	name := shmPattern + rand.Text()
	if err := linux.MkdirAt(shm, name, 0o700); err != nil {
		return fmt.Errorf("%s: %w", sharedShm, bare(err))
	}
	fd, err := linux.OpenBeneath(shm, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == nil {
		err = probeWrite(fd)
	}
	path := filepath.Join(sharedShm, name)
	if err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("%s: %w", path, bare(err))
	}
	p.fd, p.Path, p.Kind = fd, path, Shm
	p.undo = append(p.undo, func() { _ = os.Remove(path) })
	p.setLinkDir(dir)
	return nil
}

// setLinkDir uses dir for links when it is a directory that we can write;
// without one, NAME_FILE says the real path, which is as good.
func (p *Place) setLinkDir(dir string) {
	created, err := makeDirs(dir)
	if err != nil {
		return
	}
	fd, err := linux.OpenDir(dir)
	if err == nil {
		err = probeWrite(fd)
		linux.Close(fd)
	}
	if err != nil {
		removeDirs(created)
		return
	}
	p.LinkDir = dir
	p.undo = append(p.undo, func() { removeDirs(created) })
}

// makeDirs creates path and its missing parents, and lists those it created, outermost first.
func makeDirs(path string) (created []string, err error) {
	for missing := path; ; missing = filepath.Dir(missing) {
		if _, err := os.Stat(missing); err == nil || missing == filepath.Dir(missing) {
			break
		}
		created = append([]string{missing}, created...)
	}
	for i, dir := range created {
		if err := os.Mkdir(dir, 0o755); err != nil {
			removeDirs(created[:i])
			return nil, err
		}
		// The umask is the user's, not ours.
		if err := os.Chmod(dir, 0o755); err != nil {
			removeDirs(created[:i+1])
			return nil, err
		}
	}
	return created, nil
}

func removeDirs(created []string) {
	for i := len(created) - 1; i >= 0; i-- {
		_ = os.Remove(created[i])
	}
}

func temporaryName() string { return ".secret-init-" + rand.Text() }

// bare leaves the reason alone: "operation not permitted", without the call.
func bare(err error) error {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return err
}
