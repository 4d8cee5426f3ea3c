package secretfs

import (
	"fmt"
	"os"
	"path/filepath"

	"secret-init/shim/internal/linux"
)

// Description is a place as one process tells another of it. It holds no
// value and no reference.
type Description struct {
	Path    string
	Kind    Kind
	LinkDir string
	// Created are the directories that were made for it, outermost first.
	Created []string
}

// Describe is what Reopen needs.
func (p *Place) Describe() Description {
	return Description{Path: p.Path, Kind: p.Kind, LinkDir: p.LinkDir, Created: p.created}
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
	return &Place{Path: d.Path, Kind: d.Kind, LinkDir: d.LinkDir, created: d.Created, fd: fd}, nil
}

// Clear removes what a start has delivered to a place, links included, and
// the place itself where it was made for that start. What the platform
// provided, and what another container wrote, stays.
func Clear(d Description) {
	// A mount of our own was left read-only, which Reopen would refuse.
	(&Place{Path: d.Path, readOnly: d.Kind == OwnMount}).makeWritable()
	p, err := Reopen(d)
	if err != nil {
		return
	}
	defer linux.Close(p.fd)
	for _, entry := range readManifest(p.fd, own) {
		target := filepath.Join(d.Path, entry.Name)
		for _, link := range []string{filepath.Join(d.LinkDir, entry.Name), entry.Link} {
			if now, err := os.Readlink(link); err == nil && now == target {
				_ = os.Remove(link)
			}
		}
		_ = linux.UnlinkAt(p.fd, entry.Name)
	}
	_ = linux.UnlinkAt(p.fd, thisContainer().manifestName())
	switch d.Kind {
	case OwnMount:
		_ = linux.Unmount(d.Path)
	case Shm:
		_ = os.Remove(d.Path)
	}
	removeDirs(d.Created)
}
