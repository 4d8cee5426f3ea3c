// Package linux has one wrapper for each system call that the program makes
// by itself: it retries EINTR and names the call in the error. It takes no
// decision.
package linux

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// retry repeats a call that a signal interrupted (signal(7)), and names the
// call in its error.
func retry(name string, call func() error) error {
	for {
		err := call()
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError(name, err)
		}
	}
}

// Open flags that every descriptor of ours has.
const always = unix.O_CLOEXEC

// OpenDir opens a directory for use with the *at calls. A symbolic link as
// the last component of path is not followed (O_NOFOLLOW).
func OpenDir(path string) (int, error) {
	return OpenAt(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// OpenAt is openat(2).
func OpenAt(dir int, name string, flags int, mode uint32) (int, error) {
	fd := -1
	err := retry("openat", func() (err error) {
		fd, err = unix.Openat(dir, name, flags|always, mode)
		return err
	})
	return fd, err
}

// OpenBeneath opens name, one component, below dir and follows no symbolic
// link (openat2(2), Linux 5.6). Before that kernel, and under a seccomp
// profile that does not know the call, O_NOFOLLOW does the same for a name of
// one component; any other name is refused.
func OpenBeneath(dir int, name string, flags int) (int, error) {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return -1, os.NewSyscallError("openat2", unix.EXDEV)
	}
	how := &unix.OpenHow{
		Flags:   uint64(flags | always),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd := -1
	err := retry("openat2", func() (err error) {
		fd, err = unix.Openat2(dir, name, how)
		return err
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return OpenAt(dir, name, flags|unix.O_NOFOLLOW, 0)
	}
	return fd, err
}

// OpenUnnamed opens a new file that has no name (O_TMPFILE in open(2)), which
// nothing can be left behind of.
func OpenUnnamed(dir int) (int, error) {
	return OpenAt(dir, ".", unix.O_TMPFILE|unix.O_WRONLY, 0)
}

// Close closes a descriptor; there is nothing to do about a failure.
func Close(fd int) { _ = unix.Close(fd) }

// MkdirAt is mkdirat(2).
func MkdirAt(dir int, name string, mode uint32) error {
	return retry("mkdirat", func() error { return unix.Mkdirat(dir, name, mode) })
}

// UnlinkAt removes a name that is not a directory.
func UnlinkAt(dir int, name string) error {
	return retry("unlinkat", func() error { return unix.Unlinkat(dir, name, 0) })
}

// RmdirAt removes an empty directory.
func RmdirAt(dir int, name string) error {
	return retry("unlinkat", func() error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
}

// RenameAt moves a name within one directory, over what stands there.
func RenameAt(dir int, from, to string) error {
	return retry("renameat", func() error { return unix.Renameat(dir, from, dir, to) })
}

// SymlinkAt is symlinkat(2).
func SymlinkAt(target string, dir int, name string) error {
	return retry("symlinkat", func() error { return unix.Symlinkat(target, dir, name) })
}

// ReadlinkAt is readlinkat(2).
func ReadlinkAt(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n := 0
	err := retry("readlinkat", func() (err error) {
		n, err = unix.Readlinkat(dir, name, buf)
		return err
	})
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// Fchown is fchown(2).
func Fchown(fd, uid, gid int) error {
	return retry("fchown", func() error { return unix.Fchown(fd, uid, gid) })
}

// Fchmod is fchmod(2).
func Fchmod(fd int, mode uint32) error {
	return retry("fchmod", func() error { return unix.Fchmod(fd, mode) })
}

// Fstat is fstat(2).
func Fstat(fd int) (unix.Stat_t, error) {
	var stat unix.Stat_t
	err := retry("fstat", func() error { return unix.Fstat(fd, &stat) })
	return stat, err
}

// LstatAt is fstatat(2) of the name itself, link or not.
func LstatAt(dir int, name string) (unix.Stat_t, error) {
	var stat unix.Stat_t
	err := retry("fstatat", func() error { return unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW) })
	return stat, err
}

// Write writes all of b.
func Write(fd int, b []byte) error {
	for len(b) > 0 {
		n := 0
		err := retry("write", func() (err error) {
			n, err = unix.Write(fd, b)
			return err
		})
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// Filesystem is what fstatfs(2) says of a descriptor's filesystem.
type Filesystem struct {
	Type     int64
	ReadOnly bool
}

// Fstatfs asks what filesystem a descriptor lies on.
func Fstatfs(fd int) (Filesystem, error) {
	var stat unix.Statfs_t
	err := retry("fstatfs", func() error { return unix.Fstatfs(fd, &stat) })
	return Filesystem{Type: int64(stat.Type), ReadOnly: stat.Flags&unix.ST_RDONLY != 0}, err
}

// InMemory reports whether the filesystem keeps its files in memory alone
// (but for swap): tmpfs or ramfs, by their magic numbers (statfs(2)).
func (f Filesystem) InMemory() bool {
	return f.Type == unix.TMPFS_MAGIC || f.Type == unix.RAMFS_MAGIC
}

// Name is the usual name of the filesystem, or its magic number.
func (f Filesystem) Name() string {
	names := map[int64]string{
		unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.FUSE_SUPER_MAGIC: "fuse", unix.NFS_SUPER_MAGIC: "nfs",
	}
	if name, ok := names[f.Type]; ok {
		return name
	}
	return fmt.Sprintf("filesystem type %#x", f.Type)
}

// Mount is mount(2).
func Mount(source, target, fstype string, flags uintptr, data string) error {
	return retry("mount", func() error { return unix.Mount(source, target, fstype, flags, data) })
}

// Unmount detaches a mount at once, even while it is in use (MNT_DETACH); a
// symbolic link at target is not followed.
func Unmount(target string) error {
	return retry("umount2", func() error { return unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
}

// NotDumpable keeps the process from dumping core, and its memory and
// environment in /proc from others of the same uid (PR_SET_DUMPABLE in
// prctl(2)). execve(2) resets it.
func NotDumpable() error {
	return Prctl("prctl(PR_SET_DUMPABLE)", unix.PR_SET_DUMPABLE, 0, 0)
}

// Prctl is prctl(2) on the calling thread; name goes into the error.
func Prctl(name string, option int, arg2, arg3 uintptr) error {
	return retry(name, func() error { return unix.Prctl(option, arg2, arg3, 0, 0) })
}

// The identity calls below act on the calling thread alone: Go's own
// syscall.Setuid and its kin change every thread, which only hides that the
// rest of the drop (prctl, capset) cannot. execve(2) ends the other threads
// and keeps the credentials of the one that called it.

// SetGroups is setgroups(2).
func SetGroups(gids []int) error {
	list := make([]uint32, len(gids))
	for i, gid := range gids {
		list[i] = uint32(gid)
	}
	return retry("setgroups", func() error {
		return errno(unix.RawSyscall(sysSetgroups, uintptr(len(list)), uintptr(unsafe.Pointer(unsafe.SliceData(list))), 0))
	})
}

// SetGID sets the real, effective and saved group id.
func SetGID(gid int) error {
	id := uintptr(gid)
	return retry("setresgid", func() error { return errno(unix.RawSyscall(sysSetresgid, id, id, id)) })
}

// SetUID sets the real, effective and saved user id.
func SetUID(uid int) error {
	id := uintptr(uid)
	return retry("setresuid", func() error { return errno(unix.RawSyscall(sysSetresuid, id, id, id)) })
}

func errno(_, _ uintptr, e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// Memfd makes an anonymous file in memory (memfd_create(2)) that can be
// sealed and, where the kernel knows how (Linux 6.3), never be executed. name
// is for /proc alone.
func Memfd(name string) (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd := -1
	create := func(flags int) error {
		return retry("memfd_create", func() (err error) {
			fd, err = unix.MemfdCreate(name, flags)
			return err
		})
	}
	err := create(flags | unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		err = create(flags)
	}
	return fd, err
}

// Seal forbids any further change of a memfd, its seals among them
// (F_ADD_SEALS in fcntl(2)).
func Seal(fd int) error {
	return retry("fcntl(F_ADD_SEALS)", func() error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
		return err
	})
}

// DupInherited duplicates a descriptor to the first free number from lowest
// up, for a command to inherit: without close-on-exec.
func DupInherited(fd, lowest int) (int, error) {
	dup := -1
	err := retry("fcntl(F_DUPFD)", func() (err error) {
		dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD, lowest)
		return err
	})
	return dup, err
}

// FileCapabilities reports whether the file grants capabilities when it is
// executed (security.capability in capabilities(7)).
func FileCapabilities(path string) bool {
	n := 0
	err := retry("getxattr", func() (err error) {
		n, err = unix.Getxattr(path, "security.capability", nil)
		return err
	})
	return err == nil && n > 0
}

// Exec is execve(2). It returns only when that failed. It goes through the
// syscall package, which puts back the RLIMIT_NOFILE that the Go runtime raised.
func Exec(path string, argv, env []string) error {
	return os.NewSyscallError("execve", unix.Exec(path, argv, env))
}
