package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"secret-init/shim/internal/plan"
	"secret-init/shim/internal/privdrop"
	"secret-init/shim/internal/secretfs"
	"secret-init/shim/internal/stay"
	"secret-init/shim/internal/supervise"
	"secret-init/sources"
)

// Each refresh is a short-lived child of PID 1: it makes the same plan as the
// start, reads the sources again, and exchanges the files if a value is another.

const (
	restartGrace = 10 * time.Second
	// settleTime is how long the files of before stay beside the new ones: a
	// reader that is on its way to one must not find it gone.
	settleTime = time.Second
	// limitSlack is how much longer than its own deadline a refresh may take
	// before it is killed.
	limitSlack = 10 * time.Second
)

// planRefresh adds to the duty what the options ask for.
func (s *startup) planRefresh(d *stay.Duty) {
	if !s.plan.Refresh.On() {
		return
	}
	r := &stay.Refreshing{Every: s.plan.Refresh.Every, Limit: s.plan.Timeout + limitSlack, Grace: s.plan.StopGrace}
	if r.Grace == 0 {
		r.Grace = restartGrace
	}
	switch s.plan.OnChange {
	case plan.OnChangeNone:
	case plan.OnChangeRestart:
		r.Restart = true
	case "":
		r.Signal = syscall.SIGHUP
	default:
		r.Signal = unix.SignalNum("SIG" + s.plan.OnChange)
	}
	d.Refresh = r
}

// keeping is what a child is given beside its order: the pipe for its report,
// and the session.
func keeping(args []string) (pipe *os.File, session *session, err error) {
	if len(args) != 2 {
		return nil, nil, stay.ErrNotOurs
	}
	var fds [2]int
	for i, arg := range args {
		if fds[i], err = stay.Descriptor(arg); err != nil {
			return nil, nil, err
		}
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), openSession(fds[1]), nil
}

// takeUp is what the children of a refresh begin with.
func takeUp(args []string, ui *ui) (s *startup, pipe *os.File, err error) {
	if err := privdrop.Guard(); err != nil {
		return nil, nil, err
	}
	if len(args) == 0 {
		return nil, nil, stay.ErrNotOurs
	}
	o, err := takeOrder(args[:1])
	if err != nil {
		return nil, nil, err
	}
	pipe, session, err := keeping(args[1:])
	if err != nil {
		return nil, nil, err
	}
	s, err = newStartup(o.Args, o.Environ, ui)
	s.order, s.session, s.pipe = o, session, pipe
	return s, pipe, err
}

// refresh is one refresh. Whatever goes wrong is a warning: the command runs
// on with what it has.
func refresh(args []string, ui *ui) error {
	s, pipe, err := takeUp(args, ui)
	if pipe == nil {
		return err
	}
	defer pipe.Close()
	report := supervise.Report{}
	if err == nil {
		ctx, done := s.deadline()
		defer done()
		// What these warn of was said at the start.
		quiet := *ui
		quiet.configure("error", s.plan.LogFormat)
		s.ui = &quiet
		for _, step := range []func(context.Context) error{s.identify, s.findProvided, s.choosePlace} {
			if err == nil {
				err = step(ctx)
			}
		}
		s.ui = ui
		if err == nil {
			report, err = s.renew(ctx)
		}
	}
	if err != nil {
		report.Failed = true
		warnOf(ui, err)
	}
	if err := report.Write(pipe); err == nil && report.Changed && s.place != nil {
		time.Sleep(settleTime)
		s.place.Settle()
	}
	return nil
}

// warnOf says why a refresh left what there was.
func warnOf(ui *ui, err error) {
	faults, ok := errors.AsType[plan.Faults](err)
	if !ok {
		faults = plan.Faults{{Err: err}}
	}
	for _, fault := range faults.Merged() {
		var attrs []any
		if hint := hintOf(fault.Err); hint != "" {
			attrs = []any{"hint", hint}
		}
		ui.warn("refresh: "+fault.Error(), attrs...)
	}
}

