package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
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
	"secret-init/sources/all"
)

// start is the story of one start: plan, find the place, fetch, deliver,
// drop, become the command. It returns only when that failed, and then
// nothing that it wrote is left.
func start(args, environ []string, order *order, ui *ui) error {
	if err := guard(); err != nil {
		return err
	}
	s, err := newStartup(args, environ, ui)
	if err != nil {
		return err
	}
	s.order = order
	ctx, done := s.deadline()
	defer done()
	steps := []func(context.Context) error{
		s.findCommand,
		s.identify,
		s.findProvided,
		s.choosePlace,
	}
	if s.plan.Supervise && order == nil {
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
	args    []string
	environ []string
	order   *order // nil unless this is a supervisor's child
	plan    *plan.Plan
	command string         // path of the executable
	drop    *privdrop.Drop // nil without --user
	owner   privdrop.Identity
	place   *secretfs.Place // nil when nothing has to be written
	// provided are the paths of secrets that the platform has put there, by name.
	provided map[string]string
	// paths are the files by the variables that get them.
	paths     map[string]string
	fetcher   *sources.Fetcher
	documents map[string]sources.Fetched // by reference
	values    []plan.Delivery
	// stopWatching ends the watch for signals. Whether one has come is then certain.
	stopWatching func()
}

// guard refuses a setuid start, and hides what the process will hold.
func guard() error {
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return fail(exitSystem, "chmod ug-s the binary", "secret-init refuses to run setuid or setgid")
	}
	return linux.NotDumpable()
}

// newStartup makes the plan. It is there even when the plan has faults, so
// that check can go on and report the others.
func newStartup(args, environ []string, ui *ui) (*startup, error) {
	registry := all.Registry()
	var configStat fs.FileInfo
	p, err := plan.New(plan.Input{
		Registry: registry, Args: args, Environ: environ,
		ReadConfig: func(path string, named bool) (content []byte, err error) {
			content, configStat, err = readConfig(path, named)
			return content, err
		},
	})
	ui.configure(p.LogLevel, p.LogFormat)
	if err == nil && len(p.Privileged) > 0 && !rootsOwn(configStat) {
		err = fail(exitUsage, "chown root:root "+p.Config+" && chmod 0644 "+p.Config,
			"%s: only root may set privileges, and somebody else could have written this file", p.Privileged[0])
	}
	s := &startup{ui: ui, args: args, environ: environ, plan: p, provided: map[string]string{}, paths: map[string]string{}}
	s.fetcher = &sources.Fetcher{
		Registry: registry, Credentials: p.Credentials, Setenv: os.Setenv,
		Settings: sources.Settings{Getenv: os.Getenv, Warn: ui.warn},
	}
	return s, err
}

func readConfig(path string, named bool) ([]byte, fs.FileInfo, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil, nil, nil
	}
	if err != nil {
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
			err = pathErr.Err
		}
		return nil, nil, sources.Errorf(sources.Invalid, "check --config and the file's mode", "the config file cannot be read: %v", err)
	}
	info, err := os.Stat(path)
	return content, info, err
}

func rootsOwn(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0 && info.Mode().Perm()&0o022 == 0
}

// findCommand looks the command up before anything is fetched: a typing
// error should cost no lease.
func (s *startup) findCommand(context.Context) error {
	command := s.plan.Command
	if len(command) == 0 || command[0] == "" {
		return fail(exitUsage, `setting ENTRYPOINT empties the base image's CMD: repeat it, as in CMD ["docker-entrypoint.sh", "postgres"]`,
			"there is no command to run")
	}
	path, err := exec.LookPath(command[0])
	switch {
	case err == nil || errors.Is(err, exec.ErrDot):
		s.command = path
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fail(exitNotExec, "chmod +x it in the image", "command %q cannot be executed: permission denied", command[0])
	case strings.Contains(command[0], "/"):
		return fail(exitNoCommand, "is it in the image, and is the path absolute?", "command %q was not found", command[0])
	}
	return fail(exitNoCommand, "is it in the image? give its absolute path", "command %q was not found in PATH (%s)", command[0], os.Getenv("PATH"))
}

