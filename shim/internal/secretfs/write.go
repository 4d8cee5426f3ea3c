package secretfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// manifestName is the file that tells a later start what this one wrote.
const manifestName = ".secret-init"

// File is one secret to write.
type File struct {
	// Name is the file's name in the place: one component.
	Name    string
	Content []byte
	UID     int
	GID     int
	Mode    uint32
	// Link is an absolute path that becomes a link to the file; often empty.
	Link string
}

// manifest lists the names that belong to us. It holds no values.
type manifest struct {
	Files []string `json:"files"`
}

// Full says that the filesystem has no room (ENOSPC).
var Full error = unix.ENOSPC

// Write writes all files, or none: when one fails, what was written is
// removed. Afterwards a mount of our own is read-only.
//
//  1. a manifest of the old and the new names, so that a start that is killed
//     from here on leaves nothing that the next one does not know
//  2. each file: created exclusively under a temporary name, owned and moded
//     through its descriptor, written, renamed
//  3. old files that are no longer wanted, removed
//  4. links
//  5. the manifest of the new names alone; the directory opened to readers
func (p *Place) Write(files []File) error {
	err := p.write(files)
	if err != nil {
		p.Remove()
	}
	return err
}

func (p *Place) write(files []File) error {
	old := p.readManifest()
	p.undo = append(p.undo, func() { _ = linux.UnlinkAt(p.fd, manifestName) })
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	if err := p.writeManifest(append(slices.Clone(old), names...)); err != nil {
		return err
	}
	for _, f := range files {
		p.undo = append(p.undo, func() { _ = linux.UnlinkAt(p.fd, f.Name) })
		if stat, err := linux.LstatAt(p.fd, f.Name); err == nil && !slices.Contains(old, f.Name) {
			p.warn("%s: replacing what stands there (uid %d, mode %04o): nobody provided it", p.FilePath(f.Name), stat.Uid, stat.Mode&0o7777)
		}
		if err := p.writeFile(f); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(p.Path, f.Name), bare(err))
		}
	}
	for _, name := range old {
		if !slices.Contains(names, name) {
			_ = linux.UnlinkAt(p.fd, name)
		}
	}
	if err := p.link(files); err != nil {
		return err
	}
	if err := p.writeManifest(names); err != nil {
		return err
	}
	switch p.Kind {
	case Shm:
		if err := linux.Fchmod(p.fd, 0o755); err != nil {
			return err
		}
	case OwnMount:
		p.makeReadOnly()
	}
	return nil
}

// writeFile leaves either the whole file under its name, or nothing.
func (p *Place) writeFile(f File) (err error) {
	temporary := temporaryName()
	// Mode 0: until its owner is set nobody can open it.
	fd, err := linux.OpenAt(p.fd, temporary, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer linux.Close(fd)
	defer func() {
		if err != nil {
			_ = linux.UnlinkAt(p.fd, temporary)
		}
	}()
	stat, err := linux.Fstat(fd)
	if err != nil {
		return err
	}
	if int(stat.Uid) != f.UID || int(stat.Gid) != f.GID {
		if err := linux.Fchown(fd, f.UID, f.GID); err != nil {
			return &OwnerError{UID: f.UID, GID: f.GID, Err: bare(err)}
		}
	}
	// After the owner: chown(2) clears mode bits.
	if err := linux.Fchmod(fd, f.Mode); err != nil {
		return err
	}
	if err := linux.Write(fd, f.Content); err != nil {
		return err
	}
	return linux.RenameAt(p.fd, temporary, f.Name)
}

// OwnerError: a file cannot be given to its owner.
type OwnerError struct {
	UID, GID int
	Err      error
}

func (e *OwnerError) Error() string {
	return fmt.Sprintf("cannot be given to %d:%d: %v", e.UID, e.GID, e.Err)
}

// link puts links at LinkDir, and at the absolute targets.
func (p *Place) link(files []File) error {
	for _, f := range files {
		target := filepath.Join(p.Path, f.Name)
		if p.LinkDir != "" {
			if err := p.placeLink(target, filepath.Join(p.LinkDir, f.Name)); err != nil {
				return err
			}
		}
		if f.Link != "" {
			if err := p.placeLink(target, f.Link); err != nil {
				return err
			}
		}
	}
	return nil
}

// placeLink replaces what stands at path by a link to target. The link is
// made under a temporary name and renamed, so that nothing is followed.
func (p *Place) placeLink(target, path string) error {
	parent, name := filepath.Split(path)
	dir, err := linux.OpenDir(filepath.Clean(parent))
	if err != nil {
		return fmt.Errorf("no link can be placed at %s: %w", path, bare(err))
	}
	defer linux.Close(dir)
	if existing, err := linux.ReadlinkAt(dir, name); err == nil {
		if existing != target && !ours(existing) {
			p.warn("%s: replacing the link that stands there", path)
		}
	} else if !errors.Is(err, unix.ENOENT) {
		p.warn("%s: replacing what stands there: nobody provided it", path)
	}
	temporary := temporaryName()
	if err := linux.SymlinkAt(target, dir, temporary); err != nil {
		return fmt.Errorf("no link can be placed at %s: %w", path, bare(err))
	}
	if err := linux.RenameAt(dir, temporary, name); err != nil {
		_ = linux.UnlinkAt(dir, temporary)
		return fmt.Errorf("no link can be placed at %s: %w", path, bare(err))
	}
	p.undo = append(p.undo, func() {
		if now, err := os.Readlink(path); err == nil && now == target {
			_ = os.Remove(path)
		}
	})
	return nil
}

// ours reports whether a link was left by an earlier start: its tmpfs is
// gone with that container's run, the link in the container's layer is not.
func ours(target string) bool {
	return strings.HasPrefix(target, filepath.Join(sharedShm, shmPattern)) || strings.HasPrefix(target, ownMount+"/")
}

// FilePath is what NAME_FILE says for a file of that name.
func (p *Place) FilePath(name string) string {
	if p.LinkDir != "" {
		return filepath.Join(p.LinkDir, name)
	}
	return filepath.Join(p.Path, name)
}

// Remove takes back all that this start did, in reverse order.
func (p *Place) Remove() {
	for _, undo := range slices.Backward(p.undo) {
		undo()
	}
	p.undo = nil
}

// Warnings are what happened that a user should hear of.
func (p *Place) Warnings() []string { return p.warnings }

func (p *Place) warn(format string, args ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

// readManifest is what an earlier start left here. In a start as root it is
// believed only when it is root's: everybody else's could name any file.
func (p *Place) readManifest() []string {
	fd, err := linux.OpenBeneath(p.fd, manifestName, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil
	}
	file := os.NewFile(uintptr(fd), manifestName)
	defer file.Close()
	stat, err := linux.Fstat(fd)
	if err != nil || int(stat.Uid) != os.Geteuid() || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	var m manifest
	if json.NewDecoder(file).Decode(&m) != nil {
		return nil
	}
	return slices.DeleteFunc(m.Files, func(name string) bool {
		return name != filepath.Base(name) || name == ".." || name == "."
	})
}

func (p *Place) writeManifest(names []string) error {
	slices.Sort(names)
	content, err := json.Marshal(manifest{Files: slices.Compact(names)})
	if err != nil {
		return err
	}
	err = p.writeFile(File{Name: manifestName, Content: content, UID: os.Geteuid(), GID: os.Getegid(), Mode: 0o444})
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(p.Path, manifestName), bare(err))
	}
	return nil
}
