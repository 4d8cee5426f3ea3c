package supervise

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSchedule(t *testing.T) {
	const never = -1
	failed, good := Report{Failed: true}, Report{}
	lease := Report{Next: 40 * time.Minute}
	tests := []struct {
		name    string
		every   time.Duration
		random  float64
		reports []Report
		want    []time.Duration
	}{
		{"interval", 10 * time.Minute, 0.5, []Report{good, good}, []time.Duration{10 * time.Minute, 10 * time.Minute}},
		{"earliest", 10 * time.Minute, 0, []Report{good}, []time.Duration{9 * time.Minute}},
		{"latest", 10 * time.Minute, 1, []Report{good}, []time.Duration{11 * time.Minute}},
		{"failures pause longer, up to the interval, and then from the beginning", 5 * time.Second, 0.5,
			[]Report{failed, failed, failed, failed, failed, good, failed},
			[]time.Duration{1 * time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second, 5 * time.Second, 1 * time.Second}},
		{"a short interval", 100 * time.Millisecond, 0.5, []Report{failed, failed}, []time.Duration{100 * time.Millisecond, 100 * time.Millisecond}},
		{"leases", 0, 1, []Report{lease}, []time.Duration{40 * time.Minute}},
		{"leases, earliest", 0, 0, []Report{lease}, []time.Duration{36 * time.Minute}},
		{"no lease", 0, 0.5, []Report{good}, []time.Duration{never}},
		{"no lease, and a failure", 0, 0.5, []Report{failed}, []time.Duration{time.Second}},
		{"whichever is first", time.Hour, 1, []Report{lease}, []time.Duration{40 * time.Minute}},
		{"whichever is first", time.Minute, 0.5, []Report{lease}, []time.Duration{time.Minute}},
		{"a lease that is over", 0, 0, []Report{{Next: time.Millisecond}}, []time.Duration{soonest}},
		{"a lease and a failure", 0, 0.5, []Report{{Failed: true, Next: 200 * time.Millisecond}}, []time.Duration{190 * time.Millisecond}},
	}
	for _, test := range tests {
		s := Schedule{Every: test.every, Random: func() float64 { return test.random }}
		for i, report := range test.reports {
			wait, ok := s.Wait(report)
			if !ok {
				wait = never
			}
			if diff := wait - test.want[i]; diff.Abs() > time.Microsecond {
				t.Errorf("%s: %d. wait %v, want %v", test.name, i+1, wait, test.want[i])
			}
		}
	}
	jittered := map[time.Duration]bool{}
	for range 10 {
		wait, _ := (&Schedule{Every: time.Hour}).Wait(good)
		jittered[wait] = true
	}
	if len(jittered) < 5 {
		t.Errorf("no jitter: %v", jittered)
	}
}

func TestReport(t *testing.T) {
	want := Report{Changed: true, Failed: true, Next: time.Hour, Session: true}
	var pipe bytes.Buffer
	if err := want.Write(&pipe); err != nil {
		t.Fatal(err)
	}
	if got, ok := readReport(&pipe); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	for _, text := range []string{"", "{", "null", `{"Next":"x"}`, strings.Repeat(" ", 5000) + "{}"} {
		if got, ok := readReport(strings.NewReader(text)); ok && text != "null" || got.Changed {
			t.Errorf("%.10q is taken for the report %+v", text, got)
		}
	}
}

// shell runs a script that prints a line once it has set its traps.
func shell(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestCatches(t *testing.T) {
	pid := shell(t, `trap : HUP USR2; trap "" USR1; echo; while :; do sleep 0.1; done`).Process.Pid
	for signal, want := range map[syscall.Signal]bool{syscall.SIGHUP: true, syscall.SIGUSR2: true, syscall.SIGUSR1: false, syscall.SIGTERM: false} {
		if got := catches(pid, signal); got != want {
			t.Errorf("%v: %v", signal, got)
		}
	}
	if catches(1<<30, syscall.SIGHUP) {
		t.Error("a process that there is not")
	}
}

func TestTell(t *testing.T) {
	told := filepath.Join(t.TempDir(), "told")
	// The leader does not catch HUP, and would end; its child does.
	cmd := shell(t, fmt.Sprintf(`sh -c 'trap "echo told >%s" HUP; echo; while :; do sleep 0.05; done' & wait`, told))
	s := &Supervisor{pid: cmd.Process.Pid}
	if told, err := s.tell(syscall.SIGHUP); told || err != nil {
		t.Error("the leader was told, and does not catch it")
	}
	s.Group = true
	if members := membersOf(s.pid); len(members) < 2 || !slices.Contains(members, s.pid) {
		t.Errorf("group %v", members)
	}
	if told, _ := s.tell(syscall.SIGHUP); !told {
		t.Error("nobody of the group was told")
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if text, _ := os.ReadFile(told); string(text) == "told\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the child of the group did not hear")
		}
	}
	if syscall.Kill(s.pid, 0) != nil || !slices.Contains(membersOf(s.pid), s.pid) {
		t.Error("the leader is gone")
	}
}

// TestMembers has a process whose name looks like the fields after it.
func TestMembers(t *testing.T) {
	before := procDir
	defer func() { procDir = before }()
	procDir = t.TempDir()
	for pid, stat := range map[string]string{"10": "10 (a) S 1 7 (x)) S 1 99 0", "11": "11 (sh) S 1 7 0", "12": "12 (sh", "self": ""} {
		if err := os.MkdirAll(filepath.Join(procDir, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(procDir, pid, "stat"), []byte(stat), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := membersOf(99); !slices.Equal(got, []int{10}) {
		t.Errorf("%v", got)
	}
	if got := membersOf(7); !slices.Equal(got, []int{11}) {
		t.Errorf("%v", got)
	}
}
