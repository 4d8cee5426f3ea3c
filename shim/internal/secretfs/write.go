package secretfs

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// File is one secret to write.
type File struct {
	// Name is the file's name in the place: one component.
	Name    string
	Content []byte
	UID     int
	GID     int
	Mode    uint32
	// Variable is the one that gets the file's path, for the manifest; often empty.
	Variable string
	// Link is an absolute path that becomes a link to the file; often empty.
	Link string
}

// Full says that the filesystem has no room (ENOSPC).
var Full error = unix.ENOSPC

// FullError says that the files do not fit into the place. It is Full.
type FullError struct{ Path string }

func (e *FullError) Error() string {
	return fmt.Sprintf("%s has no room left for the secrets", e.Path)
}

// Unwrap is Full.
func (e *FullError) Unwrap() error { return Full }

// Write writes all files, or none: when one fails, what was written is
// removed, and so is what an earlier start of ours had left. Afterwards a
// mount of our own is read-only.
//
//  1. a manifest of the old, the new and the temporary names, so that a start
//     that is killed from here on leaves nothing that the next one does not know
//  2. each file: created exclusively under a temporary name, owned and moded
//     through its descriptor, written, renamed
//  3. old files that are no longer wanted, removed
//  4. links
//  5. the manifest of the new names alone; the directory opened to readers,
//     or closed to everybody
func (p *Place) Write(files []File) error {
	err := p.write(files)
	if err != nil {
		p.Remove()
	}
	return err
}

func (p *Place) write(files []File) error {
	old := ownNames(p.fd)
	names := map[string]bool{}
	var entries, all []Entry
	temporary := make([]string, len(files))
	for i, f := range files {
		if !oneComponent(f.Name) || strings.HasPrefix(f.Name, manifestBase) || names[f.Name] {
			return fmt.Errorf("%q cannot be a file's name", f.Name)
		}
		names[f.Name] = true
		temporary[i] = temporaryName()
		entries = append(entries, Entry{Name: f.Name, Variable: f.Variable, Path: p.FilePath(f.Name), Link: f.Link})
		all = append(all, Entry{Name: temporary[i]})
	}
	for _, name := range old {
		all = append(all, Entry{Name: name})
	}
	p.undo = append(p.undo, func() {
		for _, name := range old {
			_ = removeName(p.fd, name)
		}
		_ = linux.UnlinkAt(p.fd, thisContainer().manifestName())
	})
	if err := p.writeManifest(append(all, entries...)); err != nil {
		return err
	}
	for i, f := range files {
		if stat, err := linux.LstatAt(p.fd, f.Name); err == nil && !slices.Contains(old, f.Name) {
			p.warn("%s: replacing what stands there (uid %d, mode %04o)", p.FilePath(f.Name), stat.Uid, stat.Mode&0o7777)
		}
		if err := p.writeFile(f, temporary[i]); err != nil {
			return p.explain(f.Name, err)
		}
		p.undo = append(p.undo, func() { _ = linux.UnlinkAt(p.fd, f.Name) })
	}
	for _, name := range old {
		if !names[name] {
			_ = removeName(p.fd, name)
		}
	}
	if err := p.link(files); err != nil {
		return err
	}
	for i, entry := range entries {
		entries[i].Path = p.FilePath(entry.Name)
	}
	if err := p.writeManifest(entries); err != nil {
		return err
	}
	switch p.Kind {
	case Shm:
		if err := linux.Fchmod(p.fd, 0o755); err != nil {
			return fmt.Errorf("%s: mode 0755: %w", p.Path, bare(err))
		}
	case OwnMount:
		return p.makeReadOnly()
	}
	return nil
}

func (p *Place) explain(name string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &FullError{Path: p.Path}
	}
	return fmt.Errorf("%s: %w", filepath.Join(p.Path, name), bare(err))
}

// writeFile leaves either the whole file under its name, or nothing.
func (p *Place) writeFile(f File, temporary string) (err error) {
	// Mode 0: until its group is set nobody else can open it.
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
	if err := hand(fd, f.UID, f.GID, f.Mode); err != nil {
		return err
	}
	if err := linux.Write(fd, f.Content); err != nil {
		return err
	}
	return linux.RenameAt(p.fd, temporary, f.Name)
}

// hand gives an empty file its owner and mode: the group first, so that the
// mode opens it to no other group; the owner last, since afterwards the mode
// is no longer ours to set (that would need CAP_FOWNER beside CAP_CHOWN).
func hand(fd, uid, gid int, mode uint32) error {
	stat, err := linux.Fstat(fd)
	if err != nil {
		return err
	}
	if int(stat.Gid) != gid {
		if err := linux.Fchown(fd, -1, gid); err != nil {
			return &OwnerError{UID: uid, GID: gid, Err: bare(err)}
		}
	}
	if err := linux.Fchmod(fd, mode); err != nil {
		return err
	}
	if int(stat.Uid) != uid {
		if err := linux.Fchown(fd, uid, -1); err != nil {
			return &OwnerError{UID: uid, GID: gid, Err: bare(err)}
		}
	}
	return nil
}

// OwnerError says that a file cannot be given to its owner.
type OwnerError struct {
	UID, GID int
	Err      error
}

func (e *OwnerError) Error() string {
	return fmt.Sprintf("cannot be given to %d:%d: %v", e.UID, e.GID, e.Err)
}

// FilePath is what NAME_FILE says for a file of that name, once it is written.
func (p *Place) FilePath(name string) string {
	if p.LinkDir != "" && !p.unlinked[name] {
		return filepath.Join(p.LinkDir, name)
	}
	return filepath.Join(p.Path, name)
}

// Remove takes back all that this start did, in reverse order.
func (p *Place) Remove() {
	p.makeWritable()
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
