package supervise

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/linux"
)

// manager listens as systemd does, above us or instead of us.
type manager struct {
	*Notify
	name string
}

func newManager(t *testing.T, upward string, command func() int) manager {
	t.Helper()
	m := manager{name: "@secret-init-test-" + rand.Text()}
	var relayErr, err error
	m.Notify, relayErr, err = ListenNotify(m.name, upward, command)
	if err != nil || relayErr != nil {
		t.Fatal(err, relayErr)
	}
	done := make(chan struct{})
	go func() { defer close(done); m.Serve() }()
	t.Cleanup(func() {
		m.Close()
		<-done
	})
	return m
}

func (m manager) isReady() bool {
	select {
	case <-m.Ready():
		return true
	default:
		return false
	}
}

// send is sd_notify(3): one datagram, with descriptors.
func send(t *testing.T, name, text string, files ...*os.File) {
	t.Helper()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var fds []int
	for _, file := range files {
		fds = append(fds, int(file.Fd()))
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if controlErr := raw.Control(func(fd uintptr) { err = linux.SendMessage(int(fd), []byte(text), fds) }); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
}

// barrier is sd_notify_barrier(3): it returns once all messages before it
// have been handled.
func barrier(t *testing.T, name, text string) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	send(t, name, text, write)
	_ = write.Close()
	if err := read.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := read.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("the descriptor of %q was not closed: %v", text, err)
	}
}

func TestNotifyReady(t *testing.T) {
	for text, ready := range map[string]bool{
		"READY=1":                               true,
		"READY=1\n":                             true,
		"READY=1\x00":                           true,
		"STATUS=up\nMAINPID=7\nREADY=1":         true,
		"READY=1\nSTATUS=READY=0\nX_OWN=1\n":    true,
		"\n\nREADY=1\n\n":                       true,
		"":                                      false,
		"READY=0":                               false,
		"READY=10":                              false,
		" READY=1":                              false,
		"READY=1 ":                              false,
		"ready=1":                               false,
		"STATUS=READY=1":                        false,
		"READY":                                 false,
		"STOPPING=1":                            false,
		"READY=1\nA=\x00\n":                     false,
		"READY=1\n" + strings.Repeat("A", 5000): false,
	} {
		m := newManager(t, "", os.Getpid)
		if text != "" {
			send(t, m.name, text)
		}
		barrier(t, m.name, "BARRIER=1")
		if m.isReady() != ready {
			t.Errorf("%.40q: ready is %t", text, m.isReady())
		}
	}
}

