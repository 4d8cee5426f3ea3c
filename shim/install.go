package main

import (
	"io"
	"os"
	"path/filepath"
)

const installHint = "name a folder that exists and may be written: secret-init install /shared/secret-init"

// install copies this binary to path, for an init container that hands it on
// over a shared volume. It is whole or not there at all.
func install(args []string) (err error) {
	if len(args) != 1 || args[0] == "" {
		return fail(exitUsage, "write secret-init install /shared/secret-init", "install takes one path")
	}
	path := args[0]
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "secret-init")
	}
	binary, err := os.Open("/proc/self/exe")
	if err != nil {
		return fail(exitSystem, "mount /proc", "reading this binary: %w", err)
	}
	defer binary.Close()
	copied, err := os.CreateTemp(filepath.Dir(path), ".secret-init-")
	if err != nil {
		return fail(exitSystem, installHint, "installing %s: %w", path, withoutPath(err))
	}
	defer func() {
		if err != nil {
			_ = os.Remove(copied.Name())
		}
	}()
	_, err = io.Copy(copied, binary)
	if err == nil {
		err = copied.Chmod(0o755)
	}
	if closeErr := copied.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(copied.Name(), path)
	}
	if err != nil {
		return fail(exitSystem, installHint, "installing %s: %w", path, err)
	}
	return nil
}
