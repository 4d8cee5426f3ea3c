package linux

import "golang.org/x/sys/unix"

// RewriteMemory replaces the whole content of an inherited file. The
// position, which is shared with whoever else has it, stays where it is.
func RewriteMemory(fd int, content []byte) error {
	for done := 0; done < len(content); {
		n := 0
		err := retry("pwrite", func() (err error) {
			n, err = unix.Pwrite(fd, content[done:], int64(done))
			return err
		})
		if err != nil {
			return err
		}
		done += n
	}
	return retry("ftruncate", func() error { return unix.Ftruncate(fd, int64(len(content))) })
}

// ForgetPages drops a mapping's pages from this process (MADV_DONTNEED in
// madvise(2)). It is for pages of a file that are never written to: the next
// use finds them in the page cache.
func ForgetPages(start, length uintptr) {
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, length, unix.MADV_DONTNEED)
}