// renew looks after the leases, reads what is to be read, and exchanges the
// files if a value is another.
func (s *startup) renew(ctx context.Context) (report supervise.Report, err error) {
	s.fetcher.Once, s.fetcher.States = true, s.session.Sources
	before := map[string]sources.Kept{}
	for id, kept := range s.session.Documents {
		before[id] = kept
	}
	var faults plan.Faults
	preloaded := s.renewLeases(ctx, &faults)
	refs := s.references()
	lookup := s.readAgain(ctx, refs, preloaded, &faults)
	s.session.take(s.fetcher.Read(), preloaded)
	defer s.fetcher.Wipe()
	// From here on what was obtained is the session's, whatever happens.
	if err := s.leave(&report); err != nil {
		return report, err
	}
	if errors.As(context.Cause(ctx), new(interrupted)) {
		return report, nil
	}
	values, warnings, err := s.plan.Resolve(lookup, s.providedPath)
	if err != nil {
		// What has a lease cannot be had back; the rest stays as it was.
		faults = append(faults, asFaults(err)...)
		for id, kept := range before {
			if kept.Lease.Duration == 0 {
				s.session.Documents[id] = kept
			}
		}
		values, warnings, err = s.plan.Resolve(s.lookupKept, s.providedPath)
	}
	s.values = values
	defer s.wipe()
	if err == nil {
		report.Changed, err = s.exchange(warnings)
	}
	if saveErr := s.session.save(); err == nil {
		err = saveErr
	}
	if err != nil {
		faults = append(faults, asFaults(err)...)
	}
	if report.Failed = len(faults) > 0; report.Failed {
		warnOf(s.ui, faults)
	}
	return report, nil
}

func asFaults(err error) plan.Faults {
	if faults, ok := errors.AsType[plan.Faults](err); ok {
		return faults
	}
	return plan.Faults{{Err: err}}
}

// leave writes the session, with what the sources hold, and says when to look
// after it again.
func (s *startup) leave(report *supervise.Report) error {
	states, at := s.fetcher.HandOver()
	s.session.Sources = states
	report.Session = len(states) > 0
	report.Next = s.session.next(at)
	return s.session.save()
}

// early is the part of two thirds of a lease's life at which PID 1, with its
// jitter, calls at the earliest.
const early = 0.9

// renewLeases prolongs what is due. What need not be read again is preloaded;
// what is not, is read.
func (s *startup) renewLeases(ctx context.Context, faults *plan.Faults) (preloaded map[string]bool) {
	preloaded = map[string]bool{}
	for id, kept := range s.session.Documents {
		ref, err := sources.ParseRef(id)
		if err != nil {
			continue
		}
		keep := s.plan.Refresh.Leases
		if kept.Lease.Duration > 0 {
			keep = s.renewLease(ctx, ref, &kept, faults)
			s.session.Documents[id] = kept
		}
		if keep {
			s.fetcher.Preload(ref, kept.Document())
			preloaded[id] = true
		}
	}
	return preloaded
}

// renewLease reports whether the document can be kept.
func (s *startup) renewLease(ctx context.Context, ref sources.Ref, kept *sources.Kept, faults *plan.Faults) bool {
	age := time.Since(kept.Granted)
	due := age >= time.Duration(early*float64(kept.Due().Sub(kept.Granted)))
	lease, err := s.fetcher.Renew(ctx, ref, kept.Lease, due)
	switch {
	case sources.ClassOf(err) == sources.Unavailable && err != nil:
		*faults = append(*faults, plan.Fault{Err: stays(err, *kept)})
		return true
	case err != nil:
		return false
	case !due:
		return true
	}
	// Less than was asked for, but for roundings: it is near its last end.
	short := lease.Duration < kept.Lease.Duration*9/10
	kept.Granted = time.Now()
	if short {
		kept.Lease.Duration = lease.Duration
	}
	return !short
}

// readAgain reads the documents. One that cannot be read is what it was.
func (s *startup) readAgain(ctx context.Context, refs []sources.Ref, preloaded map[string]bool, faults *plan.Faults) plan.Lookup {
	documents := map[string]sources.Fetched{}
	for i, result := range s.fetcher.Fetch(ctx, refs) {
		id := refs[i].Document().String()
		if _, done := documents[id]; done {
			continue
		}
		kept, known := s.session.Documents[id]
		switch {
		case result.Err == nil || preloaded[id]:
		case sources.ClassOf(result.Err) == sources.NotFound && refs[i].Optional():
			delete(s.session.Documents, id)
		case known:
			*faults = append(*faults, plan.Fault{Err: stays(result.Err, kept)})
			result = sources.Fetched{Document: kept.Document()}
		}
		documents[id] = result
	}
	return func(ref sources.Ref) (*sources.Document, error) {
		result := documents[ref.Document().String()]
		return result.Document, result.Err
	}
}