// identify finds out who the command runs as and whose the files are, and
// whether we may make it so.
func (s *startup) identify(context.Context) error {
	s.owner = privdrop.Current()
	if s.plan.User != "" {
		id, err := privdrop.System.Lookup(s.plan.User)
		if err != nil {
			return fail(exitUsage, "--user takes a name or UID:GID", "--user: %w", err)
		}
		keep, err := privdrop.ParseCapabilities(s.plan.KeepCap)
		if err != nil {
			return fail(exitUsage, "", "--keep-cap: %w", err)
		}
		s.drop = &privdrop.Drop{To: id, Keep: keep, AllowNewPrivs: s.plan.AllowNewPrivs}
		if err := s.drop.Check(); err != nil {
			return err
		}
		s.owner = id
		if len(keep) == 0 && !s.plan.AllowNewPrivs && s.command != "" && linux.FileCapabilities(s.command) {
			return fail(exitNotExec, "name what it needs with --keep-cap", "command %q would lose its file capabilities under --user", s.command)
		}
	}
	if s.plan.Owner != "" {
		id, err := privdrop.System.Lookup(s.plan.Owner)
		if err != nil {
			return fail(exitUsage, "--owner takes a name or UID:GID", "--owner: %w", err)
		}
		s.owner = id
	}
	return nil
}

// reader is who will open the secrets that the platform has provided.
func (s *startup) reader() secretfs.Reader {
	id := privdrop.Current()
	if s.drop != nil {
		id = s.drop.To
	}
	return secretfs.Reader{UID: id.UID, Groups: append(id.Groups, id.GID)}
}

