//go:build integration

package servers

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// finder looks for needle in what is written to it, across writes.
type finder struct {
	needle, tail []byte
	found        bool
}

func (f *finder) Write(p []byte) (int, error) {
	if !f.found {
		f.tail = append(f.tail, p...)
		f.found = bytes.Contains(f.tail, f.needle)
		f.tail = append(f.tail[:0], f.tail[max(0, len(f.tail)-len(f.needle)+1):]...)
	}
	return len(p), nil
}

// FindInExport lists the files of the container's filesystem, image and
// writable layer alike, that hold needle in their content, name or link
// target. What is mounted (tmpfs, /dev/shm, volumes) is not in an export.
func (c *Container) FindInExport(needle string) []string {
	c.tb.Helper()
	if needle == "" {
		c.tb.Fatal("an empty needle is everywhere")
	}
	var paths []string
	err := c.Export(func(stream io.Reader) error {
		// Headers and padding are searched as well, in the raw stream.
		raw := &finder{needle: []byte(needle)}
		stream = io.TeeReader(stream, raw)
		files := 0
		for archive := tar.NewReader(stream); ; files++ {
			header, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			content := &finder{needle: []byte(needle)}
			if _, err := io.Copy(content, archive); err != nil {
				return err
			}
			if content.found || strings.Contains(header.Name, needle) || strings.Contains(header.Linkname, needle) {
				paths = append(paths, "/"+header.Name)
			}
		}
		if _, err := io.Copy(io.Discard, stream); err != nil {
			return err
		}
		if files == 0 {
			return errors.New("the archive is empty")
		}
		if raw.found && len(paths) == 0 {
			paths = append(paths, "(the archive, outside names and contents)")
		}
		return nil
	})
	if err != nil {
		c.tb.Fatalf("docker export: %v", err)
	}
	return paths
}

// Export streams `docker export`, a tar of the container's filesystem, to
// read. An archive that breaks off is an error even if read saw its end.
func (c *Container) Export(read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", "export", c.ID)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := read(stdout)
	if readErr != nil {
		// Nobody reads the rest.
		cancel()
	}
	waitErr := cmd.Wait()
	if readErr == nil && waitErr != nil {
		return fmt.Errorf("%w: %s", waitErr, stderr.String())
	}
	return readErr
}

// Process is what /proc tells of one of a container's processes.
type Process struct {
	// PID is as the container sees it.
	PID int
	// Exe is where /proc/PID/exe points; "" for a zombie.
	Exe string
	// Cmdline and Environ are NUL-terminated strings; Status is the text of
	// /proc/PID/status.
	Cmdline, Environ, Status []byte
	// Files are the open descriptors by number, and where each points.
	Files map[string]string
}

// Args are the process's arguments.
func (p Process) Args() []string { return terminated(p.Cmdline) }

// Env is the environment that the process was started with.
func (p Process) Env() []string { return terminated(p.Environ) }

func terminated(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// Field is a line of /proc/PID/status ("Uid", "CapEff", "NoNewPrivs"), with
// its tabs made blanks; "" where there is none.
func (p Process) Field(name string) string {
	for line := range strings.Lines(string(p.Status)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Join(strings.Fields(rest), " ")
		}
	}
	return ""
}

var scanner struct {
	sync.Mutex
	image string
}

// scannerImage is built once a run, and kept by the engine for later ones.
func scannerImage(tb testing.TB) string {
	tb.Helper()
	scanner.Lock()
	defer scanner.Unlock()
	if scanner.image == "" {
		scanner.image = keptScratchImage(tb, BuildStatic(tb, "./tools/images/procscan"))
	}
	return scanner.image
}

// Processes lists what runs in the container, read as root from a container
// beside it: nothing is added to the one that is looked at.
func (c *Container) Processes() []Process {
	c.tb.Helper()
	// Without CAP_SYS_PTRACE root cannot read the environ of other users.
	_, out := RunToEnd(c.tb, RunSpec{Image: scannerImage(c.tb), Flags: []string{"--pid", "container:" + c.ID, "--cap-add", "SYS_PTRACE", "--read-only"}})
	if out.Code != 0 {
		c.tb.Fatalf("procscan: exit code %d\n%s", out.Code, out.Stderr)
	}
	var processes []Process
	for decoder := json.NewDecoder(strings.NewReader(out.Stdout)); ; {
		var p Process
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			c.tb.Fatal(err)
		}
		processes = append(processes, p)
	}
	if len(processes) == 0 {
		c.tb.Fatal("procscan saw no process of the container")
	}
	return processes
}

// FindInProc lists where needle is in the environ, the cmdline, the exe or the
// open files of any of the container's processes.
func (c *Container) FindInProc(needle string) []string {
	c.tb.Helper()
	if needle == "" {
		c.tb.Fatal("an empty needle is everywhere")
	}
	var places []string
	for _, p := range c.Processes() {
		found := func(where, content string) {
			if strings.Contains(content, needle) {
				places = append(places, fmt.Sprintf("/proc/%d/%s", p.PID, where))
			}
		}
		found("cmdline", string(p.Cmdline))
		found("environ", string(p.Environ))
		found("exe", p.Exe)
		for fd, target := range p.Files {
			found("fd/"+fd, target)
		}
	}
	return places
}
