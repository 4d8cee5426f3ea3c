package secretfs

import (
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

// ownSource is how mountinfo names a mount of ours.
const ownSource = "secret-init"

const ownFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mountOwn mounts a tmpfs on dir when nothing there would be hidden, else on
// a directory of our own.
func (p *Place) mountOwn(dir string, size int64) error {
	target := ownMount
	if emptyAndBare(dir) {
		target = dir
	}
	if target != dir && p.reopenOwn(target, size) {
		p.setLinkDir(dir)
		return nil
	}
	created, err := makeDirs(target)
	if err == nil {
		_, err = resolve(target, false)
	}
	if err != nil {
		removeDirs(created)
		return fmt.Errorf("no tmpfs of our own: %s: %w", target, bare(err))
	}
	data := fmt.Sprintf("mode=0755,size=%d", size)
	// noswap is known from Linux 6.4 on (tmpfs(5)), outside of user namespaces.
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
	p.madeDirs(created)
	p.undo = append(p.undo, func() { _ = linux.Unmount(target) })
	if target != dir {
		p.setLinkDir(dir)
	}
	return nil
}

// reopenOwn takes up the mount of an earlier start in the same mount
// namespace, as when a service is restarted on a host: it was left read-only.
func (p *Place) reopenOwn(target string, size int64) bool {
	real, err := filepath.EvalSymlinks(target)
	if err != nil {
		return false
	}
	m := mountAt(real)
	if m == nil || !isOwn(m) {
		return false
	}
	data := fmt.Sprintf("size=%d", size)
	if p.NoSwap = neverSwapped(target); p.NoSwap {
		data += ",noswap"
	}
	// Without MS_BIND, so that the size can change as well.
	if linux.Mount("", target, "", unix.MS_REMOUNT|ownFlags, data) != nil {
		return false
	}
	fd, err := linux.OpenDir(target)
	if err != nil {
		return false
	}
	if checkMemory(fd, target) != nil {
		linux.Close(fd)
		return false
	}
	p.fd, p.Path, p.Kind = fd, target, OwnMount
	p.undo = append(p.undo, func() { _ = p.makeReadOnly() })
	return true
}

// makeReadOnly keeps even the files' owner from changing them.
func (p *Place) makeReadOnly() error {
	err := linux.Mount("", p.Path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|ownFlags, "")
	if err != nil {
		return fmt.Errorf("%s cannot be made read-only: %w", p.Path, bare(err))
	}
	p.readOnly = true
	return nil
}

// makeWritable is for taking back.
func (p *Place) makeWritable() {
	if p.readOnly {
		_ = linux.Mount("", p.Path, "", unix.MS_REMOUNT|unix.MS_BIND|ownFlags, "")
		p.readOnly = false
	}
}

// emptyAndBare: a mount on dir would hide neither a file nor another mount.
func emptyAndBare(dir string) bool {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return false
	}
	entries, err := os.ReadDir(real)
	if err != nil || len(entries) > 0 {
		return false
	}
	beneath, err := mountinfo.GetMounts(mountinfo.PrefixFilter(real))
	return err == nil && len(beneath) == 0
}

func isOwn(m *mountinfo.Info) bool { return m.FSType == "tmpfs" && m.Source == ownSource }

// mountAt is the uppermost mount at path; nil for none. Later lines of
// proc_pid_mountinfo(5) lie over earlier ones.
func mountAt(path string) *mountinfo.Info {
	if m := mountOf(path); m != nil && m.Mountpoint == path {
		return m
	}
	return nil
}

func isMountpoint(path string) bool { return mountAt(path) != nil }

// mountOf is the mount that path, which has no links in it, lies on.
func mountOf(path string) *mountinfo.Info {
	above, err := mountinfo.GetMounts(mountinfo.ParentsFilter(path))
	if err != nil {
		return nil
	}
	var found *mountinfo.Info
	for _, m := range above {
		if found == nil || len(m.Mountpoint) >= len(found.Mountpoint) {
			found = m
		}
	}
	return found
}

// neverSwapped: a tmpfs says so among its options; ramfs has no swap at all.
func neverSwapped(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	m := mountOf(real)
	return m != nil && (m.FSType == "ramfs" || strings.Contains(","+m.VFSOptions+",", ",noswap,"))
}
