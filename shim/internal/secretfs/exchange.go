package secretfs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// dataBase begins the names of what holds the files of a refresh: the link,
// and the directories that it leads to. Kubernetes calls its own the same, so
// that whoever watches a mounted Secret watches these as well.
const dataBase = "..data"

// dataLink is the container's own in a volume that a pod's containers share.
func dataLink() string {
	if id := thisContainer().id; id != "" {
		return dataBase + "." + id
	}
	return dataBase
}

// isDataDir: the name is that of a directory with the files of one refresh.
func isDataDir(name string) bool { return strings.HasPrefix(name, dataBase+"_") }

// WriteExchangeable is Write for files that Exchange will replace. A mount of
// our own stays writable.
func (p *Place) WriteExchangeable(files []File) error {
	err := p.exchange(files, true)
	if err == nil && p.Kind == Shm {
		if err = linux.Fchmod(p.fd, 0o755); err != nil {
			err = fmt.Errorf("%s: mode 0755: %w", p.Path, bare(err))
		}
	}
	if err != nil {
		p.Remove()
		return err
	}
	p.Settle()
	return nil
}

// Exchange puts all files into the place of those that are there, at once:
// who opens files by one descriptor of ..data has all of one refresh. When it
// fails before that, the old files stay as they are. The directory with the
// old files is there until Settle.
//
// It is Kubernetes' way (AtomicWriter in pkg/volume/util):
//
//  1. a manifest of the old and the new names
//  2. the files, in a new directory ..data_RANDOM
//  3. a link ..data to it, renamed over the old one: this is the exchange
//  4. links NAME to ..data/NAME, and at the absolute targets to NAME; those
//     that are no longer wanted are removed
//  5. the manifest of the names that are left
func (p *Place) Exchange(files []File) error {
	return p.exchange(files, false)
}

func (p *Place) exchange(files []File, first bool) (err error) {
	old := readManifest(p.fd, own)
	names := map[string]bool{}
	directory, link, temporary := dataBase+"_"+rand.Text(), dataLink(), temporaryName()
	entries := []Entry{{Name: link}, {Name: directory}}
	for _, f := range files {
		if !oneComponent(f.Name) || strings.HasPrefix(f.Name, manifestBase) || strings.HasPrefix(f.Name, dataBase) || names[f.Name] {
			return fmt.Errorf("%q cannot be a file's name", f.Name)
		}
		names[f.Name] = true
		entries = append(entries, Entry{Name: f.Name, Variable: f.Variable, Path: p.FilePath(f.Name), Link: f.Link})
	}
	if first {
		p.undo = append(p.undo, func() {
			for _, entry := range slices.Concat(entries, old) {
				_ = removeName(p.fd, entry.Name)
			}
			_ = linux.UnlinkAt(p.fd, thisContainer().manifestName())
		})
	}
	if err := p.writeManifest(slices.Concat(entries, []Entry{{Name: temporary}}, old)); err != nil {
		return err
	}
	if err := p.fill(directory, files); err != nil {
		_ = removeName(p.fd, directory)
		return err
	}
	if err := p.replaceBy(directory, link, temporary); err != nil {
		_ = removeName(p.fd, directory)
		return err
	}
	for _, f := range files {
		target := link + "/" + f.Name
		if now, err := linux.ReadlinkAt(p.fd, f.Name); err == nil && now == target {
			continue
		}
		isOld := slices.ContainsFunc(old, func(e Entry) bool { return e.Name == f.Name })
		if stat, err := linux.LstatAt(p.fd, f.Name); err == nil && !isOld {
			p.warn("%s: replacing what stands there (uid %d, mode %04o)", p.FilePath(f.Name), stat.Uid, stat.Mode&0o7777)
		}
		if err := p.replaceBy(target, f.Name, temporary); err != nil {
			return err
		}
	}
	kept := entries
	for _, entry := range old {
		switch {
		case isDataDir(entry.Name):
			if _, err := linux.LstatAt(p.fd, entry.Name); err == nil {
				kept = append(kept, entry)
			}
		case entry.Name != link && !names[entry.Name]:
			p.removeEntry(entry)
		}
	}
	if err := p.link(slices.DeleteFunc(slices.Clone(files), p.linked)); err != nil {
		return err
	}
	return p.writeManifest(kept)
}

// fill writes the files into a directory that only root and we can enter
// until it is complete.
func (p *Place) fill(directory string, files []File) error {
	if err := linux.MkdirAt(p.fd, directory, 0o700); err != nil {
		return p.explain(directory, err)
	}
	fd, err := linux.OpenBeneath(p.fd, directory, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return p.explain(directory, err)
	}
	defer linux.Close(fd)
	inside := &Place{fd: fd, Path: p.Path}
	for _, f := range files {
		if err := inside.writeFile(f, temporaryName()); err != nil {
			return p.explain(f.Name, err)
		}
	}
	if err := linux.Fchmod(fd, 0o755); err != nil {
		return p.explain(directory, err)
	}
	return nil
}

// replaceBy puts a link in the place of whatever stands at name.
func (p *Place) replaceBy(target, name, temporary string) error {
	if err := linux.SymlinkAt(target, p.fd, temporary); err != nil {
		return p.explain(name, err)
	}
	if err := linux.RenameAt(p.fd, temporary, name); err != nil {
		_ = linux.UnlinkAt(p.fd, temporary)
		return p.explain(name, err)
	}
	return nil
}

// linked: the links outside of the place lead to the file already.
func (p *Place) linked(f File) bool {
	target := filepath.Join(p.Path, f.Name)
	leads := func(path string) bool {
		now, err := linux.ReadlinkAt(unix.AT_FDCWD, path)
		return err == nil && now == target
	}
	return (p.LinkDir == "" || leads(filepath.Join(p.LinkDir, f.Name))) && (f.Link == "" || leads(f.Link))
}

// removeEntry removes a file that is no longer wanted, with its links.
func (p *Place) removeEntry(entry Entry) {
	target := filepath.Join(p.Path, entry.Name)
	_ = removeLink(entry.Link, target)
	if p.LinkDir != "" {
		_ = removeLink(filepath.Join(p.LinkDir, entry.Name), target)
	}
	_ = linux.UnlinkAt(p.fd, entry.Name)
}

// Settle removes the directories of earlier exchanges.
func (p *Place) Settle() {
	current, err := linux.ReadlinkAt(p.fd, dataLink())
	if err != nil {
		return
	}
	for _, entry := range readManifest(p.fd, own) {
		if isDataDir(entry.Name) && entry.Name != current {
			_ = removeName(p.fd, entry.Name)
		}
	}
}

// removeName removes what a manifest lists: a file, a link, or a directory of
// an exchange with the files in it.
func removeName(dir int, name string) error {
	if isDataDir(name) {
		removeOwnDir(dir, name)
	}
	err := linux.UnlinkAt(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