// lookupKept gives the documents of the session.
func (s *startup) lookupKept(ref sources.Ref) (*sources.Document, error) {
	kept, ok := s.session.Documents[ref.Document().String()]
	if !ok {
		err := sources.Errorf(sources.NotFound, "wait for the next refresh; look with: docker logs", "has not been read yet")
		err.Subject = ref.Name()
		return nil, err
	}
	return kept.Document(), nil
}

// stays adds to an error how old the values are that stay.
func stays(err error, kept sources.Kept) error {
	age := time.Since(kept.Read).Round(time.Second)
	text := fmt.Sprintf("%v: the values of %v ago stay", err, age)
	if ends := kept.Ends(); !ends.IsZero() && time.Now().After(ends) {
		text = fmt.Sprintf("%v: the values of %v ago stay, though their lease ended at %s", err, age, ends.UTC().Format(time.RFC3339))
	}
	return &sources.Error{Class: sources.ClassOf(err), What: text, Hint: sources.HintOf(err)}
}

// exchange puts the values into the files, if any is another than before.
func (s *startup) exchange(warnings []string) (changed bool, err error) {
	digest := s.digest(s.values)
	if digest == s.session.Delivered {
		return false, nil
	}
	for _, warning := range warnings {
		s.ui.warn(warning)
	}
	var files []secretfs.File
	for _, d := range s.values {
		// The names of --from are not known before.
		provided := s.isProvided(d.Secret) || s.plan.Existing == "use" && secretfs.Provided(s.plan.Dir+"/"+d.FileName(), s.reader())
		if d.Path == "" && !d.Expose && !provided {
			files = append(files, s.file(d))
		}
	}
	if s.place == nil && len(files) > 0 {
		return false, fail(exitNoPlace, "restart the container with: docker restart", "there are files to write now, and there were none at the start")
	}
	if s.place != nil {
		err := s.place.Exchange(files)
		for _, warning := range s.place.Warnings() {
			s.ui.warn(warning)
		}
		if err != nil {
			return false, err
		}
	}
	s.session.Delivered = digest
	s.ui.info("secrets changed", "count", len(files))
	return true, nil
}

// write writes the files of a start, or of a restart, which has them already.
func (s *startup) write(files []secretfs.File) error {
	if s.session == nil {
		return s.place.Write(files)
	}
	switch s.session.Delivered {
	case s.digest(s.values):
		return nil
	case "":
		return s.place.WriteExchangeable(files)
	}
	return s.place.Exchange(files)
}

// keepDocuments is for a start whose values are to be fetched again.
func (s *startup) keepDocuments() {
	if s.session != nil {
		s.session.take(s.fetcher.Read(), s.preloaded)
		s.session.fresh = s.digest(s.values)
	}
}

// leaveSession is for a child that is about to become the command.
func (s *startup) leaveSession() error {
	if s.session == nil {
		return nil
	}
	s.session.Delivered = s.session.fresh
	var report supervise.Report
	if err := s.leave(&report); err != nil {
		return err
	}
	if s.plan.Refresh.Leases && report.Next == 0 {
		s.ui.warn("nothing has a lease: --refresh lease fetches nothing again", "hint", "give it an interval: --refresh 5m")
	}
	return report.Write(s.pipe)
}

// giveUp is the last child: it revokes what the session holds.
func giveUp(args []string, ui *ui) error {
	s, pipe, err := takeUp(args, ui)
	if pipe == nil || err != nil {
		return err
	}
	defer pipe.Close()
	s.session.preload(s.fetcher)
	s.fetcher.Once, s.fetcher.States = true, s.session.Sources
	ctx, cancel := context.WithTimeout(context.Background(), stay.GiveUpTime)
	defer cancel()
	s.fetcher.OpenKept(ctx)
	s.closeSources()
	return nil
}

// references are those of all that is not provided.
func (s *startup) references() []sources.Ref {
	refs := slices.Clone(s.plan.From)
	for _, secret := range s.plan.Secrets {
		if !s.isProvided(secret) {
			refs = append(refs, secret.Value.Refs()...)
		}
	}
	return refs
}
