package supervise

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"secret-init/shim/internal/linux"
)

// Report is all that a child which fetched tells of it. It holds no value.
type Report struct {
	// Changed: the command's files are others now.
	Changed bool
	// Failed: something could not be read, and its old value stays.
	Failed bool
	// Next is when a lease has to be looked after, from now; zero is never.
	Next time.Duration
	// Session: there is something to give up at the end.
	Session bool
}

// Write sends the report through a pipe.
func (r Report) Write(pipe io.Writer) error { return json.NewEncoder(pipe).Encode(r) }

// Schedule decides when to fetch again. The figures are ours.
type Schedule struct {
	// Every is the interval; zero to go by the leases alone.
	Every time.Duration
	// Random is in [0, 1); nil for the real one.
	Random func() float64

	pause time.Duration
}

const (
	firstRetry = time.Second
	// maxRetry is for who goes by the leases alone.
	maxRetry = time.Minute
	// soonest keeps a lease that is nearly over from being asked for in a loop.
	soonest = 100 * time.Millisecond
)

// Wait is how long to wait after a report: the interval, 10 % more or less,
// or until a lease wants attention, up to 10 % earlier. After a failure it is
// a pause that doubles each time, up to the interval. ok is false when
// nothing is to be fetched any more.
func (s *Schedule) Wait(r Report) (wait time.Duration, ok bool) {
	random := s.Random
	if random == nil {
		random = rand.Float64
	}
	spread := func(d time.Duration, from, to float64) time.Duration {
		return time.Duration(float64(d) * (from + (to-from)*random()))
	}
	most := s.Every
	if most == 0 {
		most = maxRetry
	}
	switch {
	case r.Failed && s.pause == 0:
		s.pause = min(firstRetry, most)
	case r.Failed:
		s.pause = min(2*s.pause, most)
	default:
		s.pause = 0
	}
	if r.Failed {
		wait, ok = spread(s.pause, 0.9, 1.1), true
	} else if s.Every > 0 {
		wait, ok = spread(s.Every, 0.9, 1.1), true
	}
	if r.Next > 0 {
		next := max(soonest, spread(r.Next, 0.9, 1))
		if !ok || next < wait {
			wait, ok = next, true
		}
	}
	return wait, ok
}

// Refresher has the command's secrets fetched again, by short-lived children,
// while a supervisor runs.
type Refresher struct {
	Supervisor *Supervisor
	Schedule   Schedule
	// Start starts a child that refreshes. pipe brings its report, and is at
	// its end when the child has ended.
	Start func(attr *syscall.SysProcAttr) (pid int, pipe io.ReadCloser, err error)
	// Limit is how long a child may take before it is killed.
	Limit time.Duration
	// Signal is what the command gets when something changed; zero for none.
	Signal syscall.Signal
	// Restart starts the command anew instead. Grace is how long it has to end.
	Restart bool
	Grace   time.Duration
	Warn    func(string)

	// executed has the report of a child that became the command.
	executed chan Report
	warned   bool
	// reports are those that are still to come from a child that was to become
	// the command.
	reports sync.WaitGroup
	// session: there is something to give up at the end.
	session atomic.Bool

	mu sync.Mutex
	// current is the end of the child that is running, and pid who it is; over
	// lets no other one start.
	current chan struct{}
	pid     int
	over    bool
}

// Attach makes ready, before the supervisor runs.
func (r *Refresher) Attach() {
	r.executed = make(chan Report, 1)
	r.Supervisor.calls = make(chan func())
}

// Executed follows a child that becomes the command: pipe brings its report,
// and is at its end when the command has been executed.
func (r *Refresher) Executed(pipe io.ReadCloser) {
	r.reports.Add(1)
	go func() {
		defer pipe.Close()
		report, ok := readReport(pipe)
		if report.Session {
			r.session.Store(true)
		}
		r.reports.Done()
		_, _ = io.Copy(io.Discard, pipe)
		if ok {
			r.executed <- report
		}
	}()
}

// readReport reads the first report; one that is not there is none.
func readReport(pipe io.Reader) (report Report, ok bool) {
	const most = 1 << 10
	return report, json.NewDecoder(io.LimitReader(pipe, most)).Decode(&report) == nil
}

