package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	// A scratch image has no CA certificates of its own.
	_ "golang.org/x/crypto/x509roots/fallback"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/plan"
	"secret-init/shim/internal/privdrop"
	"secret-init/shim/internal/secretfs"
	"secret-init/shim/internal/signals"
	"secret-init/sources"
)

// start is the story of one start: plan, find the place, fetch, deliver,
// drop, become the command. It returns only when that failed, and then
// nothing that it wrote is left.
func start(args, environ []string, order *order, ui *ui) error {
	if err := privdrop.Guard(); err != nil {
		return err
	}
	s, err := newStartup(args, environ, ui)
	if err != nil {
		return err
	}
	if s.order = order; order != nil {
		s.session, s.pipe = order.session, order.pipe
	}
	ctx, done := s.deadline()
	defer done()
	steps := []func(context.Context) error{
		s.findCommand,
		s.findProbe,
		s.identify,
		s.findProvided,
		s.choosePlace,
	}
	if s.plan.Stays() && order == nil {
		steps = append(steps, s.handOver)
	} else {
		steps = append(steps, s.fetch, s.deliver, s.become)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			s.takeBack()
			return err
		}
	}
	return nil
}

// startup is what is known of one start.
type startup struct {
	ui      *ui
	started time.Time
	args    []string
	environ []string
	order   *order // nil unless this is a supervisor's child
	plan    *plan.Plan
	command string         // path of the executable
	drop    *privdrop.Drop // nil without --user
	owner   privdrop.Identity
	// identified: owner and drop have been found out.
	identified bool
	owners     map[string]privdrop.Identity // of secrets with one of their own, by name
	place      *secretfs.Place              // nil when nothing has to be written
	// provided are the paths of secrets that the platform has put there, by name.
	provided map[string]string
	// paths are the files by the variables that get them.
	paths     map[string]string
	fetcher   *sources.Fetcher
	documents map[string]fetched // by reference
	values    []plan.Delivery
	// session and pipe are a supervisor's child's, when values are fetched
	// again; nil otherwise. preloaded are the documents that need no reading.
	session   *session
	pipe      *os.File
	preloaded map[string]bool
	// stopWatching ends the watch for signals. Whether one has come is then certain.
	stopWatching func()
}

// fetched is a document with the reference to it.
type fetched struct {
	sources.Fetched
	Ref sources.Ref
}

// fetch reads the documents and takes the values out of them.
func (s *startup) fetch(ctx context.Context) error {
	refs := s.references()
	if s.session != nil {
		s.fetcher.States, s.preloaded = s.session.Sources, s.session.preload(s.fetcher)
	}
	s.documents = map[string]fetched{}
	stopSpinning := s.ui.waiting(s.fetcher.Waiting)
	results := s.fetcher.Fetch(ctx, refs)
	stopSpinning()
	for i, result := range results {
		s.documents[refs[i].Document().String()] = fetched{result, refs[i]}
	}
	defer s.fetcher.Wipe()
	if stop, ok := errors.AsType[interrupted](context.Cause(ctx)); ok {
		return stop
	}
	lookup := func(ref sources.Ref) (*sources.Document, error) {
		f := s.documents[ref.Document().String()]
		return f.Document, f.Err
	}
	if !s.plan.Refresh.On() {
		s.warnOfLeases()
	}
	values, warnings, err := s.plan.Resolve(lookup, s.providedPath)
	for _, warning := range warnings {
		s.ui.warn(warning)
	}
	s.values = values
	s.keepDocuments()
	return err
}

// warnOfLeases tells of values that will stop working while the command runs.
func (s *startup) warnOfLeases() {
	for _, f := range s.documents {
		if f.Document != nil && f.Document.Lease.Duration > 0 {
			ends := time.Now().Add(f.Document.Lease.Duration).UTC().Truncate(time.Second)
			s.ui.warn(fmt.Sprintf("%s has a lease that ends at %s: nothing renews it after the start", f.Ref.Name(), ends.Format(time.RFC3339)))
		}
	}
}

