//go:build !linux

package main

// The next line is the message: the program is about Linux processes and filesystems.
var _ = secret_init_runs_on_Linux_only__build_with_GOOS_linux