// Run fetches again and again until ctx ends.
func (r *Refresher) Run(ctx context.Context) {
	var report Report
	restarted := true
	for {
		if restarted {
			select {
			case report = <-r.executed:
			case <-ctx.Done():
				return
			}
		}
		wait, ok := r.Schedule.Wait(report)
		if !ok {
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		report = r.round(ctx)
		// PID 1 has hours to wait now, and nothing to keep.
		Rest()
		restarted = report.Changed && r.Restart
	}
}

// inLoop has the supervisor do something between two signals.
func (r *Refresher) inLoop(ctx context.Context, call func()) {
	select {
	case r.Supervisor.calls <- call:
	case <-ctx.Done():
	}
}

// round is one refresh. The command is told as soon as the report is there;
// the child may have something to clear up after it.
func (r *Refresher) round(ctx context.Context) Report {
	ctx, cancel := context.WithTimeout(ctx, r.Limit)
	defer cancel()
	reports := make(chan Report, 1)
	err := r.Supervisor.RunBeside(ctx, func(attr *syscall.SysProcAttr) (int, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.over {
			return 0, context.Canceled
		}
		pid, pipe, err := r.Start(attr)
		if err != nil {
			return 0, err
		}
		ended := make(chan struct{})
		r.pid, r.current = pid, ended
		go func() {
			defer close(ended)
			defer pipe.Close()
			report, ok := readReport(pipe)
			if !ok {
				report.Failed = true
			}
			if report.Session {
				r.session.Store(true)
			}
			if report.Changed {
				r.inLoop(ctx, r.changed)
			}
			reports <- report
			_, _ = io.Copy(io.Discard, pipe)
		}()
		return pid, nil
	})
	if err != nil {
		return Report{Failed: true}
	}
	return <-reports
}

// changed tells the command that its files are others now.
func (r *Refresher) changed() {
	if r.Restart {
		r.Supervisor.restart(r.Grace)
		return
	}
	if r.Signal == 0 {
		return
	}
	told, err := r.Supervisor.tell(r.Signal)
	if told || r.warned {
		return
	}
	r.warned = true
	name := fmt.Sprintf("the signal %d (%v)", int(r.Signal), r.Signal)
	if err != nil {
		r.Warn("the secrets have changed, and " + name + " cannot be sent to the command: it is another user's, and the container lacks the capability KILL")
		return
	}
	r.Warn("the secrets have changed, and the command does not catch " + name + ": it is not sent, since it would end the command")
}

// Session reports whether there is anything to give up at the end. It is for
// after the supervisor's Run, when all that was to report has ended or does so.
func (r *Refresher) Session() bool {
	r.reports.Wait()
	return r.session.Load()
}

// Interrupt ends a refresh that is running, waits until it has saved what it
// holds, or ctx ends, and lets no other one start. It is for after the
// supervisor's Run, and before the end of the context that Run was given.
func (r *Refresher) Interrupt(ctx context.Context) {
	r.mu.Lock()
	r.over = true
	current, pid := r.current, r.pid
	r.mu.Unlock()
	if current == nil {
		return
	}
	select {
	case <-current:
		return
	default:
	}
	_ = linux.Kill(pid, syscall.SIGTERM)
	// It may have obtained something since its last report.
	r.session.Store(true)
	select {
	case <-current:
	case <-ctx.Done():
	}
}

// restart ends the command, for it to be started again when it has. One that
// somebody has already told to end is not held up.
func (s *Supervisor) restart(grace time.Duration) {
	if s.terminated {
		return
	}
	s.restarting = true
	if s.stopping == nil {
		s.stopping = time.After(grace)
	}
	s.send(syscall.SIGTERM)
}

// ending notes signals that ask the command to end for good.
func (s *Supervisor) ending(signal syscall.Signal) {
	switch signal {
	case syscall.SIGTERM:
		s.terminated, s.restarting = true, false
	case syscall.SIGINT, syscall.SIGQUIT:
		s.restarting = false
	}
}

// tell sends a signal to the command, or to those of its group, that catch it:
// the others would be ended by it, as most signals do by default.
// err is why one that catches it could not be told.
func (s *Supervisor) tell(signal syscall.Signal) (told bool, err error) {
	pids := []int{s.pid}
	if s.Group {
		pids = membersOf(s.pid)
	}
	for _, pid := range pids {
		if !catches(pid, signal) {
			continue
		}
		killed := linux.Kill(pid, signal)
		told = told || killed == nil
		if errors.Is(killed, syscall.EPERM) {
			err = killed
		}
	}
	return told, err
}

// procDir is a variable, so that a test can write one of its own.
var procDir = "/proc"

// catches reports whether a process has a handler for a signal: SigCgt in
// proc_pid_status(5), a mask in hexadecimal.
func catches(pid int, signal syscall.Signal) bool {
	status, err := os.ReadFile(filepath.Join(procDir, strconv.Itoa(pid), "status"))
	if err != nil {
		return false
	}
	for line := range bytes.Lines(status) {
		if text, ok := bytes.CutPrefix(line, []byte("SigCgt:")); ok {
			mask, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 16, 64)
			return err == nil && linux.Sigmask(mask).Has(signal)
		}
	}
	return false
}

// membersOf are the processes of a group: pgrp is the third field after the
// name in proc_pid_stat(5), and the name may hold anything but ends with the
// last bracket.
func membersOf(group int) (pids []int) {
	entries, err := os.ReadDir(procDir)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(procDir, entry.Name(), "stat"))
		if err != nil {
			continue
		}
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 2 && string(fields[2]) == strconv.Itoa(group) {
			pids = append(pids, pid)
		}
	}
	return pids
}
