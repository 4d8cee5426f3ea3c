package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"secret-init/shim/internal/linux"
	"secret-init/shim/internal/plan"
	"secret-init/shim/internal/privdrop"
	"secret-init/shim/internal/secretfs"
	"secret-init/shim/internal/signals"
	"secret-init/sources"
	"secret-init/sources/all"
)

// newStartup makes the plan. It is there even when the plan has faults, so
// that check can go on and report the others.
func newStartup(args, environ []string, ui *ui) (*startup, error) {
	s, configStat, err := read(args, environ, ui, os.ReadFile)
	if p := s.plan; err == nil && len(p.Privileged) > 0 && !rootsOwn(configStat) {
		err = fail(exitUsage, "chown root:root "+p.Config+" && chmod 0644 "+p.Config,
			"%s: only root may set privileges, and somebody else could have written this file", p.Privileged[0])
	}
	return s, err
}

// newOfflineStartup makes the plan where the image's files are not: a
// template that is not there is passed over, and whose the config file is
// does not count.
func newOfflineStartup(args, environ []string, ui *ui) (*startup, error) {
	s, _, err := read(args, environ, ui, func(path string) ([]byte, error) {
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return content, err
	})
	return s, err
}

// read makes the plan. configStat is nil without a config file.
func read(args, environ []string, ui *ui, readFile func(string) ([]byte, error)) (s *startup, configStat fs.FileInfo, err error) {
	registry := all.Registry()
	p, err := plan.New(plan.Input{
		Registry: registry, Args: args, Environ: environ,
		ReadConfig: func(path string, named bool) (content []byte, err error) {
			content, configStat, err = readConfig(path, named)
			return content, err
		},
		ReadFile: func(path string) ([]byte, error) {
			content, err := readFile(path)
			return content, withoutPath(err)
		},
	})
	ui.lookAround(environ)
	ui.configure(p.LogLevel, p.LogFormat)
	s = &startup{ui: ui, started: time.Now(), args: args, environ: environ, plan: p, provided: map[string]string{}, paths: map[string]string{}, owners: map[string]privdrop.Identity{}}
	s.fetcher = &sources.Fetcher{
		Registry: registry, Credentials: p.Credentials, Setenv: os.Setenv,
		Settings: sources.Settings{Getenv: os.Getenv, Warn: func(text string) { ui.warn(text) }},
	}
	return s, configStat, err
}

// readConfig reads the file and its owner from one descriptor, so that both
// are of the same file.
func readConfig(path string, named bool) ([]byte, fs.FileInfo, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil, nil, nil
	}
	var info fs.FileInfo
	var content []byte
	if err == nil {
		defer file.Close()
		info, err = file.Stat()
	}
	if err == nil {
		content, err = io.ReadAll(io.LimitReader(file, maxConfig))
	}
	if err != nil {
		return nil, nil, sources.Errorf(sources.Invalid, "check --config and the file's mode", "the config file cannot be read: %v", withoutPath(err))
	}
	return content, info, nil
}

// withoutPath leaves the reason alone, where the path is said anyway.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// maxConfig is in bytes: far more than references need.
const maxConfig = 1 << 20

func rootsOwn(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0 && info.Mode().Perm()&0o022 == 0
}

// ownCommands are what follows the name of an image whose entry point ends
// with --, when somebody means secret-init itself.
var ownCommands = map[string]bool{"check": true, "env": true, "install": true, "version": true, "help": true}

// findCommand looks the command up before anything is fetched: a typing
// error should cost no lease.
func (s *startup) findCommand(context.Context) error {
	command := s.plan.Command
	if len(command) == 0 || command[0] == "" {
		return fail(exitUsage, `repeat the base image's CMD, which setting ENTRYPOINT empties, as in CMD ["docker-entrypoint.sh", "postgres"]`,
			"there is no command to run")
	}
	path, err := exec.LookPath(command[0])
	switch {
	case err == nil || errors.Is(err, exec.ErrDot):
		s.command = path
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fail(exitNotExec, "chmod +x it in the image", "command %q cannot be executed: permission denied", command[0])
	case ownCommands[command[0]]:
		return fail(exitNoCommand, "put it before the --, as in: docker run --entrypoint /secret-init IMAGE "+command[0], "command %q was not found", command[0])
	case strings.HasPrefix(command[0], "-"):
		return fail(exitNoCommand, "put options before the --, or set them as variables: docker run -e SECRET_INIT_TIMEOUT=5s", "command %q was not found", command[0])
	case strings.Contains(command[0], "/"):
		return fail(exitNoCommand, commandHint, "command %q was not found", command[0])
	}
	return fail(exitNoCommand, commandHint, "command %q was not found in PATH (%s)", command[0], os.Getenv("PATH"))
}

