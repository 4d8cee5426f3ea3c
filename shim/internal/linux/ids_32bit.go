//go:build 386 || arm

package linux

import "golang.org/x/sys/unix"

// The plain numbers are the calls of Linux before 2.4, with ids of 16 bits.
const (
	sysSetgroups = unix.SYS_SETGROUPS32
	sysSetresgid = unix.SYS_SETRESGID32
	sysSetresuid = unix.SYS_SETRESUID32
)
