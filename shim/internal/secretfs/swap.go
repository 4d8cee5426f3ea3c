package secretfs

import (
	"bytes"
	"os"
	"strings"
)

// Variables, so that a test can build a world of its own.
var (
	swapTable  = "/proc/swaps"
	cgroupSwap = "/sys/fs/cgroup/memory.swap.max"
)

// Swappable reports whether the files could be swapped out to a disk: the
// filesystem is not kept out of swap, the host has some, and the container's
// control group may use it. proc_swaps(5) has a heading, then a line for each
// area; a container sees those of its host.
func (p *Place) Swappable() bool {
	if p.NoSwap {
		return false
	}
	table, err := os.ReadFile(swapTable)
	if err != nil || bytes.Count(bytes.TrimSpace(table), []byte("\n")) == 0 {
		return false
	}
	limit, err := os.ReadFile(cgroupSwap)
	return err != nil || strings.TrimSpace(string(limit)) != "0"
}
