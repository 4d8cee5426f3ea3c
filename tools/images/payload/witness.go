package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// witness is what a command finds when it is started. Limits are not in it:
// the Go runtime raises the one on open files before main runs.
type witness struct {
	Env    map[string]string
	Cwd    string
	Status map[string]string
	// Dumpable is PR_GET_DUMPABLE's answer.
	Dumpable int
	// Open are the descriptors, and where each points, without those that
	// this program's own runtime holds.
	Open map[string]string
	// Secrets are the files that variables named ..._FILE point to.
	Secrets map[string]secret
}

// told are the lines of /proc/self/status that are in a witness.
var told = []string{
	"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn", "Umask",
}

type secret struct {
	// Error is why it cannot be read; then Value is empty.
	Error string `json:",omitempty"`
	Value string
	// Real is the path behind all links.
	Real       string
	Filesystem string
	// Options are those of the mount that the file lies on.
	Options string
	Mode    string
	Owner   string
	Dir     string
	// Entries are the other names in the file's directory.
	Entries []string
	// Writable lists what the command could change: the file, its directory.
	Writable []string
	// Seals are those of sealed memory (F_GET_SEALS); 0 for any other file.
	Seals int `json:",omitempty"`
}

// tell prints a witness as one line.
func tell() error {
	w := witness{Env: map[string]string{}, Status: map[string]string{}, Open: map[string]string{}, Secrets: map[string]secret{}}
	// Before anything is opened here: the directory /proc/self/fd would be
	// one more, and the runtime's poller another two. The runtime watches its
	// CPU limit through files of the cgroup.
	for fd := range 1024 {
		if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && !strings.HasPrefix(target, "/sys/fs/cgroup/") {
			w.Open[fmt.Sprint(fd)] = target
		}
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	w.Dumpable = dumpable
	if w.Cwd, err = os.Getwd(); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if slices.Contains(told, name) {
			w.Status[name] = strings.Join(strings.Fields(value), " ")
		}
	}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		w.Env[name] = value
		if strings.HasSuffix(name, "_FILE") && strings.HasPrefix(value, "/") {
			w.Secrets[name] = look(value)
		}
	}
	line, err := json.Marshal(w)
	if err != nil {
		return err
	}
	fmt.Printf("witness: %s\n", line)
	return nil
}

func look(path string) (s secret) {
	value, err := os.ReadFile(path)
	if err != nil {
		s.Error = err.Error()
	}
	s.Value = string(value)
	if strings.HasPrefix(path, "/proc/self/fd/") {
		return lookMemory(path, s)
	}
	if s.Real, err = filepath.EvalSymlinks(path); err != nil {
		s.Error = err.Error()
		return s
	}
	dir := filepath.Dir(s.Real)
	s.Mode, s.Owner = modeAndOwner(s.Real)
	mode, owner := modeAndOwner(dir)
	s.Dir = mode + " " + owner
	s.Filesystem, s.Options = filesystem(s.Real)
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.Entries = []string{err.Error()}
	}
	for _, entry := range entries {
		if entry.Name() != filepath.Base(s.Real) {
			s.Entries = append(s.Entries, entry.Name())
		}
	}
	slices.Sort(s.Entries)
	if rewritable(s.Real, value) {
		s.Writable = append(s.Writable, "file")
	}
	if unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK, unix.AT_EACCESS) == nil {
		s.Writable = append(s.Writable, "directory")
	}
	return s
}

// lookMemory is look for a file that has no path but its descriptor's.
func lookMemory(path string, s secret) secret {
	var err error
	if s.Real, err = os.Readlink(path); err != nil {
		s.Error = err.Error()
		return s
	}
	s.Mode, s.Owner = modeAndOwner(path)
	s.Filesystem, _ = filesystem(path)
	if fd, err := strconv.Atoi(filepath.Base(path)); err == nil {
		s.Seals, _ = unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	}
	if rewritable(path, []byte(s.Value)) {
		s.Writable = []string{"file"}
	}
	return s
}

// rewritable tries to write what is there already: sealed memory can be
// opened for writing, and then refuses it.
func rewritable(path string, value []byte) bool {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	_, err = file.WriteAt(value, 0)
	return err == nil
}

func modeAndOwner(path string) (mode, owner string) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return err.Error(), ""
	}
	return fmt.Sprintf("%04o", stat.Mode&0o7777), fmt.Sprintf("%d:%d", stat.Uid, stat.Gid)
}

// filesystem is the type of the file's filesystem by its magic number, and
// the mount's options by /proc/self/mountinfo (proc_pid_mountinfo(5)): field
// 5 is the mount point, 6 the mount's options, and those of the filesystem
// are the last.
func filesystem(path string) (kind, options string) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return err.Error(), ""
	}
	kind = fmt.Sprintf("%#x", stat.Type)
	if stat.Type == unix.TMPFS_MAGIC {
		kind = "tmpfs"
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return kind, err.Error()
	}
	longest := ""
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		point := fields[4]
		if (path == point || strings.HasPrefix(path, strings.TrimSuffix(point, "/")+"/")) && len(point) >= len(longest) {
			longest, options = point, fields[5]+" "+fields[len(fields)-1]
		}
	}
	return kind, options
}
