package secretfs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// maxLinks is the kernel's own limit (path_resolution(7)).
const maxLinks = 40

// resolve follows path as the kernel would, and makes sure that nobody but
// root and we can change where it leads: each directory and each link on the
// way is root's or ours, and a directory that others may write to is sticky.
// The last directory itself is left out with parentsOnly.
func resolve(path string, parentsOnly bool) (real string, err error) {
	pending := components(path)
	at, links := "/", 0
	for {
		var stat unix.Stat_t
		if err := unix.Lstat(at, &stat); err != nil {
			return "", fmt.Errorf("%s: %w", at, err)
		}
		last := len(pending) == 0
		switch {
		case stat.Mode&unix.S_IFMT == unix.S_IFLNK:
			if !trusted(stat) {
				return "", changeableError(at, stat)
			}
			target, err := os.Readlink(at)
			if err != nil {
				return "", fmt.Errorf("%s: %w", at, bare(err))
			}
			if links++; links > maxLinks {
				return "", fmt.Errorf("%s: %w", path, unix.ELOOP)
			}
			pending = append(components(target), pending...)
			at = filepath.Dir(at)
			if filepath.IsAbs(target) {
				at = "/"
			}
		case !(last && parentsOnly) && changeable(stat):
			return "", changeableError(at, stat)
		case last:
			return at, nil
		default:
			at, pending = filepath.Join(at, pending[0]), pending[1:]
		}
	}
}

func components(path string) []string {
	return strings.FieldsFunc(filepath.Clean(path), func(c rune) bool { return c == '/' })
}

func changeableError(path string, stat unix.Stat_t) error {
	return fmt.Errorf("%s can be changed by others (uid %d, mode %04o)", path, stat.Uid, stat.Mode&0o7777)
}

// trusted: what root owns cannot be defended against root.
func trusted(stat unix.Stat_t) bool {
	return stat.Uid == 0 || stat.Uid == uint32(os.Geteuid())
}

// changeable: somebody else can put a name into the directory and take one
// out of it. Members of root's group or of our own count as we do, since
// images for arbitrary uids let their group 0 write.
func changeable(stat unix.Stat_t) bool {
	if !trusted(stat) {
		return true
	}
	if stat.Mode&unix.S_ISVTX != 0 {
		return false
	}
	group := stat.Mode&0o020 != 0 && stat.Gid != 0 && stat.Gid != uint32(os.Getegid())
	return group || stat.Mode&0o002 != 0
}

// openGuarded opens a directory that only root and we can change or replace.
func openGuarded(path string) (int, error) {
	real, err := resolve(path, false)
	if err != nil {
		return -1, err
	}
	return linux.OpenDir(real)
}

// makeDirs creates path and its missing parents, and lists those it created,
// outermost first.
func makeDirs(path string) (created []string, err error) {
	above := path
	for ; above != filepath.Dir(above); above = filepath.Dir(above) {
		if _, err := os.Stat(above); err == nil {
			break
		}
		created = append([]string{above}, created...)
	}
	if len(created) == 0 {
		return nil, nil
	}
	if _, err := resolve(above, false); err != nil {
		return nil, err
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

// probeWrite creates a file: access(2) would ask for the real uid, and knows
// nothing of capabilities that were dropped. One without a name cannot be left
// behind; where the filesystem has none (overlayfs before Linux 6.3, ramfs),
// one that is removed at once.
func probeWrite(dir int) error {
	fd, err := linux.OpenUnnamed(dir)
	if err == nil {
		linux.Close(fd)
		return nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	name := temporaryName()
	fd, err = linux.OpenAt(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	linux.Close(fd)
	return linux.UnlinkAt(dir, name)
}

// list names what is in a directory.
func list(dir int) ([]string, error) {
	// A descriptor of its own: reading moves the offset.
	fd, err := linux.OpenAt(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "directory")
	defer file.Close()
	return file.Readdirnames(-1)
}

const temporaryPrefix = ".secret-init-"

// temporaryName cannot be guessed, so that nothing can be planted there.
func temporaryName() string { return temporaryPrefix + rand.Text() }

// oneComponent: the name cannot lead out of its directory.
func oneComponent(name string) bool {
	return name == filepath.Base(name) && name != "." && name != ".." && !strings.Contains(name, "\x00")
}

// bare leaves the reason alone: "operation not permitted", without the call.
func bare(err error) error {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return err
}
