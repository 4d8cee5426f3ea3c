package secretfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// link puts links at LinkDir, and at the absolute targets.
func (p *Place) link(files []File) error {
	for _, f := range files {
		target := filepath.Join(p.Path, f.Name)
		if err := p.linkFromDir(target, f.Name); err != nil {
			return err
		}
		if f.Link != "" {
			if err := p.placeLink(target, f.Link); err != nil {
				return err
			}
		}
	}
	return nil
}

// linkFromDir puts the link at --dir/NAME. Where none can be placed the file
// is found by its own path; something else that stands there is worth a word,
// since an application may have that path built in.
func (p *Place) linkFromDir(target, name string) error {
	if p.LinkDir == "" {
		if stands := filepath.Join(p.wanted, name); p.wanted != p.Path && exists(stands) {
			p.warn("%s is not from here, and cannot be replaced: the secret is at %s", stands, target)
		}
		return nil
	}
	path := filepath.Join(p.LinkDir, name)
	if isMountpoint(path) {
		p.warn("%s is a mount, and cannot be replaced: the secret is at %s", path, target)
		p.unlinked[name] = true
		return nil
	}
	return p.placeLink(target, path)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// placeLink replaces what stands at path by a link to target. The link is
// made under a temporary name and renamed, so that nothing is followed; and
// only where nobody else can put another one in its place.
func (p *Place) placeLink(target, path string) error {
	parent, name := filepath.Split(filepath.Clean(path))
	dir, err := openGuarded(parent)
	if err != nil {
		return fmt.Errorf("no link can be placed at %s: %w", path, bare(err))
	}
	defer linux.Close(dir)
	clearLinks(dir, target)
	if existing, err := linux.ReadlinkAt(dir, name); err == nil {
		if existing != target && !ours(existing) {
			p.warn("%s: replacing the link that stands there", path)
		}
	} else if !errors.Is(err, unix.ENOENT) {
		p.warn("%s: replacing what stands there", path)
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

// clearLinks removes links that earlier starts have left: temporary ones of a
// start that was killed, and ours that lead nowhere any more.
func clearLinks(dir int, target string) {
	names, err := list(dir)
	if err != nil {
		return
	}
	for _, name := range names {
		existing, err := linux.ReadlinkAt(dir, name)
		if err != nil {
			continue
		}
		killed := strings.HasPrefix(name, temporaryPrefix) && (existing == target || ours(existing))
		_, err = os.Stat(existing)
		if killed || ours(existing) && errors.Is(err, os.ErrNotExist) {
			_ = linux.UnlinkAt(dir, name)
		}
	}
}

// ours reports whether a link was left by an earlier start: its tmpfs is
// gone with that container's run, the link in the container's layer is not.
func ours(target string) bool {
	return strings.HasPrefix(target, filepath.Join(sharedShm, shmPattern)) || strings.HasPrefix(target, ownMount+"/")
}
