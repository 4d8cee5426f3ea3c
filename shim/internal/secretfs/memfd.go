package secretfs

import (
	"errors"
	"fmt"

	"secret-init/shim/internal/linux"
)

// lowestMemfd keeps clear of the numbers that scripts open for themselves
// (exec 3>file), and of those of socket activation.
const lowestMemfd = 100

// maxMemfdName is the kernel's limit, in bytes (memfd_create(2)).
const maxMemfdName = 249

// Memfd delivers files in sealed memory instead of in a place: on no
// filesystem that has a path, never changed again by anybody. It returns the
// path of each, /proc/self/fd/N, which holds for the command and for those of
// its descendants that inherit the descriptors; whoever closes them loses
// the secrets. They are not closed on exec from here on: the command has to
// be executed next, with nothing else started in between.
//
// A path in /proc is opened anew, with a check of owner and mode. Without
// CAP_CHOWN the file cannot be the reader's: then everybody may read it who
// gets at it, which is to say who may look into the command's own /proc/PID/fd.
func Memfd(files []File) (paths []string, err error) {
	var fds []int
	defer func() {
		if err != nil {
			for _, fd := range fds {
				linux.Close(fd)
			}
		}
	}()
	for _, f := range files {
		fd, err := sealedFile(f)
		if err != nil {
			return nil, fmt.Errorf("%s in sealed memory: %w", f.Name, bare(err))
		}
		fds = append(fds, fd)
		paths = append(paths, fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	return paths, nil
}

func sealedFile(f File) (int, error) {
	fd, err := linux.Memfd(f.Name[:min(len(f.Name), maxMemfdName)])
	if err != nil {
		return -1, err
	}
	defer linux.Close(fd)
	err = hand(fd, f.UID, f.GID, f.Mode)
	if _, ok := errors.AsType[*OwnerError](err); ok {
		err = linux.Fchmod(fd, 0o444)
	}
	if err == nil {
		err = linux.Write(fd, f.Content)
	}
	if err == nil {
		err = linux.Seal(fd)
	}
	if err != nil {
		return -1, err
	}
	return linux.DupInherited(fd, lowestMemfd)
}
