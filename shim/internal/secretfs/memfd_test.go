//go:build integration

package secretfs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/linux/isolate"
)

// playDeliver seals two secrets for another user, becomes that user, and then
// the command. With an argument it has no CAP_CHOWN.
func playDeliver(args []string) error {
	if len(args) > 0 {
		caps, err := capability.NewPid2(0)
		if err == nil {
			err = caps.Load()
		}
		if err == nil {
			caps.Unset(capability.CAPS, capability.CAP_CHOWN)
			err = caps.Apply(capability.CAPS)
		}
		if err != nil {
			return err
		}
	}
	paths, err := Memfd([]File{
		{Name: "a", Content: []byte("first"), UID: 1000, GID: 1000, Mode: 0o400},
		{Name: "b", Content: []byte("second"), UID: 1000, GID: 1000, Mode: 0o400},
	})
	if err != nil {
		return err
	}
	if err := errors.Join(linux.SetGroups(nil), linux.SetGID(1000), linux.SetUID(1000), os.Setenv("ISOLATE_ROLE", "read")); err != nil {
		return err
	}
	return linux.Exec("/proc/self/exe", append([]string{"read"}, paths...), os.Environ())
}

// playRead is the command: it opens the paths, and tries to change what is there.
func playRead(paths []string) error {
	for _, path := range paths {
		for range 2 {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Printf("%s %s\n", path, content)
		}
		var fd int
		if _, err := fmt.Sscanf(path, "/proc/self/fd/%d", &fd); err != nil {
			return err
		}
		seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
		if err != nil {
			return err
		}
		fmt.Printf("seals %#x\n", seals)
		if _, err := unix.Write(fd, []byte("x")); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("written: %w", err)
		}
		if err := unix.Ftruncate(fd, 0); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("truncated: %w", err)
		}
		if err := unix.Ftruncate(fd, 100); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("grown: %w", err)
		}
		// Even its owner can only open it for writing, never write.
		if unix.Fchmod(fd, 0o600) == nil {
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			if _, err := file.Write([]byte("x")); !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("written by its owner: %w", err)
			}
		}
		if err := unix.Fchmod(fd, 0o700); err == nil {
			return errors.New("made executable")
		}
	}
	return nil
}

func TestMemfd(t *testing.T) {
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL | unix.F_SEAL_EXEC
	want := fmt.Sprintf("/proc/self/fd/100 first\n/proc/self/fd/100 first\nseals %#[1]x\n/proc/self/fd/101 second\n/proc/self/fd/101 second\nseals %#[1]x\n", seals)
	for _, args := range [][]string{nil, {"no chown"}} {
		output, err := isolate.Command("deliver", args...).CombinedOutput()
		if err != nil || string(output) != want {
			t.Errorf("%q: %v: %s", args, err, output)
		}
	}
}

// None is left open when one fails.
func TestMemfdAllOrNothing(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// Room for descriptor 100 and for no other above it.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 101, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := Memfd([]File{secret(strings.Repeat("a", 255), "1"), secret("b", "2")})
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.EMFILE) {
		t.Error(err)
	}
	if _, err := os.Stat("/proc/self/fd/100"); !os.IsNotExist(err) {
		t.Error("descriptor 100 is left:", err)
	}
}
