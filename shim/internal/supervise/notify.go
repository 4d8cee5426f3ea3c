package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// Notify is a socket for sd_notify(3). It is an abstract one ("@NAME"), which
// every user and every chroot can reach, with no file to own, to open to
// others or to remove.
type Notify struct {
	conn   *net.UnixConn
	upward *net.UnixConn // nil without
	// command is the pid of the command that may send.
	command func() int
	ready   chan struct{}
	once    sync.Once
}

// Limits of a message: PIPE_BUF, which is systemd's, and the kernel's own for
// descriptors (SCM_MAX_FD in its include/net/scm.h).
const (
	maxMessage     = 4096
	maxDescriptors = 253
	// relayTimeout is for a manager above that does not read.
	relayTimeout = time.Second
)

// ListenNotify opens the socket. upward is the NOTIFY_SOCKET that we were
// given ourselves, to which messages are passed on; empty for none. That it
// cannot be reached is relayErr, and no reason not to go on.
func ListenNotify(name, upward string, command func() int) (n *Notify, relayErr, err error) {
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		// Before it has a name, so that no message comes without its sender.
		if controlErr := conn.Control(func(fd uintptr) { err = linux.PassCredentials(int(fd)) }); controlErr != nil {
			return controlErr
		}
		return err
	}}
	conn, err := config.ListenPacket(context.Background(), "unixgram", name)
	if err != nil {
		return nil, nil, fmt.Errorf("the notify socket: %w", briefly(err))
	}
	n = &Notify{conn: conn.(*net.UnixConn), command: command, ready: make(chan struct{})}
	if upward != "" {
		n.upward, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: upward, Net: "unixgram"})
		if err != nil {
			return n, fmt.Errorf("the NOTIFY_SOCKET %s: %w", upward, briefly(err)), nil
		}
	}
	return n, nil, nil
}

// Ready is closed once the command has sent READY=1.
func (n *Notify) Ready() <-chan struct{} { return n.ready }

// Serve reads messages until Close. It goes on after READY=1: a command may
// send its STATUS, and wait for a BARRIER, for as long as it lives.
func (n *Notify) Serve() {
	buf := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxDescriptors))
	for {
		size, oobSize, flags, _, err := n.conn.ReadMsgUnix(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// One bad message is no reason not to hear the next one.
			time.Sleep(firstProbePause)
			continue
		}
		n.handle(buf[:size], oob[:oobSize], flags)
	}
}

// Close ends Serve.
func (n *Notify) Close() {
	_ = n.conn.Close()
	if n.upward != nil {
		_ = n.upward.Close()
	}
}

// handle acts on one message. All of its descriptors are closed at the end:
// that of a BARRIER=1 tells its sender that everything before was read.
func (n *Notify) handle(data, oob []byte, flags int) {
	sender, descriptors := control(oob)
	defer func() {
		for _, fd := range descriptors {
			linux.Close(fd)
		}
	}()
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || sender == nil || !n.mayNotify(*sender) {
		return
	}
	message, ok := parseMessage(data)
	if !ok {
		return
	}
	if len(message.upward) > 0 && n.upward != nil {
		n.relay(message.upward, descriptors)
	}
	if message.ready {
		n.once.Do(func() { close(n.ready) })
	}
}

// relay passes a message on. A manager above that is gone, or does not read,
// is not the command's to suffer from.
func (n *Notify) relay(text []byte, descriptors []int) {
	conn, err := n.upward.SyscallConn()
	if err != nil {
		return
	}
	_ = n.upward.SetWriteDeadline(time.Now().Add(relayTimeout))
	_ = conn.Write(func(fd uintptr) (done bool) {
		return !errors.Is(linux.SendMessage(int(fd), text, descriptors), unix.EAGAIN)
	})
}

// control takes apart what came beside a message (unix(7)).
func control(oob []byte) (sender *unix.Ucred, descriptors []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, nil
	}
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			descriptors = append(descriptors, fds...)
		}
		if credentials, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			sender = credentials
		}
	}
	return sender, descriptors
}

// message is what we take from one of the command's.
type message struct {
	ready bool
	// upward are the lines for a manager above us.
	upward []byte
}

// parseMessage reads assignments, a line each, in any order (sd_notify(3)).
// MAINPID and its kin go no further: for a manager above, the main process is
// this one, whose exit code it gets, and a pid from in here means nothing
// there. Like systemd it refuses a NUL within.
func parseMessage(data []byte) (m message, ok bool) {
	data = bytes.TrimSuffix(data, []byte{0})
	if bytes.IndexByte(data, 0) >= 0 {
		return m, false
	}
	var kept [][]byte
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		name, value, _ := bytes.Cut(line, []byte("="))
		switch {
		case len(line) == 0 || bytes.HasPrefix(name, []byte("MAINPID")):
			continue
		case string(name) == "READY":
			m.ready = m.ready || string(value) == "1"
		}
		kept = append(kept, line)
	}
	m.upward = bytes.Join(kept, []byte("\n"))
	return m, true
}

// mayNotify: the sender is the command, comes from it, or runs as the same
// user. One in another pid namespace, as the host's or another container's,
// has the pid 0 here.
func (n *Notify) mayNotify(sender unix.Ucred) bool {
	command := n.command()
	if sender.Pid == 0 || command == 0 {
		return false
	}
	for pid := int(sender.Pid); pid > 1; pid = parent(pid) {
		if pid == command {
			return true
		}
	}
	// It may have ended already, or have left its parents.
	for _, uid := range uids(command) {
		if uid == sender.Uid {
			return true
		}
	}
	return false
}

// parent is the fourth field of proc_pid_stat(5), after a name in parentheses
// which may hold any character; 0 when there is no such process any more.
func parent(pid int) int {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}

// uids are the real and the effective user of a process (proc_pid_status(5)).
func uids(pid int) (list []uint32) {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(status)) {
		values, ok := strings.CutPrefix(line, "Uid:")
		if !ok {
			continue
		}
		for _, text := range strings.Fields(values)[:2] {
			if uid, err := strconv.ParseUint(text, 10, 32); err == nil {
				list = append(list, uint32(uid))
			}
		}
	}
	return list
}
