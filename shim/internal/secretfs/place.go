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
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// Fixed places. Variables, so that a test can build a world of its own.
var (
	ownMount   = "/run/secret-init"
	sharedShm  = "/dev/shm"
	ipcNS      = "/proc/self/ns/ipc"
	shmPattern = "secret-init-"
	// sharedDirs are everybody's: as the place for the files they stay as
	// they are, sticky, since making them root's alone would break other programs.
	sharedDirs = []string{"/dev/shm", "/tmp", "/var/tmp"}
)

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

	// created are directories that were made for the place, outermost first.
	created []string
	// wanted is --dir. unlinked are the names that no link leads to from there.
	wanted   string
	unlinked map[string]bool
	fd       int
	readOnly bool
	undo     []func()
	warnings []string
}

// NoPlaceError says that there is nowhere to write in memory.
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
	dir = filepath.Clean(dir)
	p := &Place{fd: -1, wanted: dir, unlinked: map[string]bool{}}
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

// useExisting takes dir as it is.
func (p *Place) useExisting(dir string, size int64) error {
	if p.reopenOwn(dir, size) {
		return nil
	}
	created, err := createInMemory(dir)
	if err != nil {
		return err
	}
	fd, err := p.openExisting(dir)
	if err != nil {
		removeDirs(created)
		return err
	}
	p.fd, p.Path, p.Kind = fd, dir, Existing
	p.NoSwap = neverSwapped(dir)
	p.madeDirs(created)
	return nil
}

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

func (p *Place) openExisting(dir string) (fd int, err error) {
	real, err := resolve(dir, true)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", dir, err)
	}
	fd, err = linux.OpenDir(real)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", dir, bare(err))
	}
	err = checkMemory(fd, dir)
	if err == nil {
		err = p.takeOver(fd, dir, real)
	}
	if err == nil {
		err = stillThere(fd, real)
	}
	if err != nil {
		linux.Close(fd)
		return -1, err
	}
	return fd, nil
}

// stillThere: until the directory was ours, its owner could put another one
// in its place, from which the command would read other files.
func stillThere(fd int, path string) error {
	opened, err := linux.Fstat(fd)
	if err != nil {
		return fmt.Errorf("%s: %w", path, bare(err))
	}
	// A removal that was let through before the directory was ours may still be
	// under way: like it, mkdir(2) has to wait for the lock of the directory above.
	if linux.MkdirAt(unix.AT_FDCWD, path, 0o700) == nil {
		_ = os.Remove(path)
	}
	now, err := linux.LstatAt(unix.AT_FDCWD, path)
	if err != nil || now.Dev != opened.Dev || now.Ino != opened.Ino {
		return fmt.Errorf("%s was replaced by another directory meanwhile", path)
	}
	return nil
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
// it becomes root's, 0755. Otherwise it must be ours, or root's and sticky, or
// a volume that the platform has opened to everybody (as the kubelet does).
func (p *Place) takeOver(fd int, name, real string) error {
	stat, err := linux.Fstat(fd)
	if err != nil {
		return fmt.Errorf("%s: %w", name, bare(err))
	}
	mode := stat.Mode & 0o7777
	switch uid := uint32(os.Geteuid()); {
	case uid == 0 && slices.Contains(sharedDirs, real) && stat.Uid == 0 && mode&unix.S_ISVTX != 0:
	case uid == 0:
		if stat.Uid != 0 || stat.Gid != 0 {
			if err := linux.Fchown(fd, 0, 0); err != nil {
				return fmt.Errorf("%s belongs to uid %d and cannot be made root's: %w", name, stat.Uid, bare(err))
			}
		}
		if mode != 0o755 {
			if err := linux.Fchmod(fd, 0o755); err != nil {
				return fmt.Errorf("%s: mode 0755: %w", name, bare(err))
			}
		}
	case stat.Uid == uid && mode&0o022 != 0:
		if err := linux.Fchmod(fd, mode&0o755); err != nil {
			return fmt.Errorf("%s: mode %04o: %w", name, mode&0o755, bare(err))
		}
	case stat.Uid == 0 && changeable(stat) && isMountpoint(real):
		p.warn("%s can be changed by every user of the container (mode %04o)", name, mode)
	case changeable(stat):
		return changeableError(name, stat)
	}
	if err := probeWrite(fd); err != nil {
		return fmt.Errorf("%s cannot be written: %w", name, bare(err))
	}
	return nil
}

// useShm takes a directory with a random name in the container's /dev/shm.
func (p *Place) useShm(dir string, _ int64) error {
	if ns, err := os.Readlink(ipcNS); err != nil {
		return fmt.Errorf("%s may be the host's own: its IPC namespace cannot be read: %w", sharedShm, bare(err))
	} else if ns == initialIPC {
		return fmt.Errorf("%s is the host's own (IPC namespace of the host), where files outlive the container", sharedShm)
	}
	shm, err := openGuarded(sharedShm)
	if err != nil {
		return fmt.Errorf("%s: %w", sharedShm, bare(err))
	}
	defer linux.Close(shm)
	if err := checkMemory(shm, sharedShm); err != nil {
		return err
	}
	container := thisContainer()
	container.sweep(shm)
	name := container.shmPrefix() + rand.Text()
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
	p.NoSwap = neverSwapped(sharedShm)
	p.undo = append(p.undo, func() { _ = os.Remove(path) })
	p.setLinkDir(dir)
	return nil
}

// setLinkDir uses dir for links when it is a directory that we can write and
// nobody else can change; without one, NAME_FILE says the real path, which is
// as good.
func (p *Place) setLinkDir(dir string) {
	created, err := makeDirs(dir)
	if err != nil {
		return
	}
	fd, err := openGuarded(dir)
	if err == nil {
		err = probeWrite(fd)
		linux.Close(fd)
	}
	if err != nil {
		removeDirs(created)
		return
	}
	p.LinkDir = dir
	p.madeDirs(created)
}

// madeDirs notes directories that go with the place when it is taken back.
func (p *Place) madeDirs(created []string) {
	p.created = append(p.created, created...)
	p.undo = append(p.undo, func() { removeDirs(created) })
}
