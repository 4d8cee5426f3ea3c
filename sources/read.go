package sources

import (
	"io"
	"os"
	"syscall"
)

// maxFile bounds what is read into memory, in bytes.
const maxFile = 16 << 20

// ReadFile reads a regular file: a pipe or a device could block for ever.
func ReadFile(path string) ([]byte, error) {
	// O_NONBLOCK: opening a fifo would wait for its writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, FileError(err, path)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, FileError(err, path)
	}
	if !info.Mode().IsRegular() {
		return nil, Errorf(Invalid, lookAt(path), "is not a regular file")
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, FileError(err, path)
	}
	if len(content) > maxFile {
		return nil, Errorf(Invalid, lookAt(path), "is larger than %d MiB", maxFile>>20)
	}
	return content, nil
}
