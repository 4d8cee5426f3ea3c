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
