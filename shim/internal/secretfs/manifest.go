package secretfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// manifestBase is the file that tells a later start what this one wrote.
const manifestBase = ".secret-init"

// maxManifest bounds what is read of a file that somebody else may have written.
const maxManifest = 1 << 20

// manifest lists the names that belong to us. It holds no values.
type manifest struct {
	Files []Entry `json:"files"`
}

// Entry is a file that a start has delivered.
type Entry struct {
	Name string `json:"name"`
	// Variable has the file's path in the command's environment; empty for none.
	Variable string `json:"variable,omitempty"`
	// Path is the value of that variable.
	Path string `json:"path,omitempty"`
	// Link is an absolute path that leads to the file as well.
	Link string `json:"link,omitempty"`
}

func own(stat unix.Stat_t) bool { return stat.Uid == uint32(os.Geteuid()) }

// ownNames are the files that an earlier start left in the directory. Its
// manifest is believed only when the same user wrote it: everybody else's
// could name any file. A second hard link means that it was written for
// another directory.
func ownNames(dir int) []string {
	var names []string
	for _, entry := range readManifest(dir, own) {
		names = append(names, entry.Name)
	}
	return names
}

func readManifest(dir int, believe func(unix.Stat_t) bool) []Entry {
	name := thisContainer().manifestName()
	// O_NONBLOCK: a planted fifo must not hold us up.
	fd, err := linux.OpenBeneath(dir, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	stat, err := linux.Fstat(fd)
	if err != nil || !believe(stat) || stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Nlink != 1 {
		return nil
	}
	var m manifest
	if json.NewDecoder(io.LimitReader(file, maxManifest)).Decode(&m) != nil {
		return nil
	}
	return slices.DeleteFunc(m.Files, func(e Entry) bool { return !oneComponent(e.Name) })
}

func (p *Place) writeManifest(entries []Entry) error {
	content, err := json.Marshal(manifest{Files: entries})
	if err != nil {
		return err
	}
	name := thisContainer().manifestName()
	temporary := name + ".new"
	// One fixed name, so that none is left over; unless somebody else, in a
	// directory that others may write to, stands in its way.
	if stat, err := linux.LstatAt(p.fd, temporary); err == nil {
		if !own(stat) || linux.UnlinkAt(p.fd, temporary) != nil {
			temporary = temporaryName()
		}
	}
	err = p.writeFile(File{Name: name, Content: content, UID: os.Geteuid(), GID: os.Getegid(), Mode: 0o444}, temporary)
	if err != nil {
		return p.explain(name, err)
	}
	return nil
}

// ErrNothingDelivered says that no start has delivered files here.
var ErrNothingDelivered = errors.New("no files that secret-init has delivered")

// Delivered lists the files of the start that delivered to dir, for a process
// that is executed in a running container. It believes manifests of root and
// of its own user. Files that have been removed since are left out.
func Delivered(dir string) ([]Entry, error) {
	for _, place := range append([]string{filepath.Clean(dir), ownMount}, shmPlaces()...) {
		if entries := deliveredAt(place); len(entries) > 0 {
			return entries, nil
		}
	}
	return nil, fmt.Errorf("%w at %s", ErrNothingDelivered, dir)
}

func deliveredAt(place string) []Entry {
	fd, err := linux.OpenAt(unix.AT_FDCWD, place, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	defer linux.Close(fd)
	return slices.DeleteFunc(readManifest(fd, trusted), func(e Entry) bool {
		_, err := linux.LstatAt(fd, e.Name)
		return err != nil || !filepath.IsAbs(e.Path)
	})
}

// shmPlaces are the directories of this container in /dev/shm, the newest first.
func shmPlaces() []string {
	entries, err := os.ReadDir(sharedShm)
	if err != nil {
		return nil
	}
	type dir struct {
		path string
		at   int64
	}
	var dirs []dir
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && info.IsDir() && strings.HasPrefix(entry.Name(), thisContainer().shmPrefix()) {
			dirs = append(dirs, dir{filepath.Join(sharedShm, entry.Name()), info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(dirs, func(a, b dir) int { return int(min(1, max(-1, b.at-a.at))) })
	var paths []string
	for _, d := range dirs {
		paths = append(paths, d.path)
	}
	return paths
}
