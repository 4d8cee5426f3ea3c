package secretfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// Description is a place as one process tells another of it. It holds no
// value and no reference.
type Description struct {
	Path    string
	Kind    Kind
	LinkDir string
	// Wanted is --dir.
	Wanted string
	// Created are the directories that were made for it, outermost first.
	Created []string
}

// Describe is what Reopen needs.
func (p *Place) Describe() Description {
	return Description{Path: p.Path, Kind: p.Kind, LinkDir: p.LinkDir, Wanted: p.wanted, Created: p.created}
}

// Reopen opens a place that another process has chosen. Should the start
// fail, what it writes is taken back, but not the place itself: that is for
// whoever chose it.
func Reopen(d Description) (*Place, error) {
	fd, err := linux.OpenDir(d.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Path, bare(err))
	}
	if err := checkMemory(fd, d.Path); err != nil {
		linux.Close(fd)
		return nil, err
	}
	return &Place{Path: d.Path, Kind: d.Kind, LinkDir: d.LinkDir, wanted: d.Wanted, unlinked: map[string]bool{}, created: d.Created, fd: fd}, nil
}

// Clear removes what a start has delivered to a place, links included, and
// the place itself where it was made for that start. What the platform
// provided, and what another container wrote, stays. Its error says what is
// left; that nothing was there is none.
func Clear(d Description) error {
	// A mount of our own was left read-only, which Reopen would refuse.
	(&Place{Path: d.Path, readOnly: d.Kind == OwnMount}).makeWritable()
	p, err := Reopen(d)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer linux.Close(p.fd)
	var left []error
	collect := func(path string, err error) {
		if err != nil && !errors.Is(err, unix.ENOENT) {
			left = append(left, fmt.Errorf("%s: %w", path, bare(err)))
		}
	}
	for _, entry := range readManifest(p.fd, own) {
		target := filepath.Join(d.Path, entry.Name)
		links := []string{entry.Link}
		if d.LinkDir != "" {
			links = append(links, filepath.Join(d.LinkDir, entry.Name))
		}
		for _, link := range links {
			collect(link, removeLink(link, target))
		}
		collect(target, removeName(p.fd, entry.Name))
	}
	if len(left) > 0 {
		// The manifest stays as well: the next start then knows what is ours.
		return errors.Join(left...)
	}
	_ = linux.UnlinkAt(p.fd, thisContainer().manifestName())
	switch d.Kind {
	case OwnMount:
		collect(d.Path, linux.Unmount(d.Path))
	case Shm:
		_ = os.Remove(d.Path)
	}
	removeDirs(d.Created)
	return errors.Join(left...)
}

// removeLink removes a link that still leads to target. Through a descriptor
// of the directory: whoever may swap that could remove the link as well.
func removeLink(path, target string) error {
	if path == "" {
		return nil
	}
	parent, name := filepath.Split(filepath.Clean(path))
	dir, err := linux.OpenAt(unix.AT_FDCWD, parent, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer linux.Close(dir)
	if now, err := linux.ReadlinkAt(dir, name); err != nil || now != target {
		return nil
	}
	return linux.UnlinkAt(dir, name)
}
