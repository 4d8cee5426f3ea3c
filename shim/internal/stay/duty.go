// Package stay is PID 1 once it stays. Who stays holds no secret, no
// reference and no credential, and so it is one program in three processes:
//
//	start      plans, finds the place, and executes itself anew, empty
//	supervise  is that PID 1: all it has is a duty and a sealed order
//	child      opens the order and does the ordinary start: fetch, write,
//	           drop, exec
//
// The order holds the environment, with the references and the credentials.
// supervise passes its descriptor on and never reads it; this package, which
// is all of supervise, does not even know what an order is.
package stay

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/secretfs"
)

// The words that start the processes. Each is followed by descriptors.
const (
	// Supervise is PID 1, with its duty.
	Supervise = "supervise"
	// Child becomes the command, by an order.
	Child = "child"
	// Refresh fetches again, by an order, a pipe for its report and a session.
	Refresh = "refresh"
	// GiveUp revokes what the session holds; it has what Refresh has.
	GiveUp = "give-up"
	// Probe runs the command of an exec probe, by an order.
	Probe = "probe"
)

// Duty is what PID 1 has to know. No reference, no credential, no value.
type Duty struct {
	Order     int // descriptor
	Received  []syscall.Signal
	Group     bool
	Grace     time.Duration
	LogLevel  string
	LogFormat string
	Colour    bool
	Place     *secretfs.Description
	Removal   *Removal    // nil for never
	Refresh   *Refreshing // nil for never
}

// Removal is the part of a duty that ends with no file being left.
type Removal struct {
	// After is counted from the start of the command; zero for Ready.
	After   time.Duration
	Ready   string
	Timeout time.Duration
	// Notify is the name of the socket that the command was given, and Upward
	// that of the one which we were given.
	Notify, Upward string
}

// Refreshing is the part of a duty that has values fetched again.
type Refreshing struct {
	Every   time.Duration // zero to go by the leases
	Limit   time.Duration // of one refresh
	Signal  syscall.Signal
	Restart bool
	Grace   time.Duration
}

// ErrNotOurs is the answer to who starts one of the processes by hand.
var ErrNotOurs = errors.New("this is for secret-init's own use")

// Program is this program's path: executed as /proc/self/exe it would be
// called "exe" wherever processes are listed.
func Program() string {
	path, err := os.Executable()
	if err != nil || strings.HasSuffix(path, " (deleted)") {
		return "/proc/self/exe"
	}
	return path
}

// Seal leaves content for another of the processes at a descriptor that it
// inherits. It has no path.
func Seal(name string, content any) (fd int, err error) {
	text, err := json.Marshal(content)
	if err != nil {
		return -1, err
	}
	defer clear(text)
	return linux.Memory(name, text)
}

// Unseal reads what another of the processes has left. The only argument is
// the descriptor's number.
func Unseal(args []string, content any) (fd int, err error) {
	if len(args) != 1 {
		return -1, ErrNotOurs
	}
	if fd, err = Descriptor(args[0]); err != nil {
		return -1, err
	}
	text, err := linux.ReadMemory(fd)
	defer clear(text)
	if err != nil || json.Unmarshal(text, content) != nil {
		return -1, ErrNotOurs
	}
	return fd, nil
}

// Descriptor reads the number of an inherited descriptor, and keeps it from
// being inherited any further.
func Descriptor(arg string) (fd int, err error) {
	fd, err = strconv.Atoi(arg)
	if err != nil {
		return -1, ErrNotOurs
	}
	linux.CloseOnExec(fd)
	return fd, nil
}

// startChild starts a child on descriptors, the order's first. Like those
// that were inherited they have no close-on-exec flag, and keep their numbers.
func startChild(attr *syscall.SysProcAttr, word string, files []uintptr, fds ...int) (int, error) {
	argv := []string{"secret-init", word}
	for _, fd := range fds {
		argv = append(argv, strconv.Itoa(fd))
	}
	pid, err := syscall.ForkExec(Program(), argv, &syscall.ProcAttr{Env: []string{}, Files: files, Sys: attr})
	if err != nil {
		return 0, fmt.Errorf("starting the command: %w", err)
	}
	return pid, nil
}

// stdio are the streams that the command shares with PID 1.
var stdio = []uintptr{0, 1, 2}
