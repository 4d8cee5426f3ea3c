package secretfs

import (
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// Reader is who is going to read the secrets.
type Reader struct {
	UID    int
	Groups []int
}

// Provided reports whether the platform (Compose, Swarm, Kubernetes) has put
// a secret at path. It believes a file on a read-only mount of its own or of
// its directory, and one of root's that the reader can neither write nor
// replace; never one of our own, and never one that the command could have
// planted for its next start. A reader who is root could replace this program
// as well, so that only the file's own mode can be asked.
func Provided(path string, reader Reader) bool {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	fd, err := linux.OpenAt(unix.AT_FDCWD, real, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer linux.Close(fd)
	file, err := linux.Fstat(fd)
	if err != nil || file.Mode&unix.S_IFMT != unix.S_IFREG || leftover(real) {
		return false
	}
	if filesystem, err := linux.Fstatfs(fd); err == nil && filesystem.ReadOnly && onOtherMount(real) {
		return true
	}
	return file.Uid == 0 && !writable(file, reader) && rootsAllTheWay(path, reader) && rootsAllTheWay(real, reader)
}

// onOtherMount: the file, or a directory above it, is a mount point other than
// the root, and not one that we made.
func onOtherMount(path string) bool {
	m := mountOf(path)
	return m != nil && m.Mountpoint != "/" && !isOwn(m)
}

// rootsAllTheWay: the reader cannot swap the file by way of a directory.
func rootsAllTheWay(path string, reader Reader) bool {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		fd, err := linux.OpenAt(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return false
		}
		stat, err := linux.Fstat(fd)
		linux.Close(fd)
		if err != nil || stat.Uid != 0 || writable(stat, reader) {
			return false
		}
		if dir == "/" {
			return true
		}
	}
}

func writable(stat unix.Stat_t, reader Reader) bool {
	if stat.Mode&0o002 != 0 {
		return true
	}
	if reader.UID != 0 && stat.Uid == uint32(reader.UID) {
		return true
	}
	return stat.Mode&0o020 != 0 && slices.Contains(reader.Groups, int(stat.Gid))
}

// leftover: an earlier start of ours wrote the file, by the manifest beside it.
func leftover(path string) bool {
	if above := filepath.Dir(path); isDataDir(filepath.Base(above)) {
		path = above
	}
	dir, err := linux.OpenDir(filepath.Dir(path))
	if err != nil {
		return false
	}
	defer linux.Close(dir)
	return slices.Contains(ownNames(dir), filepath.Base(path))
}

// Readable reports whether the reader may read a provided file, by its mode
// and those of the directories above it.
func Readable(path string, reader Reader) bool {
	if reader.UID == 0 {
		return true
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	if !permits(real, 0o4, reader) {
		return false
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		if !permits(dir, 0o1, reader) {
			return false
		}
		if dir == "/" {
			return true
		}
	}
}

// permits: the one class of the mode that the reader is in has the bit.
func permits(path string, bit uint32, reader Reader) bool {
	var stat unix.Stat_t
	if unix.Stat(path, &stat) != nil {
		return false
	}
	switch {
	case stat.Uid == uint32(reader.UID):
		bit <<= 6
	case slices.Contains(reader.Groups, int(stat.Gid)):
		bit <<= 3
	}
	return stat.Mode&bit != 0
}
