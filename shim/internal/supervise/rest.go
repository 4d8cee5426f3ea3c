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
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		// address perms offset dev inode path (proc_pid_maps(5)).
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[4] == "0" || !strings.HasPrefix(fields[1], "r-") {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, startErr := strconv.ParseUint(from, 16, 64)
		end, endErr := strconv.ParseUint(to, 16, 64)
		if startErr == nil && endErr == nil {
			linux.ForgetPages(uintptr(start), uintptr(end-start))
		}
	}
}