// findProvided finds the secrets that Compose, Swarm or Kubernetes has put
// into the container already: they are not fetched, and need no credentials.
func (s *startup) findProvided(context.Context) error {
	var faults plan.Faults
	for _, secret := range s.plan.Secrets {
		path := s.plan.Dir + "/" + secret.FileName()
		preset := secret.PresetPath()
		if preset != "" {
			path = preset
		}
		switch provided := secretfs.Provided(path, s.reader()); {
		case !provided && preset != "":
			faults = append(faults, secret.BothSet())
		case provided && s.plan.Existing == "error":
			faults = append(faults, plan.Fault{Where: secret.Where, Err: sources.Errorf(sources.Invalid, "--existing use takes it, --existing replace fetches", "%s is already provided", path)})
		case provided && s.plan.Existing == "use":
			s.provided[secret.Name] = path
			if secret.Variable != "" {
				s.paths[secret.Variable] = path
			}
			if !secretfs.Readable(path, s.reader()) {
				s.ui.warn(fmt.Sprintf("%s: the provided %s cannot be read by uid %d", secret.Where, path, s.reader().UID))
			}
		}
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

func (s *startup) isProvided(secret plan.Secret) bool {
	_, ok := s.provided[secret.Name]
	return ok
}

// deadline bounds the whole start, and ends it when a signal comes.
func (s *startup) deadline() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	ctx, cancelTimeout := context.WithTimeout(ctx, s.plan.Timeout)
	quit, stopped := make(chan struct{}), make(chan struct{})
	s.stopWatching = sync.OnceFunc(func() { close(quit); <-stopped })
	go func() {
		defer close(stopped)
		select {
		case got := <-signals.Caught:
			cancel(interrupted{got.(syscall.Signal)})
		case <-quit:
		}
	}()
	return ctx, cancelTimeout
}

// choosePlace finds where to write, before a lease is taken out for nothing.
func (s *startup) choosePlace(context.Context) error {
	wanted := len(s.plan.From)
	for _, secret := range s.plan.Secrets {
		if !s.isProvided(secret) {
			wanted++
		}
	}
	if wanted == 0 {
		return nil
	}
	if s.order != nil {
		place, err := secretfs.Reopen(*s.order.Place)
		s.place = place
		return err
	}
	// A document of --from may have many values: the limit costs no memory.
	size := max(16<<20, int64(wanted+1)*(s.plan.MaxSize+64<<10))
	place, err := secretfs.Choose(s.plan.Dir, size)
	if err != nil {
		return err
	}
	s.place = place
	for _, why := range place.Rejected {
		s.ui.info("files do not go there: " + why)
	}
	if place.Swappable() {
		s.ui.info("swap is on, and the files on " + place.Path + " may be written to it: its tmpfs has no noswap")
	}
	return nil
}

// fetch reads the documents and takes the values out of them.
func (s *startup) fetch(ctx context.Context) error {
	refs := slices.Clone(s.plan.From)
	for _, secret := range s.plan.Secrets {
		if !s.isProvided(secret) {
			refs = append(refs, secret.Value.Refs()...)
		}
	}
	s.documents = map[string]sources.Fetched{}
	for i, fetched := range s.fetcher.Fetch(ctx, refs) {
		s.documents[refs[i].Document().String()] = fetched
	}
	defer s.fetcher.Wipe()
	if stop, ok := errors.AsType[interrupted](context.Cause(ctx)); ok {
		return stop
	}
	lookup := func(ref sources.Ref) (*sources.Document, error) {
		f := s.documents[ref.Document().String()]
		return f.Document, f.Err
	}
	values, warnings, err := s.plan.Resolve(lookup, s.isProvided)
	for _, warning := range warnings {
		s.ui.warn(warning)
	}
	s.values = values
	return err
}

// deliver writes the files.
func (s *startup) deliver(context.Context) error {
	if s.place == nil {
		return nil
	}
	defer s.wipe()
	var files []secretfs.File
	for _, d := range s.values {
		file, err := s.file(d)
		if err != nil {
			return err
		}
		files = append(files, file)
		if d.Variable != "" {
			s.paths[d.Variable] = s.place.FilePath(d.FileName())
		}
	}
	err := s.place.Write(files)
	for _, warning := range s.place.Warnings() {
		s.ui.warn(warning)
	}
	s.ui.info("secrets delivered", "count", len(files), "dir", s.place.Path, "place", string(s.place.Kind))
	return err
}

// wipe overwrites the values.
func (s *startup) wipe() {
	for _, d := range s.values {
		d.Content.Wipe()
	}
}

// file gives a delivery its owner and mode.
func (s *startup) file(d plan.Delivery) (secretfs.File, error) {
	file := secretfs.File{
		Name: d.FileName(), Link: d.Link(), Content: d.Content.Reveal(),
		UID: s.owner.UID, GID: s.owner.GID, Mode: d.Mode, Variable: d.Variable,
	}
	var err error
	if d.UID != "" {
		if file.UID, err = privdrop.System.LookupUser(d.UID); err != nil {
			return file, fail(exitUsage, "uid takes a name or a number", "%s: uid: %w", d.Where, err)
		}
	}
	if d.GID != "" {
		if file.GID, err = privdrop.System.LookupGroup(d.GID); err != nil {
			return file, fail(exitUsage, "gid takes a name or a number", "%s: gid: %w", d.Where, err)
		}
	}
	return file, nil
}

// become executes the command. The drop changes one thread only, and execve
// ends the others: should it fail, the rest can still take back what was
// written, with the privileges that it was written with.
func (s *startup) become(ctx context.Context) error {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.fetcher.Close(closing); err != nil {
		s.ui.warn(err.Error())
	}
	var identity map[string]string
	if s.drop != nil {
		identity = s.drop.To.Environment()
	}
	environ := s.plan.Environ(s.paths, identity)
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
	mask, received, err := s.holdSignals(ctx)
	if err != nil {
		return err
	}
	if s.order != nil {
		mask = s.order.Mask
	}
	pending, err := linux.Pending()
	if err != nil {
		return err
	}
	for _, ending := range signals.Ending {
		if signal := ending.(syscall.Signal); pending.Has(signal) && !mask.Has(signal) {
			received = append(received, signal)
		}
	}
	if len(received) > 0 {
		return interrupted{received[0]}
	}
	if _, err := linux.ThreadSigmask(mask); err != nil {
		return err
	}
	err = linux.Exec(s.command, s.plan.Command, environ)
	hint := "check the file's mode, its interpreter and its architecture"
	if errors.Is(err, syscall.ENOEXEC) {
		hint = "a script needs #!/bin/sh as its first line"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		err = errno
	}
	return fail(exitNotExec, hint, "command %q cannot be executed: %w", s.command, err)
}

// takeBack removes what a start that failed has written.
func (s *startup) takeBack() {
	s.wipe()
	if s.place != nil {
		s.place.Remove()
	}
}
