package supervise

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"secret-init/shim/internal/linux"
)

// Rest gives back the memory that a long wait does not need: the heap that is
// free, and the program's own pages, which the next use takes from the page
// cache again. It changes nothing but figures, and so has no error.
func Rest() {
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for start, end := range unchanged(string(maps)) {
		linux.ForgetPages(start, end-start)
	}
}

// unchanged yields the mappings of files that hold what the file does, and can
// hold nothing else: of those that were written to before they became
// read-only, as a dynamic linker does, the pages cannot be had again.
func unchanged(smaps string) func(yield func(start, end uintptr) bool) {
	return func(yield func(start, end uintptr) bool) {
		var start, end uint64
		for line := range strings.Lines(smaps) {
			fields := strings.Fields(line)
			switch {
			case len(fields) < 2:
			case fields[0] == "Anonymous:":
				if fields[1] == "0" && end > start && !yield(uintptr(start), uintptr(end)) {
					return
				}
				start, end = 0, 0
			case !strings.HasSuffix(fields[0], ":"):
				// address perms offset dev inode path (proc_pid_maps(5)).
				start, end = 0, 0
				if len(fields) < 6 || fields[4] == "0" || !strings.HasPrefix(fields[1], "r-") {
					continue
				}
				from, to, _ := strings.Cut(fields[0], "-")
				first, firstErr := strconv.ParseUint(from, 16, 64)
				last, lastErr := strconv.ParseUint(to, 16, 64)
				if firstErr == nil && lastErr == nil {
					start, end = first, last
				}
			}
		}
	}
}