// deliver writes the files.
func (s *startup) deliver(context.Context) error {
	defer s.wipe()
	var files []secretfs.File
	for _, d := range s.values {
		if d.Path != "" {
			s.paths[d.Variable] = d.Path
			continue
		}
		if d.Expose {
			if err := s.expose(d); err != nil {
				return err
			}
			continue
		}
		if d.Mode&^0o440 != 0 {
			s.ui.warn(fmt.Sprintf("%s: mode %04o lets more read the file than its owner and group", d.Where, d.Mode))
		}
		files = append(files, s.file(d))
	}
	if len(files) == 0 {
		s.report()
		return nil
	}
	if s.inMemfds() {
		return s.deliverMemfds(files)
	}
	if s.place == nil {
		if err := s.findPlace(); err != nil {
			return err
		}
	}
	err := s.write(files)
	// Only now is it known which links could be placed.
	for _, file := range files {
		s.paths[file.Variable] = s.place.FilePath(file.Name)
	}
	for _, warning := range s.place.Warnings() {
		s.ui.warn(warning)
	}
	if err != nil {
		return err
	}
	s.report("dir", s.place.Path, "place", string(s.place.Kind))
	return nil
}

// expose puts a value into a variable: the last resort, and so never silent.
func (s *startup) expose(d plan.Delivery) error {
	value := string(d.Content.Reveal())
	if strings.ContainsRune(value, 0) {
		return fail(exitUsage, "leave expose out, and read the file", "%s: the value has a NUL byte, which a variable cannot hold", d.Where)
	}
	s.ui.warn(fmt.Sprintf("%s: expose: env puts the value into %s: every child process, /proc/PID/environ and many crash reports will show it", d.Where, d.Variable))
	s.paths[d.Variable] = value
	return nil
}

// deliverMemfds puts the values into sealed memory, which has no path of its own.
func (s *startup) deliverMemfds(files []secretfs.File) error {
	paths, err := secretfs.Memfd(files)
	if err != nil {
		return err
	}
	for i, file := range files {
		s.paths[file.Variable] = paths[i]
	}
	s.report("place", "memfd")
	return nil
}

// wipe overwrites the values.
func (s *startup) wipe() {
	for _, d := range s.values {
		d.Content.Wipe()
	}
}

// file gives a delivery its owner and mode.
func (s *startup) file(d plan.Delivery) secretfs.File {
	owner := s.ownerOf(d.Secret)
	return secretfs.File{
		Name: d.FileName(), Link: d.Link(), Content: d.Content.Reveal(),
		UID: owner.UID, GID: owner.GID, Mode: d.Mode, Variable: d.Variable,
	}
}

// become executes the command. The drop changes one thread only, and execve
// ends the others: should it fail, the rest can still take back what was
// written, with the privileges that it was written with.
func (s *startup) become(ctx context.Context) error {
	if err := s.leaveSession(); err != nil {
		return err
	}
	s.closeSources()
	delete(s.paths, "")
	var identity map[string]string
	if s.drop != nil {
		identity = s.drop.To.Environment()
	}
	environ := s.plan.Environ(s.paths, identity)
	if s.order != nil {
		s.order.readdress(environ)
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- s.execute(ctx, environ)
	}()
	return <-result
}

func (s *startup) execute(ctx context.Context, environ []string) error {
	if s.drop != nil {
		boundingKept, err := s.drop.Apply()
		if err != nil {
			return fail(exitSystem, "check the container's capabilities and security options", "becoming user %s: %w", s.drop.To, err)
		}
		if boundingKept {
			s.ui.info("the bounding set stays: there is no SETPCAP to drop it with")
		}
	}
	received, err := s.holdSignals(ctx)
	if err != nil {
		return err
	}
	inherited := signals.Started()
	if s.order != nil {
		inherited = s.order.Inherited
	}
	pending, err := linux.Pending()
	if err != nil {
		return err
	}
	for _, ending := range signals.Ending {
		if signal := ending.(syscall.Signal); (pending &^ inherited.Mask &^ inherited.Ignored).Has(signal) {
			received = append(received, signal)
		}
	}
	if len(received) > 0 {
		return interrupted{received[0]}
	}
	if err := inherited.Return(); err != nil {
		return err
	}
	err = linux.Exec(s.command, s.plan.Command, environ)
	hint := "check the file's mode, its interpreter and its architecture"
	if errors.Is(err, syscall.ENOEXEC) {
		hint = "write #!/bin/sh as the script's first line"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		err = errno
	}
	return fail(exitNotExec, hint, "command %q cannot be executed: %w", s.command, err)
}

// closeSources gives up what the sources have obtained for themselves, such
// as a token. It comes after the deadline, perhaps, and so has one of its own.
func (s *startup) closeSources() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := s.fetcher.Close(ctx); err != nil {
		s.ui.warn(err.Error())
	}
}

// takeBack removes what a start that failed has written.
func (s *startup) takeBack() {
	s.wipe()
	s.fetcher.Abandon()
	s.closeSources()
	if s.place != nil {
		s.place.Remove()
	}
}
