// Command procscan prints what /proc tells of every process that it sees but
// itself, as JSON, one process a line. The container tests run it as root in a
// container of its own that shares the pid namespace of the one under test,
// so that nothing is added to that one: it may be FROM scratch and read-only.
// A process that ends meanwhile is passed over; anything else that cannot be
// read is an error, since a search must not miss it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

type process struct {
	PID     int
	Exe     string
	Cmdline []byte
	Environ []byte
	Status  []byte
	Files   map[string]string
}

func main() {
	if err := scan(json.NewEncoder(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, "procscan: error:", err)
		os.Exit(1)
	}
}

func scan(out *json.Encoder) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, err := read(pid)
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := out.Encode(p); err != nil {
			return err
		}
	}
	return nil
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

func read(pid int) (*process, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	p := &process{PID: pid, Files: map[string]string{}}
	for name, into := range map[string]*[]byte{"cmdline": &p.Cmdline, "environ": &p.Environ, "status": &p.Status} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		*into = content
	}
	// A zombie has no executable any more, and no files.
	var err error
	if p.Exe, err = os.Readlink(filepath.Join(dir, "exe")); err != nil && !gone(err) {
		return nil, err
	}
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil && !gone(err) {
		return nil, err
	}
	for _, file := range files {
		target, err := os.Readlink(filepath.Join(dir, "fd", file.Name()))
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		p.Files[file.Name()] = target
	}
	return p, nil
}