// identify finds out who the command runs as and whose the files are, and
// whether we may make it so.
func (s *startup) identify(context.Context) error {
	s.owner = privdrop.Current()
	if s.plan.User != "" {
		id, err := privdrop.System.Lookup(s.plan.User)
		if err != nil {
			return fail(exitUsage, "add it to /etc/passwd in the image, or write numbers: --user 10001:10001", "--user: %w", err)
		}
		keep, err := privdrop.ParseCapabilities(s.plan.KeepCap)
		if err != nil {
			return fail(exitUsage, capabilityHint, "--keep-cap: %w", err)
		}
		if id.UID == 0 && len(keep) > 0 {
			return fail(exitUsage, "leave --keep-cap out", "--keep-cap: user %s is root, and has all that the container has", id)
		}
		s.drop = &privdrop.Drop{To: id, Keep: keep, AllowNewPrivs: s.plan.AllowNewPrivs}
		if err := s.drop.Check(); err != nil {
			return err
		}
		s.owner = id
		if len(keep) == 0 && !s.plan.AllowNewPrivs && s.command != "" && linux.FileCapabilities(s.command) {
			return fail(exitNotExec, "name what it needs with --keep-cap", "command %q would lose its file capabilities under --user", s.command)
		}
		if s.plan.Stays() && s.order == nil && !s.drop.CanSignal() {
			s.ui.warn(fmt.Sprintf("no signal reaches the command, which runs as user %s: the container lacks the capability KILL, and docker stop takes until its limit", id),
				"hint", "add --cap-add KILL to docker run")
		}
	}
	if s.plan.Owner != "" {
		id, err := privdrop.System.Lookup(s.plan.Owner)
		if err != nil {
			return fail(exitUsage, "write --owner NAME or --owner UID:GID", "--owner: %w", err)
		}
		s.owner = id
	}
	s.identified = true
	return s.findOwners()
}

// findOwners looks up the owners that single secrets have of their own.
func (s *startup) findOwners() error {
	var faults plan.Faults
	for _, secret := range s.plan.Secrets {
		owner := s.owner
		var uidErr, gidErr error
		if secret.UID != "" {
			owner.UID, uidErr = privdrop.System.LookupUser(secret.UID)
		}
		if secret.GID != "" {
			owner.GID, gidErr = privdrop.System.LookupGroup(secret.GID)
		}
		for field, err := range map[string]error{"uid": uidErr, "gid": gidErr} {
			if err != nil {
				faults = append(faults, plan.Fault{Where: secret.Where, Err: fail(exitUsage, "write "+field+": NAME or "+field+": NUMBER", "%s: %w", field, err)})
			}
		}
		s.owners[secret.Name] = owner
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// ownerOf is whose a secret's file is.
func (s *startup) ownerOf(secret plan.Secret) privdrop.Identity {
	if owner, ok := s.owners[secret.Name]; ok {
		return owner
	}
	return s.owner
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
			faults = append(faults, plan.Fault{Where: secret.Where, Err: sources.Errorf(sources.Invalid, "set --existing use to take it, or --existing replace to fetch it", "%s is already provided", path)})
		case provided && s.plan.Existing == "use":
			s.provided[secret.Name] = path
			if secret.Variable != "" && !secret.Expose {
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

// providedPath is where the platform has put a secret, if it has.
func (s *startup) providedPath(secret plan.Secret) (string, bool) {
	path, ok := s.provided[secret.Name]
	return path, ok
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
	if s.wanted() == 0 || s.inMemfds() {
		return nil
	}
	if s.order != nil && s.order.Place != nil {
		place, err := secretfs.Reopen(*s.order.Place)
		s.place = place
		return err
	}
	return s.findPlace()
}

// inMemfds: the files have no place.
func (s *startup) inMemfds() bool { return s.plan.Deliver == "memfd" }

// wanted is how many files have to be written, as far as is known before
// documents are read; one of --from may have many values.
func (s *startup) wanted() int {
	n := 0
	for _, ref := range s.plan.From {
		if backend, _ := s.fetcher.Registry.Backend(ref.Scheme); backend.InPlace == nil || !backend.InPlace(ref) {
			n++
		}
	}
	for _, secret := range s.plan.Secrets {
		if !s.isProvided(secret) && !secret.Expose {
			n++
		}
	}
	return n
}

func (s *startup) findPlace() error {
	if s.owner.UID != os.Geteuid() && !privdrop.CanChown() {
		return fail(exitSystem, "docker run --cap-add CHOWN; or start the container as that user", "files cannot be given to user %s: the container lacks the capability CHOWN", s.owner)
	}
	// The limit costs no memory.
	size := max(16<<20, int64(s.wanted()+1)*(s.plan.MaxSize+64<<10))
	if s.plan.Refresh.On() {
		// The old files are there until the new ones are.
		size *= 2
	}
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