// After READY=1 the socket is still there, and descriptors that nobody asked
// for do not pile up.
func TestNotifyGoesOn(t *testing.T) {
	m := newManager(t, "", os.Getpid)
	for range 3 {
		send(t, m.name, "READY=1")
	}
	before := descriptors(t)
	for range 50 {
		barrier(t, m.name, "FDSTORE=1\nFDNAME=x")
		barrier(t, m.name, "BARRIER=1\x00A")
	}
	if !m.isReady() {
		t.Error("not ready")
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, then %d", before, after)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Who sends: this process, or a child of it, stands for the command.
func TestNotifySender(t *testing.T) {
	other := exec.Command("sleep", "600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	self := unix.Ucred{Pid: int32(os.Getpid()), Uid: 12345}
	child := unix.Ucred{Pid: int32(other.Process.Pid), Uid: 12345}
	for _, test := range []struct {
		name    string
		command int
		sender  unix.Ucred
		want    bool
	}{
		{"the command", os.Getpid(), self, true},
		{"its child", os.Getpid(), child, true},
		{"its grandparent's command", os.Getppid(), child, true},
		{"its parent, as somebody else", other.Process.Pid, self, false},
		{"its parent, as the same user", other.Process.Pid, unix.Ucred{Pid: self.Pid, Uid: uint32(os.Getuid())}, true},
		{"one that has ended, as the same user", other.Process.Pid, unix.Ucred{Pid: 1 << 22, Uid: uint32(os.Getuid())}, true},
		{"one that has ended, as somebody else", other.Process.Pid, unix.Ucred{Pid: 1 << 22, Uid: 12345}, false},
		{"another pid namespace", os.Getpid(), unix.Ucred{Pid: 0, Uid: uint32(os.Getuid())}, false},
		{"no command yet", 0, self, false},
	} {
		n := &Notify{command: func() int { return test.command }}
		if got := n.mayNotify(test.sender); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}

// The kernel says who has sent; who may not is not heard, but is not left
// waiting for a barrier either.
func TestNotifyStranger(t *testing.T) {
	m := newManager(t, "", func() int { return 0 })
	send(t, m.name, "READY=1")
	barrier(t, m.name, "BARRIER=1")
	if m.isReady() {
		t.Error("a stranger's READY=1 counts")
	}
}

// above is a manager above us, whose messages the test reads itself.
func above(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) (text string, fds []int) {
	t.Helper()
	buf, oob := make([]byte, 8192), make([]byte, 1024)
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	_, fds = control(oob[:oobn])
	return string(buf[:n]), fds
}

func TestNotifyRelay(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@secret-init-test-" + rand.Text()} {
		upper := above(t, name)
		m := newManager(t, name, os.Getpid)
		send(t, m.name, "MAINPID=7\nSTATUS=warming up\nMAINPIDFDID=1\n")
		send(t, m.name, "MAINPID=7")
		send(t, m.name, "READY=1\nMAINPID=7\nX_OWN=1")
		for _, want := range []string{"STATUS=warming up", "READY=1\nX_OWN=1"} {
			if got, _ := receive(t, upper); got != want {
				t.Errorf("above comes %q, not %q", got, want)
			}
		}

		// A barrier ends when the manager above has come to it, not before.
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		send(t, m.name, "BARRIER=1", write)
		_ = write.Close()
		text, fds := receive(t, upper)
		if text != "BARRIER=1" || len(fds) != 1 {
			t.Fatalf("above comes %q with %d descriptors", text, len(fds))
		}
		_ = read.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := read.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the barrier has ended before the manager above has read it: %v", err)
		}
		_ = unix.Close(fds[0])
		_ = read.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := read.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the barrier does not end: %v", err)
		}
		_ = read.Close()
	}
}

// A manager above that is gone, or was never there, holds nobody up.
func TestNotifyRelayGone(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	n, relayErr, err := ListenNotify("@secret-init-test-"+rand.Text(), name, os.Getpid)
	if err != nil || relayErr == nil || !strings.Contains(relayErr.Error(), name+": no such file or directory") {
		t.Fatal(err, relayErr)
	}
	n.Close()
	upper := above(t, name)
	m := newManager(t, name, os.Getpid)
	_ = upper.Close()
	send(t, m.name, "READY=1")
	barrier(t, m.name, "BARRIER=1")
	if !m.isReady() {
		t.Error("not ready")
	}
}

// The reference's own client, where the machine has one.
func TestSystemdNotify(t *testing.T) {
	path, err := exec.LookPath("systemd-notify")
	if err != nil {
		t.Log("no systemd-notify here: only our own client is tested")
		return
	}
	m := newManager(t, "", os.Getpid)
	cmd := exec.Command(path, "--ready", "--status=up")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// It waits for its own barrier, so that no time needs to pass.
	if !m.isReady() {
		t.Error("not ready")
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=x\nMAINPID=1\n"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, ok := parseMessage(data)
		if !ok {
			return
		}
		lines := strings.Split(strings.TrimSuffix(string(data), "\x00"), "\n")
		if m.ready != slices.Contains(lines, "READY=1") {
			t.Errorf("%q: ready is %t", data, m.ready)
		}
		for line := range strings.SplitSeq(string(m.upward), "\n") {
			if strings.HasPrefix(line, "MAINPID") || line == "" && len(m.upward) > 0 {
				t.Errorf("%q goes up as %q", data, m.upward)
			}
		}
		again, ok := parseMessage(m.upward)
		if !ok || again.ready != m.ready || !bytes.Equal(again.upward, m.upward) {
			t.Errorf("%q, then %q", m.upward, again.upward)
		}
	})
}
